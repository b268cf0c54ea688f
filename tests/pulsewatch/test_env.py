"""The strict readers of environment variables."""

import pytest
from celery import Celery
from hypothesis import example, given
from hypothesis import strategies as st
from kombu import Connection

from pulsewatch.env import Reader, celery_url, read_env_file

NAME = "SETTING"
URL = {"schemes": ("mysql", "sqlite"), "example": "mysql://u:p@db/n"}


def problem(reader: Reader) -> str:
    (fault,) = reader.faults
    return fault.problem


@pytest.mark.parametrize("text", ["true", "TRUE", "1", "yes", "on", " on "])
def test_true_has_four_spellings(text):
    assert Reader({NAME: text}).boolean(NAME, False) is True


@pytest.mark.parametrize("text", ["flase", "2", "y", "enabled", "True;"])
def test_a_malformed_boolean_is_a_fault_and_never_silently_false(text):
    reader = Reader({NAME: text})

    assert reader.boolean(NAME, True) is True
    assert problem(reader) == "must be true or false"


@pytest.mark.parametrize("text", ["", "  "])
def test_an_empty_variable_counts_as_not_set(text):
    reader = Reader({NAME: text.strip()})

    assert reader.integer(NAME, 7, minimum=1, maximum=9) == 7
    assert not reader.faults


@pytest.mark.parametrize("text", ["0", "10", "3.5", "three", "1e1", "٣", "9" * 30])
def test_a_whole_number_keeps_its_bounds(text):
    reader = Reader({NAME: text})

    assert reader.integer(NAME, 7, minimum=1, maximum=9) == 7
    assert "from 1 to 9" in problem(reader)


@pytest.mark.parametrize("text", ["0.05", "11", "nan", "inf", "-1", "0,8"])
def test_a_decimal_number_keeps_its_bounds(text):
    reader = Reader({NAME: text})

    assert reader.number(NAME, 0.8, minimum=0.1, maximum=10) == 0.8
    assert "from 0.1 to 10" in problem(reader)


@pytest.mark.parametrize(
    "text",
    [
        "postgres://u:p@db/n",
        "mysql:///n",
        "db:3306",
        "mysql://u:p@[::1/n",
        "mysql://u:p@db:99999/n",
        "mysql://u:p@db:port/n",
        "sqlite://",
        "//db/n",
    ],
)
def test_a_url_needs_a_known_scheme_and_a_host(text):
    reader = Reader({NAME: text})

    assert reader.url(NAME, **URL) == ""
    assert problem(reader)


@pytest.mark.parametrize("text", ["mysql://u:p%40ss@db:3306/n", "sqlite:////var/lib/x.sqlite3", "mysql://u@[::1]/n"])
def test_a_well_formed_url_is_taken_as_it_is(text):
    assert Reader({NAME: text}).url(NAME, **URL) == text


def test_a_database_url_is_percent_decoded():
    config = Reader({}).database("mysql://us%2Fer:p%40ss%3Aw%23rd@db:3307/na%20me")

    assert (config["USER"], config["PASSWORD"], config["NAME"], config["PORT"]) == ("us/er", "p@ss:w#rd", "na me", 3307)


@pytest.mark.parametrize("text", ["https://a", "a:8000", "a/b", "a b", ",", "-a"])
def test_hosts_have_no_scheme_port_or_path(text):
    reader = Reader({NAME: text})
    reader.hosts(NAME, "localhost")

    assert "without scheme" in problem(reader)


@pytest.mark.parametrize("text", ["*", "localhost,127.0.0.1", ".example.com", "[::1]", "a.example.com, b"])
def test_host_names_and_addresses_are_hosts(text):
    reader = Reader({NAME: text})

    assert reader.hosts(NAME, "localhost")
    assert not reader.faults


def test_pairs_are_read_with_names_in_lower_case():
    reader = Reader({NAME: " Live  EU = production,qa=staging,"})

    assert reader.pairs(NAME, values=("production", "staging"), example="") == {
        "live eu": "production",
        "qa": "staging",
    }
    assert not reader.faults


@pytest.mark.parametrize("text", ["production", "=staging", "qa=", "qa=testing", "a=b=staging"])
def test_a_malformed_pair_is_a_fault(text):
    reader = Reader({NAME: text})

    assert reader.pairs(NAME, values=("production", "staging"), example="qa=staging") == {}
    assert reader.faults


@pytest.mark.parametrize("text", ["example.com", "https://a/b", "ftp://a", "https://u@a", "https://", "https://[a"])
def test_origins_are_scheme_and_host(text):
    reader = Reader({NAME: text})

    assert reader.origins(NAME) == []
    assert reader.faults


def test_a_file_holds_the_value(tmp_path):
    file = tmp_path / "secret"
    file.write_text("from the file\n")

    assert Reader({f"{NAME}_FILE": str(file)}).text(NAME, example="x") == "from the file"


def test_a_file_that_is_not_there_is_named_by_its_variable_only(tmp_path):
    reader = Reader({f"{NAME}_FILE": str(tmp_path / "nothing")})
    reader.text(NAME, example="x")

    (fault,) = reader.faults
    assert fault.name == f"{NAME}_FILE"
    assert str(tmp_path) not in str(fault)


