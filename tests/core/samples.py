"""Secrets in every setting they turn up in, and objects that mean harm."""

import json
import string
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, quote_plus

from hypothesis import strategies as st

from apps.core.redaction import PLACEHOLDER, redact

ALPHANUMERIC = string.ascii_letters + string.digits


@dataclass(frozen=True)
class Secret:
    """A text, and the plain pieces in it that survive any escaping, so that half a leak is seen too."""

    text: str
    pieces: tuple[str, ...]

    def leaks_into(self, output: str) -> bool:
        return any(piece in output for piece in self.pieces)


@st.composite
def secrets(draw: st.DrawFn, between: str) -> Secret:
    """Two plain pieces among characters of `between`: before, amid and behind them."""
    piece = st.text(ALPHANUMERIC, min_size=6, max_size=10).map(lambda text: f"zQ{text}")
    nasty = st.text(between, max_size=6)
    pieces = draw(piece), draw(piece)
    return Secret("".join((draw(nasty), pieces[0], draw(nasty), pieces[1], draw(nasty))), pieces)


UNBROKEN = secrets(string.punctuation + "éß漢😀")
"""Secrets without white space, for places where that ends them."""
ANY = secrets(string.punctuation + string.whitespace + "éß漢😀")
"""Secrets with anything in them, for places that quote them properly."""
TOKEN68 = st.text(ALPHANUMERIC + "-._~+/", min_size=16, max_size=40).map(
    lambda text: Secret(f"{text}zQ9", (f"{text}zQ9",))
)

UNQUOTED: dict[str, Callable[[str], str]] = {
    "password=": lambda s: f"cannot connect: password={s}",
    "passwd: amid words": lambda s: f"passwd: {s} was refused",
    "PASSWORD = ": lambda s: f"MYSQL_PASSWORD = {s}\nDEBUG=1",
    "environment": lambda s: f"PGPASSWORD={s} psql -h db",
    "long option": lambda s: f"mysql --password {s} -h db",
    "long option with =": lambda s: f"mysql --db-password={s} -h db",
    "url": lambda s: f"cannot reach mysql://root:{s}@db.example.com:3306/x now",
    "url without user": lambda s: f"redis://:{s}@redis:6379/0",
    "url in quotes": lambda s: repr({"url": f"postgres://u:{s}@h/x"}),
    "url in JSON": lambda s: json.dumps(["amqp://u:" + s + "@h/x", "b"]),
    "jdbc": lambda s: f"jdbc:mysql://u:{s}@h:3306/x?useSSL=false",
    "socket": lambda s: f"redis+socket://:{s}@/run/redis.sock?db=1",
    "web address with a token": lambda s: f"https://oauth2:{s}@git.example.com/x.git",
    # Two slashes right behind the colon would make a URL of it.
    "no scheme": lambda s: f"netloc='root:{s.lstrip('/')}@db:3306' path='/x'",
    "go": lambda s: f"root:{s.lstrip('/')}@tcp(127.0.0.1:3306)/x",
    "variable with a broken url": lambda s: f"DATABASE_URL=mysql:/root:{s}/x",
    "bearer": lambda s: f"Authorization: Bearer {s}",
    "bearer alone": lambda s: f"sent Bearer zQ{s} to the API",
    "token scheme": lambda s: f"authorization: Token {s}",
    "digest": lambda s: f'Authorization: Digest username="bob", realm="x", response="{s}"\r\nHost: x',
    "api key": lambda s: f"X-Api-Key: {s}\nHost: x",
    "cookie": lambda s: f"Cookie: theme=dark; sessionid={s}; csrftoken=abc\nHost: x",
    "set-cookie": lambda s: f"Set-Cookie: sessionid={s}; HttpOnly; Path=/",
    "session pair": lambda s: f"sessionid={s} csrftoken={s}",
    "aws": lambda s: f"aws_secret_access_key={s}",
    "query string": lambda s: f"GET /x?page=2&token={quote(s, safe='')}&next=/y HTTP/1.1",
    "form": lambda s: f"username=bob&password={quote_plus(s)}&csrfmiddlewaretoken={quote_plus(s)}",
    "url-encoded url": lambda s: f"/x?url=mysql%3A%2F%2Froot%3A{quote(quote(s, safe=''), safe='')}%40h%2Fx&a=1",
    "url-encoded password": lambda s: f"mysql://root:{quote(s, safe='')}@h/x",
    "escaped lines": lambda s: f"first\\npassword={s}\\nlast",
    "several lines": lambda s: f"first\nAuthorization: Bearer {s}\ntoken: {s}\nlast",
    "basic": lambda s: f"Authorization: Basic {s}",
}
QUOTED: dict[str, Callable[[str], str]] = {
    "JSON": lambda s: json.dumps({"user": "bob", "password": s, "n": 1}),
    "JSON, compact": lambda s: json.dumps({"a": 1, "api_key": s, "b": "c"}, separators=(",", ":"), ensure_ascii=False),
    "JSON, indented": lambda s: json.dumps({"secrets": [s, {"x": s}], "b": "c"}, indent=2),
    "JSON in JSON": lambda s: json.dumps({"body": json.dumps({"password": s, "b": "c"})}),
    "JSON in JSON in JSON": lambda s: json.dumps([json.dumps([json.dumps({"token": s, "b": 1})])]),
    "JSON in repr": lambda s: repr(json.dumps({"password": s, "b": "c"})),
    "repr": lambda s: repr({"user": "bob", "password": s}),
    "repr of bytes": lambda s: repr({b"authorization": s.encode()}),
    "repr of repr": lambda s: repr(repr({"password": s, "b": "c"})),
    "repr of an exception": lambda s: repr(ValueError(f"bad { ({'password': s})!r}")),
    "call": lambda s: f"connect(user='x', password={s!r}, host='h')",
    "set_password": lambda s: f"user.set_password({s!r})",
    "tuple": lambda s: repr([("Host", "x"), ("Authorization", s), ("Cookie", s)]),
    "command line": lambda s: repr(["mysql", "--password", s, "-h", "db"]),
    "item": lambda s: f"environ['SECRET_KEY'] = {s!r}",
    "keyword DSN": lambda s: "user=x password='" + s.replace("\\", "\\\\").replace("'", "\\'") + "' host=h",
    "SQL": lambda s: f"CREATE USER x IDENTIFIED BY {s!r}",
    "cookies of a dict": lambda s: repr({"cookies": {"sessionid": s}, "n": 1}),
    "port of a broken url": lambda s: f"Port could not be cast to integer value as {s!r}",
}


