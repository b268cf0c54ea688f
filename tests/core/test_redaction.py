"""Whatever secret is drawn, no part of it survives; what is harmless stays as it is."""

import ast
import base64
import json
import re
import string
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum
from types import MappingProxyType
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from apps.core import redaction
from apps.core.redaction import MAX_READ, MAX_TEXT, PLACEHOLDER, is_sensitive, redact, redact_value, register_secret

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


@given(secret=UNBROKEN)
def test_a_secret_without_white_space_is_hidden_whole(secret: Secret) -> None:
    check(UNQUOTED, secret)


@given(secret=ANY)
@example(secret=Secret('zQone", "zQtwo\\', ("zQone", "zQtwo")))
@example(secret=Secret("zQone', 'zQtwo\"\\", ("zQone", "zQtwo")))
def test_a_secret_in_quotes_is_hidden_whole(secret: Secret) -> None:
    check(QUOTED, secret)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("mysql://root:hush@db:3306/x?a=1", "mysql://root:*@db:3306/x?a=1"),
        ("postgres://bob@example.com:hush@db/x", "postgres://*:*@db/x"),
        ("mysql://bob@corp:hush@db/x", "mysql://bob@corp:*@db/x"),
        ("redis://:hush@redis:6379/0", "redis://:*@redis:6379/0"),
        ("redis://hush:@redis", "redis://*@redis"),
        ("https://hush@git.example.com/x", "https://*@git.example.com/x"),
        ("https://user:hush@example.com/x", "https://*@example.com/x"),
        ("jdbc:mysql://root:hush@db/x", "jdbc:mysql://root:*@db/x"),
        ('["amqp:\\/\\/u:hush@h"]', '["amqp:\\/\\/u:*@h"]'),
        ('{"netloc":"root:hush@db"}', '{"netloc":"root:*@db"}'),
        ("mysql://root:hushcookie:hush@db/x now", "mysql://root:*"),
        ('http://h:80/,"password":"x@hush hush", "n": 1', 'http://*", "n": 1'),
        ("/x?token=hush&page=2#top", "/x?token=*&page=2#top"),
        ("password='it's hush' for bob", "password='*' for bob"),
        ("password='a',hush for bob", "password=* for bob"),
        ("password='a', user='b'", "password='*', user='b'"),
        ("password='hush and so on", "password=*"),
        ('{"password": "a", "n": 1}', '{"password": "*", "n": 1}'),
        ('{"pin_token":12345,"n":1}', '{"pin_token":*,"n":1}'),
        ('{"tokens": ["a", "b"], "n": 1}', '{"tokens": *, "n": 1}'),
        ("password=hush,token='hush hush' end", "password=* end"),
        ("Authorization: Bearer hush\nHost: x", "Authorization: Bearer *\nHost: x"),
        (
            "Authorization: Bearer hush\\ntoken: hush\\nlast, done",
            "Authorization: Bearer * * done",
        ),
        ("Cookie: a=hush; b=hush\r\nHost: x", "Cookie: *\r\nHost: x"),
        ("Set-Cookie: a=hush; Path=/", "Set-Cookie: *"),
        ("Cookie: token='a'; b=hush", "Cookie: *"),
        ("mysql --password hush -h db", "mysql --password * -h db"),
        ("password=None, token: hush", "password=None, token: *"),
    ],
)
def test_what_stands_around_a_secret_stays(text: str, shown: str) -> None:
    assert redact(text) == shown.replace("*", PLACEHOLDER)


@given(user=st.text("abc:é", max_size=4), secret=ANY, scheme=st.sampled_from(["Basic", "basic", "BASIC"]))
def test_basic_credentials_are_hidden_wherever_they_stand(user: str, secret: Secret, scheme: str) -> None:
    code = base64.b64encode(f"{user}:{secret.text}".encode()).decode()
    assert code.rstrip("=") not in redact(f"sent {scheme} {code} to it")


