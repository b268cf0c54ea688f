"""What becomes of an alert."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from apps.alerts.rules.levels import CALM, FLAP_WINDOW, RANKS, SEEN_BEFORE, Known, Move, firing, flaps, quiet

NOW = datetime(2026, 3, 2, 3, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
severities = st.sampled_from(sorted(RANKS))
minutes = st.integers(-60, 60).map(lambda n: NOW + n * MINUTE)


@given(severities, severities, st.booleans(), st.one_of(st.none(), minutes))
def test_severity_only_rises(stored, now, same, cleared):
    known = Known(stored, NOW, cleared is not None, cleared)
    move = firing(known, now, same_words=same)
    assert (move == Move.ESCALATE) == (RANKS[now] > RANKS[stored])
    assert move in (Move.ESCALATE, Move.RETURN, Move.UPDATE, Move.NOTHING)
    if move == Move.NOTHING:
        assert same
        assert cleared is None


def test_who_looked_before_it_broke_does_not_close_it():
    looked = NOW - timedelta(milliseconds=5)
    assert quiet(Known("info", NOW), (), looked) == Move.NOTHING
    assert quiet(Known("info", NOW), (), NOW) == Move.CLOSE
    assert quiet(Known("info", NOW), (), NOW - 2 * SEEN_BEFORE) == Move.CLOSE, "the clock was set back"


def test_an_unknown_subject_opens():
    assert firing(None, "info") == Move.OPEN
    assert firing(Known("info", NOW), "info", same_words=False) == Move.UPDATE
    assert firing(Known("info", NOW, True, NOW), "info") == Move.RETURN


@given(st.lists(minutes))
def test_only_recent_changes_make_it_flap(changes):
    recent = [change for change in changes if NOW - FLAP_WINDOW < change <= NOW]
    assert flaps(changes, NOW) == (len(recent) >= 4)


@given(minutes, st.booleans(), st.one_of(st.none(), minutes), st.lists(minutes, max_size=6), minutes)
def test_an_alert_closes_when_it_is_calm_and_never_waits_for_ever(opened, flapping, cleared, earlier, now):
    known = Known("info", opened, flapping, cleared)
    move = quiet(known, earlier, now)
    if now < opened <= now + SEEN_BEFORE:
        assert move == Move.NOTHING
    elif not flapping:
        assert move == (Move.HOLD if flaps([*earlier, opened, now], now) else Move.CLOSE)
    else:
        assert (move == Move.CLOSE) == (cleared is not None and cleared + CALM <= now)
        # Whatever the clock did, ten minutes of calm from now on are enough.
        after = Known("info", opened, True, now if move == Move.HOLD else cleared)
        assert move == Move.CLOSE or quiet(after, earlier, now + CALM) == Move.CLOSE