def check(contexts: dict[str, Callable[[str], str]], secret: Secret) -> None:
    for name, context in contexts.items():
        output = redact(context(secret.text))
        assert not secret.leaks_into(output), (name, output)
        assert PLACEHOLDER in output, name
        assert redact(output) == output, name


class Hostile:
    def __str__(self) -> str:
        raise RuntimeError("no text for you")

    __repr__ = __str__


class HostileText(str):
    __slots__ = ()

    def __str__(self) -> str:
        raise RuntimeError("no text for you")

    def lower(self) -> str:
        raise RuntimeError("nor this")


class HostileMapping(dict[str, object]):
    def items(self) -> Any:
        raise RuntimeError("no items for you")


class HostileClass:
    @property
    def __class__(self) -> Any:
        raise RuntimeError("no class for you")


class HostileError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no message for you")


def loop() -> list[object]:
    endless: list[object] = []
    endless.append(endless)
    return endless


HOSTILE = (
    *(
        Hostile(),
        HostileText("x"),
        HostileMapping(a=1),
        HostileError(),
        Hostile,
        loop(),
        10**5000,
        -(10**5000),
    ),
    *(
        float("nan"),
        float("inf"),
        -float("inf"),
        "\ud800",
        b"\xff\xfe",
        memoryview(b"x"),
        bytearray(b"\x00"),
        1j,
        ...,
        type,
    ),
)
ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.binary()
    | st.integers(0, len(HOSTILE) - 1).map(HOSTILE.__getitem__),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.text(max_size=5) | st.integers() | st.binary(max_size=3), inner, max_size=4)
    ),
    max_leaves=12,
)
