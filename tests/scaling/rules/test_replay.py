"""A policy tried on recorded minutes."""

from dataclasses import replace

from hypothesis import example, given, settings
from hypothesis import strategies as st

from apps.scaling.rules.evaluation import DOWN, HOLD, UP, Past, evaluate
from apps.scaling.rules.policy import CPU, Policy
from apps.scaling.rules.replay import History, Recorded, first_difference, replay
from apps.scaling.rules.usage import Load, Minute, running, windows

BASE = 1_760_000_400 // 3600 * 3600
POLICY = Policy(min_instances=1, max_instances=6, scale_up_cooldown_seconds=300, scale_down_cooldown_seconds=600)


def minutes_of(*totals, count=2, at=BASE):
    """A minute for each total load (100 is one full instance), on `count` instances; None: nobody recorded it."""
    return [
        Minute(at + 60 * place, count, count, Load(float(total), count), Load(10.0 * count, count))
        for place, total in enumerate(totals)
        if total is not None
    ]


def live(policy, totals, *, count, gaps=frozenset(), refused=frozenset(), others=None, held=None):
    """A little world in which the policy runs: the load is shared by as many instances as there are."""
    minutes, decisions, changes, past = [], [], [], Past()
    held, others = held or {}, others or {}
    for place, total in enumerate(totals):
        at = BASE + 60 * place
        if at % policy.evaluation_period_seconds == 0 and at >= BASE + policy.lookback:
            decision = evaluate(
                policy, windows(policy, minutes, at), end=at, count=count, past=past, held=held.get(at, "")
            )
            decisions.append(decision)
            if decision.action != HOLD:
                success = at not in refused
                changes.append(Recorded(at, decision.after - count, success))
                if success:
                    past = Past(at if decision.after > count else past.last_up, at)
                    count = decision.after
        if place in others:
            changes.append(Recorded(at + 20, others[place], by_policy=False))
            past = Past(at + 20 if others[place] > 0 else past.last_up, at + 20)
            count += others[place]
        if place not in gaps:
            minutes.append(
                Minute(at, count, count, Load(min(100.0 * count, float(total)), count), Load(10.0 * count, count))
            )
    return minutes, decisions, changes


@settings(max_examples=60)
@given(
    st.lists(st.integers(0, 600), min_size=4, max_size=24),
    st.integers(1, 6),
    st.sets(st.integers(0, 119)),
    st.sets(st.integers(2, 23)),
    st.dictionaries(st.integers(11, 100), st.sampled_from([1, 2]), max_size=2),
)
@example([0, 0, 0, 0], 1, {14}, set(), {14: 1})  # somebody adds one, and the minute in which he does is lost
def test_the_replay_of_the_policy_that_ran_gives_the_decisions_that_were_made(levels, count, gaps, refused, others):
    totals = [level for level in levels for _ in range(5)]
    gaps -= {*range(11)}  # before the first recorded minute nobody knows how many ran
    minutes, decisions, changes = live(
        POLICY, totals, count=count, gaps=gaps, refused={BASE + 300 * n for n in refused}, others=others
    )
    again = replay(POLICY, History(minutes, changes), start=BASE + POLICY.lookback, end=BASE + 60 * (len(totals) - 1))
    assert [(d.at, d.action, d.before, d.after, d.reason) for d in again.decisions] == [
        (d.at, d.action, d.before, d.after, d.reason) for d in decisions
    ]
    assert first_difference(again.decisions, decisions) is None


def test_a_replay_is_the_same_each_time_and_needs_no_order():
    minutes = minutes_of(*[20, 150, 190] * 20)
    one = replay(POLICY, History(minutes), start=BASE + 600, end=BASE + 3600)
    assert one == replay(POLICY, History(minutes[::-1]), start=BASE + 600, end=BASE + 3600)


def test_replays_that_share_a_history_are_those_that_each_had_its_own():
    minutes, span = minutes_of(*[20, 150, 190] * 20), {"start": BASE + 600, "end": BASE + 3600}
    shared = History(minutes)
    for policy in (POLICY, replace(POLICY, scale_up_threshold=0.6), replace(POLICY, metrics=(CPU,)), POLICY):
        assert replay(policy, shared, **span) == replay(policy, History(minutes), **span)


def test_the_total_load_is_conserved_on_more_instances():
    """Two instances at 90 %: a third makes it 60 %, which rests between the thresholds."""
    found = replay(POLICY, History(minutes_of(*[180] * 60)), start=BASE + 600, end=BASE + 3600)
    assert [(one.at - BASE, one.action, one.after) for one in found.actions] == [(600, UP, 3)]
    later = found.decisions[-1]
    assert later.reason == "held: CPU 60 %, memory 6.7 %: not above 80 %, and not all below 40 %"
    assert found.counts == ((BASE + 600, 3),)
    assert found.figures.actions == 1
    assert found.figures.instance_hours == 3 * 50 / 60
    assert found.figures.minutes_above_threshold == 0
    assert found.figures.minutes_known == 50
    assert found.figures.thrash_count == 0


def test_two_policies_are_compared_by_one_yardstick_and_each_by_its_own():
    """Always 75 %: too much for who tries 70 %, but not for the policy in force, whose threshold is 80 %."""
    present = replace(POLICY, min_instances=2, max_instances=2)
    tried = replace(present, scale_up_threshold=0.7, metrics=(CPU,))
    history, span = History(minutes_of(*[150] * 40)), {"start": BASE + 600, "end": BASE + 2400}
    figures = replay(tried, history, **span, yardstick=present).figures
    assert (figures.minutes_above_threshold, figures.minutes_above_own_threshold) == (0, 30)
    figures = replay(present, history, **span, yardstick=tried).figures
    assert (figures.minutes_above_threshold, figures.minutes_above_own_threshold) == (30, 0)
    figures = replay(tried, history, **span).figures
    assert (figures.minutes_above_threshold, figures.minutes_above_own_threshold) == (30, 30)


