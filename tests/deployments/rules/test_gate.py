"""The gate's verdict: pure, on samples."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.deployments.rules import gate
from apps.deployments.rules.gate import Candidate, Choice, Figures, Policy, Sample

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
POLICY = Policy(samples=3, window=timedelta(minutes=2))
CHOICE = Choice(("a",), gate.BY_VERSION)


def at(*statuses: str, instance: str = "a", **facts: object) -> list[Sample]:
    return [Sample(instance, START + 10 * timedelta(seconds=n), status, **facts) for n, status in enumerate(statuses)]


def judged(samples, *, choice=CHOICE, before=Figures(), after: int = 60, faults=()) -> gate.Verdict:  # noqa: B008  (frozen)
    now = START + timedelta(seconds=after)
    return gate.judge(POLICY, choice, samples, before=before, started=START, now=now, other_faults=faults)


H, D, U, N = "healthy", "degraded", "unhealthy", "unknown"


@pytest.mark.parametrize(
    ("statuses", "after", "verdict"),
    [
        ((H, H, H), 30, "passed"),
        ((U, H, H, H), 40, "passed"),
        ((H, H, U), 30, ""),
        ((H, H), 60, ""),
        ((H, H), 121, "inconclusive"),
        ((), 121, "inconclusive"),
        ((N, N, N), 121, "inconclusive"),
        ((U,) * 6, 60, "failed"),
        ((H, U, U), 121, "failed"),
        ((H, H, H, D), 121, "failed"),
        ((D, D, H), 121, "inconclusive"),
    ],
)
def test_the_verdict_on_one_instance(statuses, after, verdict):
    found = judged(at(*statuses), after=after)

    assert found.verdict == verdict
    assert found.reasons


def test_every_chosen_instance_has_to_be_healthy():
    both = Choice(("a", "b"), gate.ALL)

    assert judged(at(H, H, H), choice=both).verdict == ""
    found = judged(at(H, H, H), choice=both, after=121)
    assert found.verdict == "inconclusive"
    assert "b gave no sample." in found.reasons
    assert judged([*at(H, H, H), *at(H, H, H, instance="b")], choice=both).verdict == "passed"


def test_without_any_instance_there_is_no_pass():
    found = judged(at(H, H, H), choice=Choice((), gate.ALL), after=121)
    assert found.verdict == "inconclusive"
    assert judged((), choice=Choice((), gate.ALL), after=10).reasons == ("No instance is known yet.",)


@pytest.mark.parametrize(
    ("before", "facts", "verdict"),
    [
        (Figures(5, 0.01, 100), {"error_rate": 0.02, "response_ms": 120}, "passed"),
        (Figures(5, 0.01, 100), {"error_rate": 0.2, "response_ms": 120}, "failed"),
        (Figures(5, 0.01, 100), {"error_rate": 0.01, "response_ms": 400}, "failed"),
        (Figures(5, 0.01, 10), {"error_rate": 0.01, "response_ms": 90}, "passed"),
        (Figures(), {"error_rate": 0.2, "response_ms": 400}, "passed"),
    ],
)
def test_healthy_but_worse_than_before_is_not_good_enough(before, facts, verdict):
    assert judged(at(H, H, H, **facts), before=before, after=121).verdict == verdict


def test_what_was_degraded_before_is_not_held_against_the_deployment():
    found = judged(at(D, D, D), before=Figures(9, None, None, degraded=True), after=121)
    assert found.verdict == "inconclusive"
    assert "degraded, as the workload was before" in found.reasons[0]


def test_a_fault_beside_the_samples_keeps_the_gate_open_and_fails_it_in_the_end():
    assert judged(at(H, H, H), faults=("Services accessible: refused.",)).verdict == ""
    assert judged(at(H, H, H), faults=("Services accessible: refused.",), after=121).verdict == "failed"


@given(st.lists(st.sampled_from([H, D, U, N]), max_size=14), st.integers(0, 200))
def test_a_pass_needs_as_many_healthy_samples_in_a_row_and_silence_never_fails(statuses, after):
    found = judged(at(*statuses), after=after)

    said = [status for status in statuses[:13] if status != N]  # what the window of two minutes holds
    if found.verdict == "passed":
        assert said[-3:] == [H, H, H]
    if found.verdict == "failed":
        assert U in said or D in said
    if not said:
        assert found.verdict in ("", "inconclusive")
    assert found == judged(list(reversed(at(*statuses))), after=after)


@pytest.mark.parametrize(
    ("reported", "same"),
    [("1.2.3", True), ("v1.2.3", True), ("V1.2.3", True), ("a1b2c3d", True), ("a1b2c3d4e5", True), ("a1b2c3", False),
     ("1.2.4", False), ("", False), (None, False)],
)  # fmt: skip
def test_an_instance_runs_the_version_or_the_commit(reported, same):
    assert gate.same_version(reported, "v1.2.3", "a1b2c3d4e5f6") is same


def test_instances_are_chosen_by_version_then_by_age_then_all():
    old, young = START - timedelta(hours=1), START + timedelta(seconds=5)
    new = Candidate("new", "1.2.3", young)
    fresh, former, gone = (
        Candidate("fresh", None, young),
        Candidate("former", "1.2.2", old),
        Candidate("gone", None, None),
    )
    failing = Candidate("failing", "1.2.2", old, mute=True)

    def chosen(*rows: Candidate) -> tuple[tuple[str, ...], str]:
        found = gate.choose(rows, version="v1.2.3", commit="a1b2c3d4", since=START)
        return found.instances, found.basis

    assert chosen(new, former, gone) == (("new",), gate.BY_VERSION)
    assert chosen(new, fresh, former, failing) == (("new", "fresh", "failing"), gate.BY_VERSION)
    assert chosen(fresh, former, gone) == (("fresh",), gate.BY_AGE)
    assert chosen(former, gone) == (("former", "gone"), gate.ALL)
    assert chosen() == ((), gate.ALL)


def test_it_says_when_no_instance_runs_the_version_and_which_are_left_out():
    old, young = START - timedelta(hours=1), START + timedelta(seconds=5)
    rows = [Candidate(f"web-{number}", "1.2.2", old) for number in range(7)]

    def remarks(*rows: Candidate) -> tuple[str, ...]:
        return gate.choose(rows, version="v1.2.3", commit="a1b2c3d4", since=START).remarks

    assert remarks(Candidate("new", "1.2.3", young)) == ()
    left_out = ("Not looked at: web-0 (1.2.2), web-1 (1.2.2), web-2 (1.2.2), web-3 (1.2.2), web-4 (1.2.2) and 2 more.",)
    assert remarks(Candidate("new", "1.2.3", young), *rows) == left_out
    assert remarks(*rows) == ("No instance says that it runs v1.2.3; they say 1.2.2. All were looked at.",)
    assert remarks(Candidate("a", None, None)) == ("No instance says that it runs v1.2.3. All were looked at.",)
    younger = "No instance says that it runs v1.2.3; they say 1.2.2. Those younger than the deployment were looked at."
    assert remarks(Candidate("fresh", None, young), rows[0]) == (younger, "Not looked at: web-0 (1.2.2).")
    policy = Policy(samples=1)
    choice = gate.choose(rows[:1], version="v1.2.3", commit="a1b2c3d4", since=START)
    found = gate.judge(policy, choice, [], before=Figures(), started=START, now=START)
    assert found.reasons[-1] == choice.remarks[0]


@given(st.integers(0, 600), st.integers(0, 600))
def test_a_gate_is_stuck_when_looks_after_its_window_came_to_no_end(planned, now):
    window = timedelta(seconds=60)
    stuck = gate.is_stuck(START, window, START + timedelta(seconds=planned), START + timedelta(seconds=now))

    assert stuck == (planned > 70 and now >= 180 and now >= planned + 30)


@given(st.integers(0, 10_000))
def test_the_next_look_is_ahead_and_on_the_beat(seconds):
    now = START + timedelta(seconds=seconds)
    coming = gate.next_look(START, now)
    assert now < coming <= now + gate.INTERVAL
    assert (coming - START) % gate.INTERVAL == timedelta(0)
    assert gate.next_look(START, START - timedelta(seconds=5)) == START + gate.INTERVAL  # a clock that jumped back
