"""The evaluation rule: invariants over everything, and tables computed by hand."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.scaling.rules.evaluation import DOWN, HOLD, UP, Past, evaluate
from apps.scaling.rules.policy import CPU, MEMORY, Policy, faults
from apps.scaling.rules.usage import FULL, Load, Minute, boundary, windows

END = 1_760_000_400 // 300 * 300


@st.composite
def policies(draw):
    low = draw(st.floats(0.05, 0.6))
    high = draw(st.floats(low + 0.1, 1.0))
    least = draw(st.integers(1, 5))
    middle = 50 * (low + high)
    policy = Policy(
        min_instances=least,
        max_instances=least + draw(st.integers(0, 5)),
        scale_up_threshold=high,
        scale_down_threshold=low,
        scale_up_cooldown_seconds=draw(st.integers(0, 1200)),
        scale_down_cooldown_seconds=draw(st.integers(0, 1200)),
        evaluation_period_seconds=draw(st.sampled_from([60, 120, 300])),
        datapoints_to_trigger=draw(st.integers(1, 3)),
        target_cpu_percent=middle,
        target_memory_percent=middle,
        metrics=draw(st.sampled_from([(CPU,), (MEMORY,), (CPU, MEMORY)])),
    )
    assert not faults(policy)
    return policy


@st.composite
def loads(draw, expected):
    shares = draw(st.lists(st.floats(0, 100), max_size=expected))
    warming = draw(st.integers(0, len(shares)))
    return Load(sum(shares), len(shares), sum(shares[:warming]))


@st.composite
def pasts(draw, end):
    up = draw(st.none() | st.integers(end - 2000, end))
    action = draw(st.none() | st.integers(end - 2000, end)) if up is None else draw(st.integers(up, end))
    return Past(up, action)


@st.composite
def scenes(draw):
    """A policy, the minutes it looks at, a count and a past."""
    policy = draw(policies())
    end = END // policy.evaluation_period_seconds * policy.evaluation_period_seconds
    minutes = []
    for at in range(end - policy.lookback, end, 60):
        if draw(st.integers(0, 9)):
            expected = draw(st.integers(0, 4))
            cpu, memory = draw(loads(expected)), draw(loads(expected))
            minutes.append(Minute(at, expected, max(cpu.instances, memory.instances), cpu, memory))
    return policy, minutes, end, draw(st.integers(0, 12)), draw(pasts(end))


def decide(policy, minutes, end, count, past, held=""):
    return evaluate(policy, windows(policy, minutes, end), end=end, count=count, past=past, held=held)


@given(scenes())
def test_the_count_stays_inside_its_bounds_and_moves_by_one_unless_it_was_outside(scene):
    policy, _, _, count, _ = scene
    decision = decide(*scene)
    assert policy.min_instances <= decision.after <= policy.max_instances
    assert decision.before == count
    if policy.min_instances <= count <= policy.max_instances:
        assert abs(decision.after - count) <= 1
    assert (
        decision.action == {True: UP, False: DOWN}.get(decision.after > count, "") if decision.after != count else HOLD
    )
    assert decision.reason


@given(scenes())
def test_nothing_happens_within_a_cooldown(scene):
    policy, _, end, count, past = scene
    decision = decide(*scene)
    if policy.min_instances <= count <= policy.max_instances:
        if past.last_up is not None and end - past.last_up < policy.scale_up_cooldown_seconds:
            assert decision.action != UP
        if past.last_action is not None and end - past.last_action < policy.scale_down_cooldown_seconds:
            assert decision.action != DOWN


@given(scenes(), st.sampled_from(["deployment deploy_1 is in progress", "paused"]))
def test_a_lock_a_pause_or_the_stop_switch_holds_whatever_the_count(scene, held):
    decision = decide(*scene, held=held)
    assert (decision.action, decision.after, decision.rule) == (HOLD, scene[3], "held")
    assert held in decision.reason


def without(minute, metric):
    """The minute with one report of one metric lost, the lightest that could have been."""
    load = getattr(minute, metric)
    if not load.instances:
        return minute
    least = max(0.0, load.total - FULL * (load.instances - 1))
    share = max(least, load.total / load.instances)  # any share between the least and 100 may be the lost one
    lost = Load(load.total - share, load.instances - 1, min(load.warming, load.total - share))
    changed = minute._replace(**{metric: lost})
    return changed._replace(reported=max(changed.cpu.instances, changed.memory.instances))


@given(scenes(), st.data())
def test_more_missing_data_never_turns_a_hold_into_a_scale_down(scene, data):
    policy, minutes, end, count, past = scene
    before = decide(*scene)
    if not minutes:
        return
    at = data.draw(st.integers(0, len(minutes) - 1))
    how = data.draw(st.sampled_from(["minute", CPU, MEMORY]))
    fewer = minutes[:at] + ([] if how == "minute" else [without(minutes[at], how)]) + minutes[at + 1 :]
    after = decide(policy, fewer, end, count, past)
    if policy.min_instances <= count <= policy.max_instances and after.action == DOWN:
        assert before.action == DOWN


@given(scenes(), st.floats(0, 1))
def test_more_load_never_leads_to_fewer_instances(scene, share):
    policy, minutes, end, count, past = scene

    def lighter(load):
        return Load(load.total * share, load.instances, load.warming * share)

    light = [minute._replace(cpu=lighter(minute.cpu), memory=lighter(minute.memory)) for minute in minutes]
    assert decide(policy, light, end, count, past).after <= decide(*scene).after


@given(scenes(), st.randoms())
def test_the_order_of_minutes_does_not_matter(scene, random):
    policy, minutes, end, count, past = scene
    shuffled = random.sample(minutes, len(minutes))
    assert decide(policy, shuffled, end, count, past) == decide(*scene)


# --- By hand ----------------------------------------------------------------------------------------------------------

POLICY = Policy(min_instances=2, max_instances=10)


def hour(*cpu, expected=3, reported=None, memory=50.0, warming=0.0):
    """Ten minutes that end at END: each CPU share given stands for one window of five minutes."""
    count = expected if reported is None else reported
    return [
        Minute(
            END - 600 + 300 * number + 60 * place,
            expected,
            count,
            Load(share * count, count, warming),
            Load(memory * count, count),
        )
        for number, share in enumerate(cpu)
        for place in range(5)
    ]


@pytest.mark.parametrize(
    ("minutes", "count", "past", "expected"),
    [
        (hour(82.3, 82.3), 2, Past(), (UP, 3, "CPU 82.3 % for 10 minutes (threshold 80 %)")),
        (hour(70, 70, memory=85), 2, Past(), (UP, 3, "memory 85 % for 10 minutes (threshold 80 %)")),
        (hour(80, 80), 2, Past(), (HOLD, 2, "held: CPU 80 %, memory 50 %: not above 80 %, and not all below 40 %")),
        (hour(90, 70), 2, Past(), (HOLD, 2, "held: CPU 90 % is above 80 % in 1 of 2 windows")),
        (hour(20, 20, memory=30), 3, Past(),
         (DOWN, 2, "CPU 20 % and memory 30 % for 10 minutes (threshold 40 %)")),
        (hour(20, 20), 3, Past(), (HOLD, 3, "held: CPU 20 %, memory 50 %: not above 80 %, and not all below 40 %")),
        (hour(20, 50, memory=30), 3, Past(),
         (HOLD, 3, "held: CPU 50 %, memory 30 %: below 40 % in 1 of 2 windows only")),
        (hour(20, 20, memory=30), 2, Past(),
         (HOLD, 2, "held: CPU 20 % and memory 30 % for 10 minutes (threshold 40 %), but the minimum is 2")),
        (hour(90, 90), 10, Past(),
         (HOLD, 10, "held: CPU 90 % for 10 minutes (threshold 80 %), but the maximum is 10")),
        (hour(56.5, 56.5, reported=2, memory=5), 3, Past(),
         (HOLD, 3, ("held: 2 of 3 instances reported; 1 missing counts as 100 % on the way down → CPU 71 %, "
                   "not below 40 %"))),
        (hour(20, 20, reported=2, memory=5), 3, Past(),
         (HOLD, 3, ("held: 2 of 3 instances reported; 1 missing counts as 100 % on the way down → CPU 46.7 %, "
                   "not below 40 %"))),
        (hour(20, 20, reported=1, memory=5), 3, Past(),
         (HOLD, 3, "held: 1 of 3 instances reported, too few to decide by")),
        ([], 3, Past(), (HOLD, 3, "held: 0 of 0 instances reported, too few to decide by")),
        (hour(10, 10, expected=9, reported=8, memory=10), 9, Past(),
         (DOWN, 8, ("CPU 20 % and memory 20 % for 10 minutes (threshold 40 %); 8 of 9 instances reported, "
                   "the rest counts as fully loaded on the way down"))),
        (hour(99, 99, expected=10, reported=9), 9, Past(),
         (UP, 10, ("CPU 89.1 % for 10 minutes (threshold 80 %); 9 of 10 instances reported, the rest counts as idle "
                  "on the way up"))),
        (hour(90, 90, warming=90), 3, Past(),
         (HOLD, 3, ("held: CPU 90 %, but 30 % of it comes from instances that are warming up and does not count on "
                   "the way up"))),
        (hour(90, 90), 3, Past(END - 600, END - 600), (UP, 4, "CPU 90 % for 10 minutes (threshold 80 %)")),
        (hour(90, 90), 3, Past(END - 300, END - 300),
         (HOLD, 3, "held: 1 of 2 windows have passed since the last action")),
        (hour(10, 10, memory=10), 1, Past(END, END), (UP, 2, "1 instance ran, the minimum is 2")),
        (hour(90, 90), 14, Past(END, END), (DOWN, 10, "14 instances ran, the maximum is 10")),
    ],
)  # fmt: skip
def test_a_table_computed_by_hand(minutes, count, past, expected):
    decision = decide(POLICY, minutes, END, count, past)
    assert (decision.action, decision.after, decision.reason) == expected


def test_a_cooldown_longer_than_the_windows_says_how_long_it_lasts():
    slow = replace(POLICY, scale_up_cooldown_seconds=900, scale_down_cooldown_seconds=630)
    up = decide(slow, hour(90, 90), END, 3, Past(END - 600, END - 600))
    assert up.rule == "cooldown_up"
    assert up.reason.endswith("but the cooldown of the last scale-up lasts another 5 minutes")
    down = decide(slow, hour(5, 5, memory=5), END, 3, Past(None, END - 600))
    assert down.rule == "cooldown_down"
    assert down.reason.endswith("but the cooldown of the last action lasts another 30 s")
    odd = decide(replace(slow, scale_up_cooldown_seconds=690), hour(90, 90), END, 3, Past(END - 600, END - 600))
    assert odd.reason.endswith("lasts another 1 min 30 s")


def test_a_metric_that_was_never_measured_keeps_the_count_until_the_policy_leaves_it_out():
    minutes = [minute._replace(memory=Load()) for minute in hour(10, 10)]
    assert decide(POLICY, minutes, END, 3, Past()).reason == (
        "held: memory was not measured, which counts as 100 % on the way down"
    )
    assert decide(replace(POLICY, metrics=(CPU,)), minutes, END, 3, Past()).action == DOWN
    unmeasured = [minute._replace(cpu=Load()) for minute in hour(10, 10)]
    assert decide(POLICY, unmeasured, END, 3, Past()).rule == "within"


def test_a_window_is_evaluated_fifteen_seconds_after_its_end():
    assert boundary(300, END + 14) == END - 300
    assert boundary(300, END + 15) == END


@pytest.mark.parametrize(
    ("change", "fields"),
    [
        ({"min_instances": 0}, ["min_instances"]),
        ({"min_instances": 4}, ["max_instances"]),
        ({"scale_up_threshold": 0.3}, ["scale_down_threshold"]),
        ({"scale_up_threshold": 1.2}, ["scale_up_threshold"]),
        ({"scale_down_threshold": 0.0}, ["scale_down_threshold"]),
        ({"target_cpu_percent": 90.0}, ["target_cpu_percent"]),
        ({"target_memory_percent": 40.0}, ["target_memory_percent"]),
        ({"scale_up_cooldown_seconds": -1}, ["scale_up_cooldown_seconds"]),
        ({"scale_down_cooldown_seconds": -1}, ["scale_down_cooldown_seconds"]),
        ({"evaluation_period_seconds": 0}, ["evaluation_period_seconds"]),
        ({"evaluation_period_seconds": 90}, ["evaluation_period_seconds"]),
        ({"datapoints_to_trigger": 0}, ["datapoints_to_trigger"]),
        ({"metrics": ()}, ["metrics"]),
        ({"metrics": ("disk",)}, ["metrics"]),
        ({}, []),
    ],
)
def test_wrong_settings_are_named(change, fields):
    assert list(faults(replace(Policy(), **change))) == fields
