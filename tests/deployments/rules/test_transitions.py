"""Statuses, versions, commits and times."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.core.errors import Conflict, Invalid
from apps.deployments.rules import transitions

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
STATUSES = ("queued", "in_progress", "completed", "failed", "cancelled", "rolled_back")


@pytest.mark.parametrize(
    ("word", "status"), [("deploying", "in_progress"), ("success", "completed"), ("failed", "failed")]
)
def test_other_systems_words_are_understood(word, status):
    assert transitions.status_of(word) == status


@given(st.sampled_from(["deployment", "rollback"]), st.sampled_from(STATUSES), st.sampled_from(STATUSES))
def test_a_move_is_legal_exactly_when_it_is_listed_and_a_refusal_lists_what_is(kind, status, to):
    legal = transitions.next_statuses(kind, status)
    if to in legal:
        transitions.check_move(kind, status, to)
        assert not transitions.is_late(status, to)
        return
    with pytest.raises(Conflict) as caught:
        transitions.check_move(kind, status, to)
    assert caught.value.facts["legal"] == list(legal)


@given(st.sampled_from(STATUSES))
def test_nothing_follows_an_end(status):
    ended = status not in ("queued", "in_progress")
    assert (transitions.next_statuses("deployment", status) == ()) == ended


@pytest.mark.parametrize("version", ["v1.2.3", "1.2.3", "0.0.1-rc.1+build.5", "a1b2c3d", "A" * 40])
def test_a_version_is_semantic_or_a_commit(version):
    assert transitions.check_version(version) == version


@pytest.mark.parametrize(
    "version", ["", "1.2", "v01.2.3", "latest", "a1b2c3", "g" * 40, "1.2.3 ", "v1.2.3\n", "1" * 65]
)
def test_anything_else_is_no_version(version):
    with pytest.raises(Invalid):
        transitions.check_version(version)


@given(st.text(max_size=50))
def test_a_commit_is_hexadecimal_or_refused(text):
    try:
        assert int(transitions.check_commit(text), 16) >= 0
        assert 7 <= len(text) <= 40
    except Invalid:
        assert not (7 <= len(text) <= 40 and all(letter in "0123456789abcdefABCDEF" for letter in text))


@given(st.text(alphabet="0123456789abcdefABCDEF", min_size=7, max_size=40))
def test_a_commit_is_kept_in_lower_case(text):
    assert transitions.check_commit(text) == text.lower()


@given(st.text(max_size=700))
def test_a_message_is_cut_and_storable(text):
    kept = transitions.cut_message(text)
    assert len(kept) <= 500
    assert "\x00" not in kept


def test_a_time_has_a_zone_and_has_passed_give_or_take_a_clock():
    soon = NOW + timedelta(minutes=4)
    assert transitions.check_past(None, now=NOW, field="x") is None
    assert transitions.check_past(soon, now=NOW, field="x") == NOW
    for wrong in (NOW + timedelta(hours=1), NOW.replace(tzinfo=None)):
        with pytest.raises(Invalid):
            transitions.check_past(wrong, now=NOW, field="x")


def test_an_unknown_status_is_refused_with_the_known_ones():
    with pytest.raises(Invalid, match="queued, in_progress, completed"):
        transitions.status_of("sideways")


def test_one_version_is_found_under_each_way_people_write_it():
    assert transitions.spellings("v1.2.3", "a" * 40) == ("1.2.3", "v1.2.3")
    assert transitions.spellings("1.2.3", "a" * 40) == ("1.2.3", "v1.2.3")
    assert transitions.spellings("abcdef01", "abcdef0123") == ("abcdef01", "abcdef0", "abcdef0123")