def test_gaps_bounds_and_late_samples_by_hand():
    policy = replace(POLICY, min_instances=2, max_instances=3, metrics=(CPU,))
    # 10 minutes of 180, then 10 minutes nobody recorded, then 20 minutes of 30.
    totals = [180] * 10 + [None] * 10 + [30] * 20
    found = replay(policy, History(minutes_of(*totals)), start=BASE + 600, end=BASE + 2400)
    assert [(one.at - BASE, one.action, one.after, one.rule) for one in found.decisions] == [
        (600, UP, 3, "above_threshold"),
        (900, HOLD, 3, "waiting"),
        (1200, HOLD, 3, "too_little_reported"),
        (1500, HOLD, 3, "too_little_reported"),
        (1800, DOWN, 2, "below_threshold"),
        (2100, HOLD, 2, "waiting"),
        (2400, HOLD, 2, "at_minimum"),
    ]
    assert found.figures.minutes_known == 20
    assert found.figures.instance_hours == (20 * 3 + 10 * 2) / 60
    # The samples of the gap come late: they change the replay, not what was decided then.
    late = replay(policy, History(minutes_of(*[180] * 10 + [30] * 30)), start=BASE + 600, end=BASE + 2400)
    difference = first_difference(found.decisions, late.decisions)
    assert difference is not None
    assert [(one.at - BASE, one.action, one.after) for one in difference] == [(1200, HOLD, 3), (1200, DOWN, 2)]


def test_a_minute_in_which_nothing_should_have_run_has_no_figure():
    minutes = [Minute(BASE + 60 * place, 0) for place in range(20)] + minutes_of(*[100] * 40, at=BASE + 1200)
    found = replay(POLICY, History(minutes), start=BASE, end=BASE + 3600)
    assert (found.figures.minutes_known, found.figures.minutes_above_own_threshold) == (40, 0)


def test_an_action_that_undoes_the_one_before_it_is_counted_as_thrash():
    policy = replace(POLICY, scale_down_cooldown_seconds=0, evaluation_period_seconds=60, datapoints_to_trigger=1)
    found = replay(policy, History(minutes_of(*[190, 190, 20, 20] * 4)), start=BASE + 60, end=BASE + 960)
    assert found.figures.thrash_count >= 3


def test_holds_that_were_recorded_hold_in_the_replay_too():
    history = History(minutes_of(*[180] * 20), held={BASE + 600: "deployment deploy_1 is in progress"})
    found = replay(POLICY, history, start=BASE + 600, end=BASE + 1200)
    assert [one.rule for one in found.decisions] == ["held", "above_threshold", "waiting"]


def test_what_was_scaled_by_others_moves_the_replay_along():
    minutes = minutes_of(*[100] * 20) + minutes_of(*[100] * 20, count=4, at=BASE + 1200)
    history = History(minutes, [Recorded(BASE + 1190, 2, by_policy=False)])
    found = replay(POLICY, history, start=BASE + 600, end=BASE + 2400)
    assert [(one.at - BASE, one.before, one.rule) for one in found.decisions][2:5] == [
        (1200, 2, "waiting"),
        (1500, 4, "waiting"),
        (1800, 4, "below_threshold"),
    ]


def test_a_longer_window_does_not_inherit_what_was_done_within_it():
    """The policy that ran added one at a moment at which the tried one decides nothing."""
    minutes = minutes_of(*[150] * 25) + minutes_of(*[150] * 35, count=3, at=BASE + 1500)
    tried = replace(POLICY, evaluation_period_seconds=600, datapoints_to_trigger=1)
    found = replay(tried, History(minutes, [Recorded(BASE + 1500, 1)]), start=BASE + 600, end=BASE + 3600)
    assert {one.before for one in found.decisions} == {2}
    assert {one.after for one in found.decisions} == {2}


def test_one_web_server_that_reports_for_its_workers_is_counted_by_them_all_the_time():
    """The platform's count is noted once a window; the minutes between have but the one instance that reports."""
    minutes = [
        Minute(
            BASE + 60 * place, 1, 1, Load(70.0, 1), Load(10.0, 1), units=3 if place % 5 == 4 and place < 55 else None
        )
        for place in range(60)
    ]
    assert set(running(minutes).values()) == {3}
    policy, span = replace(POLICY, min_instances=2), {"start": BASE + 600, "end": BASE + 3600}
    found = replay(policy, History(minutes), **span)
    assert {(one.before, one.rule) for one in found.decisions} == {(3, "within")}
    fewer = replay(replace(policy, max_instances=2), History(minutes), **span)
    assert [(one.before, one.after) for one in fewer.actions] == [(3, 2)]
    assert fewer.figures.minutes_above_threshold == 50  # 105 % of two, in each minute
    # Long before the platform was asked, and long after, the instances are what is known.
    minutes = [Minute(BASE + 60 * place, 1, 1, units=3 if place == 150 else None) for place in range(300)]
    assert [running(minutes)[BASE + 60 * place] for place in (0, 100, 150, 200, 299)] == [1, 3, 3, 3, 1]


def test_without_minutes_nothing_is_known_and_nothing_is_done_but_keeping_the_bounds():
    found = replay(POLICY, History([]), start=BASE, end=BASE + 600)
    assert [(one.before, one.after, one.rule) for one in found.decisions] == [
        (0, 1, "below_minimum"),
        (1, 1, "waiting"),
        (1, 1, "too_little_reported"),
    ]
    assert replay(POLICY, History([]), start=BASE + 1, end=BASE + 2).decisions == ()
    assert first_difference(found.decisions, []) is None
