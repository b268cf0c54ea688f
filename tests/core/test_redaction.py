"""Whatever secret is drawn, no part of it survives; what is harmless stays as it is."""

import base64
import json
import re
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from apps.core import redaction
from apps.core.redaction import PLACEHOLDER, redact, register_secret
from tests.core.samples import ALPHANUMERIC, ANY, QUOTED, UNBROKEN, UNQUOTED, Secret, check


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


def test_secrets_that_are_read_again_and_again_or_by_the_hundred_cost_little(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    compile_it = re.compile
    secrets = [f"Secret-{number}-of-a-platform" for number in range(300)]
    with known(*secrets):
        monkeypatch.setattr(redaction.re, "compile", lambda text: made.append(text) or compile_it(text))
        assert redact(f"a {secrets[0]} and {secrets[299]}") == "a [redacted] and [redacted]"
        for secret in secrets:
            register_secret(secret)
            assert secret not in redact(secret)
        monkeypatch.undo()
    assert len(made) == 1


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
