"""Database URLs."""

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.backups.engines import parse_url
from apps.backups.engines.base import EngineError
from apps.inventory.addresses import Address


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("mysql://me:p%40ss@db:3307/shop", Address("mysql", "db", 3307, "me", "p@ss", "shop")),
        ("mariadb://me@db/shop?charset=utf8mb4", Address("mysql", "db", 3306, "me", "", "shop")),
        (" postgresql://me:x@[::1]/shop\n", Address("postgresql", "::1", 5432, "me", "x", "shop")),
        (
            "postgres://me:x@db/shop?sslmode=require",
            Address("postgresql", "db", 5432, "me", "x", "shop", {"sslmode": "require"}),
        ),
        (
            "mysql://me:x@/shop?unix_socket=/run/my.sock",
            Address("mysql", "localhost", 3306, "me", "x", "shop", {"unix_socket": "/run/my.sock"}),
        ),
        ("sqlite:////srv/a%20b.sqlite3", Address("sqlite", "", 0, "", "", "/srv/a b.sqlite3")),
    ],
)
def test_a_url_is_taken_apart(url: str, address: Address) -> None:
    assert parse_url(url) == address


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("oracle://me:hunter2@db/shop", "begins with none of"),
        ("me:hunter2@db/shop", "begins with none of"),
        ("mysql:me:hunter2@db/shop", "begins with none of"),
        ("", "begins with none of"),
        ("mysql://me:hunter2@db", "names no schema"),
        ("mysql://me:hunter2@db/", "names no schema"),
        ("mysql://:hunter2@db/shop", "names no user"),
        ("mysql://db/hunter2", "names no user"),
        ("mysql://me:hunter2@/shop", "names no host"),
        ("mysql://me:hunter2#x@db/shop", "holds a #"),
        ("mysql://me:hunter2/x@db/shop", "no valid host and port"),
        ("mysql://me:hunter2?x@db/shop", "no valid host and port"),
        ("mysql://me:22/hunter2@db/shop", "holds a / or an @"),
        ("mysql://me:hunter2@db:no/shop", "no valid host and port"),
        ("mysql://me:hunter2@db:99999/shop", "no valid host and port"),
        ("mysql://me:hunter2@[db/shop", "no valid host and port"),
        ("mysql://me:hunter2%@db/shop", "no two hexadecimal digits follow"),
        ("mysql://me:hunter2%ff@db/shop", "are not UTF-8"),
        ("mysql://me:hunter2%0A@db/shop", "a line break or a NUL"),
        ("mysql://me:hunter2 x@db/shop", "holds white space"),
        ("mysql://me:hunter2\tx@db/shop", "holds white space"),
        ("mysql://me:hunter2@db/shop?hunter2=1", "an option that mysql does not know"),
        ("mysql://me:hunter2@db/shop?hunter2", "not of the form"),
        ("sqlite:///hunter2.sqlite3", "the absolute path"),
        ("sqlite://hunter2/srv/x.sqlite3", "the absolute path"),
    ],
)
def test_a_faulty_url_is_refused_without_a_word_of_it(url: str, complaint: str) -> None:
    with pytest.raises(EngineError, match=complaint) as raised:
        parse_url(url)
    assert "hunter2" not in str(raised.value)
    assert raised.value.__suppress_context__ or raised.value.__context__ is None


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r\n"), min_size=1))
def test_any_password_survives_its_percent_encoding(password: str) -> None:
    assert parse_url(f"mysql://me:{quote(password, safe='')}@db/shop").password == password


def test_the_password_is_not_shown() -> None:
    assert "hunter2" not in repr(parse_url("mysql://me:hunter2@db/shop"))