def test_a_file_that_is_not_text_is_a_fault(tmp_path):
    file = tmp_path / "secret"
    file.write_bytes(b"\xff\xfe\x00")
    reader = Reader({f"{NAME}_FILE": str(file)})
    reader.text(NAME, example="x")

    assert "not UTF-8" in problem(reader)


def test_value_and_file_together_are_ambiguous(tmp_path):
    reader = Reader({NAME: "a", f"{NAME}_FILE": str(tmp_path)})
    reader.text(NAME, example="x")

    assert "set twice" in problem(reader)


def read_all(reader: Reader) -> None:
    reader.text(NAME, example="x", min_length=50)
    reader.boolean(NAME, False)
    reader.integer(NAME, 1, minimum=0, maximum=5)
    reader.number(NAME, 1, minimum=0, maximum=5)
    reader.choice(NAME, "one", ("one", "two"))
    reader.hosts(NAME, "localhost")
    reader.origins(NAME)
    reader.url(NAME, **URL)


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=6, max_size=40))
@example("mysql://user:sesame-open@[db/n")
@example("$PATH")
def test_no_fault_repeats_a_value_and_no_value_raises(text):
    reader = Reader({NAME: text})
    read_all(reader)

    shown = "\n".join(map(str, reader.faults))
    assert text.strip() not in shown or text.strip() in "\n".join(map(str, faults_of_another_value()))


def faults_of_another_value():
    reader = Reader({NAME: "\u2603" * 6})
    read_all(reader)
    return reader.faults


@pytest.mark.parametrize("text", ["127.0.0.2", "::1", "[::1]", "db", "my_db", "db.example.com"])
def test_a_host_is_a_name_or_an_address_without_its_brackets(text):
    reader = Reader({NAME: text})

    assert reader.host(NAME, "db", example="db") == text.strip("[]")
    assert not reader.faults


@pytest.mark.parametrize("text", ["[bad", "a/b?c", "a:80", "a b", "u@h", "fe80::1%eth0", "[a]", "-a"])
def test_what_would_change_the_url_around_it_is_no_host(text):
    reader = Reader({NAME: text})

    assert reader.host(NAME, "db", example="db") == "db"
    assert "host name or address" in problem(reader)


@pytest.mark.parametrize(
    "text",
    [
        "redis://h/abc",
        "redis://h/0/1",
        "redis://h/-1",
        "redis://h?db=x",
        "redis://h?db=-1",
        "redis://h?socket_timeout=abc",
        "redis://h?colour=red",
        "redis://h?ssl_cert_reqs=none",
        "rediss://h?ssl_cert_reqs=perhaps",
        "unix:///r.sock?db=three",
        "redis://:sesame@[h/0",
    ],
)
def test_a_redis_url_that_no_connection_can_be_made_from_is_a_fault(text):
    reader = Reader({NAME: text})

    assert reader.redis(NAME, example="redis://h") == ""
    assert problem(reader)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("redis://:p%3Bw@h:7/3", {"host": "h", "port": 7, "password": "p;w", "db": 3}),
        ("redis://h?db=4&socket_timeout=2", {"host": "h", "db": 4}),
        ("rediss://u:pw@h/2", {"host": "h", "username": "u", "password": "pw", "db": 2, "ssl_cert_reqs": 2}),
        ("rediss://h?ssl_cert_reqs=none", {"host": "h", "db": 0, "ssl_cert_reqs": 0}),
        ("unix://:pw@/run/r.sock?db=3", {"path": "/run/r.sock", "password": "pw", "db": 3}),
        ("unix:///a%20b/r.sock", {"path": "/a b/r.sock", "db": 0}),
    ],
)
@pytest.mark.filterwarnings("ignore:.*ssl_cert_reqs")
def test_broker_and_results_connect_where_the_url_says(text, expected):
    assert Reader({NAME: text}).redis(NAME, example="redis://h") == text
    url = celery_url(text)

    with Connection(url) as connection:
        channel = connection.transport.Channel.__new__(connection.transport.Channel)
        channel.connection = connection.transport
        broker = channel._connparams()
    with Celery("other", broker="memory://", backend=url) as app:
        backend = app.backend.connparams
    assert {name: broker.get(name) for name in expected} == expected
    assert {name: backend.get(name) for name in expected} == expected


@pytest.mark.parametrize("text", ["-web", "web 1", "web/1", "w" * 101, "w\u00eb"])
def test_a_word_is_what_the_inventory_accepts(text):
    reader = Reader({NAME: text})

    assert reader.word(NAME, "web", max_length=100, example="web") == "web"
    assert problem(reader)


@pytest.mark.parametrize(
    "text", ["ftp://web", "http://u:p@web", "http://u@web", "http://we b", "http://web:0", "http://"]
)
def test_an_address_that_is_shown_has_no_password_and_names_a_host(text):
    reader = Reader({NAME: text})

    assert reader.http_url(NAME, "http://web", example="http://web:8000") == "http://web"
    assert problem(reader)


@pytest.mark.parametrize(("content", "reason"), [(b"A=\xff", "not UTF-8"), (b"A=\0", "not UTF-8"), (None, "Is a dir")])
def test_an_env_file_that_cannot_be_used_says_why(tmp_path, monkeypatch, content, reason):
    file = tmp_path / "env"
    file.mkdir() if content is None else file.write_bytes(content)

    assert reason in read_env_file(file)
    assert read_env_file(tmp_path / "none") == ""