@given(
    header=st.dictionaries(st.text(ALPHANUMERIC, min_size=1, max_size=5), st.integers(), max_size=3),
    payload=st.dictionaries(st.text(max_size=8), st.text(max_size=20), max_size=4),
    signature=st.binary(min_size=16, max_size=64),
    around=st.sampled_from([("", ""), ("got ", " here"), ("jwt\\n", "\\n"), ("'", "'"), ("x_", "."), ("/a/", "/b")]),
)
def test_a_json_web_token_is_hidden_anywhere(
    header: dict[str, int], payload: dict[str, str], signature: bytes, around: tuple[str, str]
) -> None:
    def part(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    parts = [
        part(json.dumps({"alg": "HS256", **header}).encode()),
        part(json.dumps(payload).encode()),
        part(signature),
    ]
    output = redact(".".join(parts).join(around))
    assert parts[0] not in output
    assert parts[2] not in output


@given(address=st.emails())
def test_an_email_address_is_hidden(address: str) -> None:
    for frame in ("{}", "mail to {}.", "user={} role=x", "<{}>", "mailto:{}", "'{}'", "a\\n{}\\nb", "/{}/"):
        assert address not in redact(frame.format(address)), frame
    encoded = quote(address, safe="")
    assert encoded not in redact(f"/x?email={encoded}&page=2")


def test_what_stands_around_an_email_address_stays() -> None:
    assert redact("user=bob.b+x@mail.example.com, ok") == f"user={PLACEHOLDER}, ok"
    assert redact("wrote to bob@example.com.") == f"wrote to {PLACEHOLDER}."


@pytest.mark.parametrize(
    "token",
    [
        "AKIA" + "IOSFODNN7EXAMPLE",
        "ghp_" + "a1B2" * 9,
        "ghs_" + "a1B2" * 9,
        "github_pat_" + "11ABCDE_a1B2" * 5,
        "xoxb-" + "123456789012-abcDEF123",
        "xapp-" + "1-A012-345-abcdef0123",
        "glpat-" + "a1B2c3D4e5F6g7H8i9J0",
        "pw_" + "Zm9vYmFy0123456789abcdefghij_-X",
        "eyJ" + "hbGciOiJub25lIn0:1tXyZa:AbCdEfGhIjKlMnOpQrStUvWxYz012345",
    ],
    ids=lambda token: token[:6],
)
@pytest.mark.parametrize("frame", ["{}", "used {} twice", "'{}',", "one\\n{}\\ntwo", "({})", "https://x.example/{}"])
def test_a_token_of_known_shape_is_hidden(token: str, frame: str) -> None:
    output = redact(frame.format(token))
    assert output == frame.format(PLACEHOLDER)


@given(st.binary(min_size=60, max_size=200), st.sampled_from(["\n", "\\n", "\r\n"]), st.booleans())
def test_a_private_key_is_hidden_even_when_cut_off(data: bytes, newline: str, complete: bool) -> None:
    body = base64.b64encode(b"zQ" + data).decode()
    end = f"{newline}-----END EC PRIVATE KEY-----{newline}after" if complete else ""
    output = redact(f"before -----BEGIN EC PRIVATE KEY-----{newline}{newline.join((body[:64], body[64:]))}{end}")
    assert body[:64] not in output
    assert output.startswith(f"before {PLACEHOLDER}")
    assert output.endswith("after") is complete


@contextmanager
def known(*values: str) -> Iterator[None]:
    """Registers secrets and forgets them again."""
    before = redaction._registered, redaction._known
    try:
        for value in values:
            register_secret(value)
        yield
    finally:
        redaction._registered, redaction._known = before


@given(secret=ANY)
def test_a_registered_secret_is_hidden_in_every_spelling(secret: Secret) -> None:
    text = secret.text
    spellings = [
        *(text, quote(text, safe=""), quote(text), quote_plus(text), repr(text), repr(text + "'"), repr([text, '"'])),
        *(json.dumps(text), json.dumps(text, ensure_ascii=False), text.encode("unicode_escape").decode()),
        re.sub("%..", lambda code: code[0].lower(), quote(text, safe="")),
    ]
    with known(text):
        for spelling in spellings:
            output = redact(f"a {spelling} b")
            assert not secret.leaks_into(output), (spelling, output)
            assert redact(output) == output


def test_the_longest_registered_secret_wins_and_short_ones_are_ignored() -> None:
    with known("correct-horse", "correct-horse-battery", "short", "", "[redacted]", "redacted"):
        assert redact("a correct-horse-battery b correct-horse c short redacted") == (
            f"a {PLACEHOLDER} b {PLACEHOLDER} c short redacted"
        )
    assert redact("a correct-horse b") == "a correct-horse b"


HARMLESS = [
    "",
    "plain sentence, with: colons; and (brackets) = signs",
    "/var/lib/pulsewatch/media/2026-02-05/report.json",
    'File "/app/apps/core/password_validation.py", line 12, in check_token',
    "apps.core.tokens.rotate",
    "C:\\Users\\x\\keys.txt",
    "connecting to db.example.com:3306 and [::1]:6379",
    "550e8400-e29b-41d4-a716-446655440000",
    "commit 9fceb02d0ae598e95dc970b74767f19372d61af8",
    "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "python:3.11-slim@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "https://example.com:8443/a/b?page=2&sort=-name#top",
    "mysql://localhost:3306/pulsewatch",
    "redis://redis:6379/0",
    "mysql://root@localhost/x",
    "ssh://git@host/x",
    "(1045, \"Access denied for user 'x'@'host' (using password: YES)\")",
    "(2003, \"Can't connect to MySQL server on 'db:3306' (111)\")",
    'password authentication failed for user "x"',
    "Forbidden (CSRF token from POST incorrect.): /admin/login/",
    "Forbidden (CSRF cookie not set.): /admin/login/",
    "This password is too short.",
    "Bearer token missing; Basic settings are fine; bearer authentication",
    'WWW-Authenticate: Bearer realm="metrics"',
    "Task apps.health.tasks.sample[3f0c6a52-6a3e-4b7e-9e5e-0c5c1c1c1c1c] succeeded in 0.01s: None",
    "celery@3f2a1b ready.",
    "password=None token=null, secret=True",
    "{'password': None, 'has_token': False}",
    "deploy_20251020_143052_k3f9 on policy_production: cpu 0.71 > 0.70",
    "numpy@2.1.0 scheduled @ 12:00, 3 @ 4",
    "monkey keyboard author passage compassion",
    "check_pw_strength_of_all_users_of_the_console and pw_strength_of_all_users_of_the_console",
    "naïve 漢字 😀 İstanbul",
]


@pytest.mark.parametrize("text", HARMLESS)
def test_harmless_text_stays_as_it_is(text: str) -> None:
    assert redact(text) == text


@given(st.lists(st.sampled_from([text for text in HARMLESS if text]), min_size=1, max_size=5))
def test_harmless_texts_stay_as_they_are_together(texts: list[str]) -> None:
    assert redact("\n".join(texts)) == "\n".join(texts)


@given(st.uuids(), st.integers(1, 65535), st.ip_addresses(), st.binary(min_size=20, max_size=20))
def test_ids_addresses_and_hashes_stay(uid: uuid.UUID, port: int, address: object, sha: bytes) -> None:
    text = f"request {uid} from {address} to db-{port}:{port} at {sha.hex()}"
    assert redact(text) == text


FRAGMENTS = (
    *(
        "password=",
        "token: ",
        '"secret": ',
        "'api_key'",
        "=",
        ":",
        ",",
        " ",
        "\n",
        "\\",
        '"',
        "'",
        "[",
        "]",
        "{",
        "(",
        ")",
    ),
    *("://", "@", "user:", "http://", "%3A%2F%2F", "%40", "Bearer ", "Basic ", "Authorization: ", "Cookie: ", "&", "?"),
    *(
        "eyJ",
        "abcdefghijklmnop",
        ".",
        "pw_",
        "ghp_",
        "--",
        "[redacted]",
        "None",
        "x.com",
        "-----BEGIN PRIVATE KEY-----",
    ),
    *("session", "İ", "IDENTIFIED BY ", "\ud800", "dXNlcjpwYXNz", "@sha256:", "\u017f", "1"),
)


@given(st.lists(st.sampled_from(FRAGMENTS) | st.text(max_size=3), max_size=25).map("".join))
@example("password=IDENTIFIED BY password=password=")  # the second look finds more than the first
def test_redacting_twice_changes_nothing_more(text: str) -> None:
    once = redact(text)
    assert redact(once) == once


ENDLESS = (
    *("a", "a ", "@", "a@", "a@a.", "@1.", "a'@", "'a", "a+", "İ", "\\", '\\\\"', '"', "\n", " ", "-", "&", "="),
    *("password", "password ", "password=", "password='", 'password="\\', "password={", "password=a(", "password:\n"),
    *(
        "secret_",
        "token:[",
        "('token', ",
        "--token ",
        "?token=&",
        '{"token":"a",',
        "token" + " " * 50,
        "session",
        "access_",
    ),
    *("://", "a://b:", "a://b:@", "http://a/", "http://a:", "a:@ ", "%3a%2f%2fa%3a", "%40a", "a%40a."),
    *("eyJ", "eyJ.", "AKIA", "ghp_", "github_pat_", "pw_", "pw_a", "xoxb-", "bearer ", "basic a", "basic YTpi "),
    *("-----BEGIN PRIVATE KEY-----", "-----BEGIN PRIVATE KEY----- -----END", "identified by 'a", "identified with "),
    *("cookie: ", "authorization: basic ", "token=[a]", 'token="a"b', "token='a';", 'token="x\\\\" ', "token=None"),
)


def cpu_seconds(text: str) -> float:
    started = time.process_time()
    redact(text)
    return time.process_time() - started


@pytest.mark.parametrize("around", [("", ""), ('@ password="', "@b.c"), ("token={://a@ ", '"x'), ("", " x")])
@pytest.mark.parametrize("piece", ENDLESS)
def test_time_grows_with_the_length_of_a_hostile_text_and_no_faster(piece: str, around: tuple[str, str]) -> None:
    def text(length: int) -> str:
        return (piece * (length // len(piece))).join(around)

    short, long = text(4_000), text(64_000)
    for _ in range(3):
        # 16 times the text: quadratic work would take 256 times as long. 5 ms: what cannot be measured is no finding.
        if cpu_seconds(long) < 64 * cpu_seconds(short) + 0.005:
            return
    pytest.fail(f"{piece!r} takes more than linear time")


@pytest.mark.parametrize("piece", ["a", "a@", "password=", "a://b:", "eyJ", '\\\\"', "token={"])
def test_a_hostile_megabyte_takes_seconds_at_most(piece: str) -> None:
    assert cpu_seconds("@" + piece * (1_000_000 // len(piece))) < 10


SENSITIVE = [
    *(
        "password",
        "PASSWD",
        "db_pwd",
        "SECRET_KEY",
        "secret",
        "token",
        "access_token",
        "accessToken",
        "apiKey",
        "api_key",
    ),
    *("X-API-Key", "Authorization", "HTTP_AUTHORIZATION", "cookie", "Set-Cookie", "session", "sessionid", "csrftoken"),
    *(
        "csrfmiddlewaretoken",
        "private_key",
        "dsn",
        "SENTRY_DSN",
        "credentials",
        "access_key",
        "BACKUP_KEYSET",
        "passphrase",
    ),
    *("DATABASE_URL", "REDIS_URL", "CELERY_BROKER_URL", "CELERY_RESULT_BACKEND", "scratch_url", "smtp_pass", "auth"),
]


@pytest.mark.parametrize("name", SENSITIVE)
def test_a_sensitive_name_hides_any_value_but_none_and_booleans(name: str) -> None:
    assert is_sensitive(name)
    for value in ("x", "", 5, 1.5, b"x", ["x"], {"a": "x"}, ValueError("x"), object()):
        assert redact_value(name, value) == PLACEHOLDER
    assert [redact_value(name, value) for value in (None, True, False)] == [None, True, False]


@pytest.mark.parametrize(
    "name",
    [
        "status",
        "user_id",
        "passed",
        "bypass",
        "author",
        "key",
        "monkey",
        "url",
        "base_url",
        "duration_ms",
        "path",
        "session_count",
    ],
)
def test_an_ordinary_name_hides_nothing(name: str) -> None:
    assert not is_sensitive(name)
    assert redact_value(name, "ready") == "ready"


NESTED: dict[str, Callable[[str], object]] = {
    "dict": lambda s: {"a": {"b": [{"password": s}, 1]}},
    "bytes key": lambda s: {b"authorization": s},
    "pairs": lambda s: [("Host", "x"), ("Cookie", s), (b"x-api-key", s.encode())],
    "command line": lambda s: ["mysql", "--password", s],
    "text in a set": lambda s: {json.dumps({"password": s})},
    "mapping": lambda s: MappingProxyType({"headers": ({"token": s},)}),
    "exception": lambda s: {"error": ValueError(f"password={s!r}")},
    "bytes": lambda s: [json.dumps({"password": s}).encode()],
    "key": lambda s: {f"password={s!r}": 1},
    "too deep": lambda s: {"a": {"b": {"c": {"d": {"e": {"f": {"g": {"h": s}}}}}}}},
}


@given(secret=ANY)
def test_a_nested_secret_is_hidden(secret: Secret) -> None:
    for name, context in NESTED.items():
        value = redact_value(None, context(secret.text))
        output = json.dumps(value, allow_nan=False)
        assert not secret.leaks_into(output), (name, output)
        assert redact_value(None, value) == value, name


def test_harmless_values_keep_their_form() -> None:
    class Colour(IntEnum):
        RED = 1

    moment = datetime(2026, 2, 5, 12, tzinfo=UTC)
    uid = uuid.uuid4()
    given_value = {
        "a": [1, 2.5, None, True, "x"],
        "t": (1, "y"),
        3: moment,
        "uid": uid,
        "enum": Colour.RED,
        "b": b"raw",
    }
    assert redact_value(None, given_value) == {
        "a": [1, 2.5, None, True, "x"],
        "t": (1, "y"),
        "3": "2026-02-05T12:00:00+00:00",
        "uid": str(uid),
        "enum": 1,
        "b": "raw",
    }
    assert redact_value("error", KeyError("x")) == "KeyError: 'x'"
    assert redact_value("error", RuntimeError()) == "RuntimeError"


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


@given(key=st.none() | st.text() | st.sampled_from(SENSITIVE) | st.builds(HostileText), value=ANYTHING)
def test_any_object_becomes_plain_json(key: str | None, value: object) -> None:
    output = redact_value(key, value)
    json.dumps(output, allow_nan=False).encode()
    json.dumps(output, ensure_ascii=False).encode()


@pytest.mark.parametrize("value", HOSTILE[:5])
def test_an_object_without_text_becomes_a_fixed_word(value: object) -> None:
    assert json.dumps(redact_value("x", [value, "next"])).endswith('"next"]')


def test_an_object_that_hides_even_its_class_does_not_raise() -> None:
    assert redact_value(None, {"x": HostileClass(), "y": 1}) == {"x": "[unprintable]", "y": 1}
    assert redact_value(None, HostileClass()) == "[unprintable]"


def test_long_and_wide_values_are_cut() -> None:
    assert redact_value(None, "x" * (MAX_TEXT + 1)) == "x" * MAX_TEXT + "[cut]"
    assert len(redact_value(None, range_list := list(range(100_000)))) < len(range_list)  # type: ignore[arg-type]
    assert len(redact_value(None, {str(n): n for n in range(100_000)})) <= 200  # type: ignore[arg-type]


@pytest.mark.parametrize("offset", range(0, 64, 5))
def test_cutting_a_huge_text_leaves_no_half_secret(offset: int) -> None:
    # The hidden beginning draws what lies near the cut into the part that is kept.
    beginning = "password='" + "x" * (MAX_READ - 100 + offset) + "' "
    for value in (
        beginning + "mysql://root:zQsecret1zQsecret2@db/x" * 50,
        (beginning + "a:zQsecret1@b " * 50).encode(),
    ):
        assert "zQsecret1" not in str(redact_value(None, value))


def test_the_module_knows_neither_django_nor_celery() -> None:
    code = "import sys, apps.core.redaction, apps.core.context; print({'django', 'celery'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert ast.literal_eval(result.stdout.replace("set()", "()")) == ()
