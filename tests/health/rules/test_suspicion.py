from hypothesis import given
from hypothesis import strategies as st

from apps.health.rules.suspicion import Seen, Suspicion, suspect

NOW = 1000.0


def seen(failing: int, good: int, *, age: float = 5.0) -> list[Seen]:
    return [Seen(NOW - age, True)] * failing + [Seen(NOW - age, False)] * good


def test_nine_of_ten_failing_at_once_is_our_own_fault():
    assert suspect(seen(9, 1), NOW, before=False) == Suspicion(True, 9, 10)
    assert suspect(seen(8, 2), NOW, before=False) == Suspicion(False, 8, 10)


def test_five_are_enough_within_a_minute_four_are_not():
    assert suspect(seen(5, 0, age=59), NOW, before=False).held
    assert not suspect(seen(4, 0, age=59), NOW, before=False).held
    assert not suspect(seen(5, 0, age=61), NOW, before=False).held


def test_a_large_fleet_is_judged_on_the_last_seconds():
    before_the_outage = seen(0, 300, age=40)
    assert suspect([*before_the_outage, *seen(95, 5)], NOW, before=False).held
    assert not suspect([*seen(300, 0, age=40), *seen(2, 98)], NOW, before=True).held, "and cleared on them"


def test_a_suspicion_stays_until_half_of_the_targets_answer():
    assert suspect(seen(6, 4), NOW, before=True).held
    assert not suspect(seen(6, 4), NOW, before=False).held
    assert not suspect(seen(4, 6), NOW, before=True).held


def test_with_too_few_targets_one_good_answer_clears_us():
    assert suspect(seen(3, 0), NOW, before=True).held
    assert not suspect(seen(3, 1), NOW, before=True).held
    assert suspect([], NOW, before=True).held
    assert not suspect([], NOW, before=False).held


def test_what_was_down_before_says_nothing_about_us():
    long_down = [Seen(NOW - 5, True, NOW - 600)] * 50
    assert not suspect(long_down, NOW, before=False).held
    assert not suspect([*long_down, *seen(0, 5)], NOW, before=False).held
    just_down = [Seen(NOW - 5, True, NOW - 30)] * 50
    assert suspect(just_down, NOW, before=False) == Suspicion(True, 50, 50)


@given(st.integers(0, 200), st.integers(0, 200), st.booleans())
def test_the_share_decides_and_nothing_else(failing, good, before):
    verdict = suspect(seen(failing, good), NOW, before=before)
    if failing + good >= 5:
        share = failing / (failing + good)
        assert verdict.held == (share >= 0.9 or (before and share >= 0.5))
    assert (verdict.failing, verdict.of) == (failing, failing + good)
