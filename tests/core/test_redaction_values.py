"""Whatever object a log or an audit entry is given, it becomes plain and holds no secret."""

import ast
import json
import subprocess
import sys
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from enum import IntEnum
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.core.redaction import MAX_READ, MAX_TEXT, PLACEHOLDER, is_sensitive, redact_value
from tests.core.samples import ANY, ANYTHING, HOSTILE, HostileClass, HostileText, Secret

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
