"""Tokens, cursors and bodies: what is read, and what is refused."""

import json
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.api import rules
from apps.api.rules import TokenParts, Unreadable, parse_json, read_cursor, write_cursor
from apps.core.redaction import redact

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
TOKEN = TokenParts("ab12cd34", "k" * 43)


def test_what_is_stored_of_a_secret_is_its_digest():
    assert rules.hashed("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_token_is_read_as_it_was_written():
    assert rules.split_token(str(TOKEN)) == TOKEN


@given(st.text(max_size=80))
def test_any_other_text_is_no_token(text):
    assert rules.split_token(text) is None or str(rules.split_token(text)) == text


@pytest.mark.parametrize("text", ["", "pw_", f"{TOKEN} ", f" {TOKEN}", f"{TOKEN}\n", str(TOKEN).upper(), f"{TOKEN}k"])
def test_what_is_nearly_a_token_is_none(text):
    assert rules.split_token(text) is None


def test_a_token_is_redacted_wherever_it_shows():
    token = str(TokenParts("ab12cd34", "Zx9_-" * 8 + "abc"))

    assert token not in redact(f"curl -H 'X: {token}' said {token}.")
    assert redact(f"Authorization: Bearer {token}") == "Authorization: Bearer [redacted]"


@pytest.mark.parametrize(
    ("scopes", "needed", "allowed"),
    [
        (["health:write"], "health:write", True),
        (["health:write"], "health:read", True),
        (["health:read"], "health:write", False),
        (["health:write"], "backups:read", False),
        ([], "health:read", False),
    ],
)
def test_writing_includes_reading_of_the_same_noun(scopes, needed, allowed):
    assert rules.allows(scopes, needed) is allowed


@pytest.mark.parametrize(
    ("text", "lasting"), [("12h", timedelta(hours=12)), ("90d", timedelta(days=90)), ("2w", timedelta(days=14))]
)
def test_a_lifetime_is_hours_days_or_weeks(text, lasting):
    assert rules.lifetime(text) == lasting


@pytest.mark.parametrize("text", ["", "90", "0d", "-1d", "1.5h", "1m", "999999d", "90 d", "٣d"])
def test_anything_else_is_no_lifetime(text):
    with pytest.raises(Unreadable, match="such as 12h"):
        rules.lifetime(text)


@pytest.mark.parametrize(("text", "good"), [("a", True), ("A" * 200, True), ("", False), ("a b", False), ("ä", False),
                                            ("a" * 201, False), ("a\n", False)])  # fmt: skip
def test_an_idempotency_key_is_printable_and_bounded(text, good):
    assert rules.is_idempotency_key(text) is good


clean = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=60)
moments = st.datetimes(timezones=st.just(UTC))


@given(moments, clean, st.integers(min_value=0, max_value=2**63 - 1))
def test_a_cursor_gives_back_the_values_it_was_made_of(moment, text, number):
    cursor = write_cursor("things", [moment, text, number])

    assert read_cursor("things", cursor, [datetime, str, int]) == [moment, text, number]
    assert cursor.isascii()


@given(st.one_of(st.text(max_size=100), st.binary(max_size=60).map(lambda raw: raw.hex())))
def test_anything_else_is_refused_as_cursor(text):
    with pytest.raises(Unreadable, match="not one of this list"):
        read_cursor("things", text, [datetime, str])


@pytest.mark.parametrize(
    "values",
    [
        ["2026-03-01T12:00:00", "a"],
        [NOON, 1],
        [NOON, "a\0"],
        [1, "a"],
        [NOON],
        [NOON, "a", "b"],
        ["0001-01-01T00:00:00+14:00", "a"],
        ["x" * 900, "a"],
    ],
)
def test_a_cursor_with_other_values_is_refused(values):
    with pytest.raises(Unreadable):
        read_cursor("things", write_cursor("things", values), [datetime, str])


@pytest.mark.parametrize("number", [True, -1, 2**63])
def test_a_cursor_counts_in_whole_numbers_a_column_can_hold(number):
    with pytest.raises(Unreadable):
        read_cursor("things", write_cursor("things", [number]), [int])


def test_a_cursor_of_another_list_is_refused():
    with pytest.raises(Unreadable):
        read_cursor("others", write_cursor("things", [NOON, "a"]), [datetime, str])


json_values = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-(2**60), 2**60), st.floats(allow_nan=False, allow_infinity=False), clean
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(clean, inner, max_size=4)),
    max_leaves=12,
)


@given(json_values, st.booleans())
def test_clean_json_is_read_as_it_was_written(value, ascii_only):
    assert parse_json(json.dumps(value, ensure_ascii=ascii_only).encode()) == value


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(body):
    with suppress(Unreadable):
        parse_json(body)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON: line 1, column 2"),
        (b"\xff", "not UTF-8"),
        ("{}".encode("utf-16"), "not UTF-8"),
        (b'{"a": 1, "a": 2}', "occurs twice"),
        (b"[NaN]", "NaN, which is no JSON number"),
        (b"[-Infinity]", "no JSON number"),
        (b"[" + b"9" * 5000 + b"]", "number that is too long"),
        (b"[" * 100_000, "nested deeper"),
        (b"[" * 34 + b"]" * 34, "nested deeper"),
        (b'{"a":' * 34 + b"1" + b"}" * 34, "nested deeper"),
        (b'["\\u0000"]', "NUL"),
        (b'["\\ud800"]', "surrogate"),
        (b'{"\\udfff": 1}', "surrogate"),
        (b'["a\x00b"]', "not JSON"),
    ],
)
def test_what_no_column_takes_is_refused(body, reason):
    with pytest.raises(Unreadable, match=reason):
        parse_json(body)


def test_nesting_up_to_the_limit_and_characters_of_four_bytes_are_fine():
    assert parse_json(b"[" * rules.MAX_DEPTH + b"]" * rules.MAX_DEPTH)
    assert parse_json('"\U0001f525 \\ud83d\\udd25"'.encode()) == "\U0001f525 \U0001f525"
