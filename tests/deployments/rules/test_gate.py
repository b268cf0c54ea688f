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

    said = [status for status in statuses if status != N][:13]
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
    fresh, former, mute = (
        Candidate("fresh", None, young),
        Candidate("former", "1.2.2", old),
        Candidate("mute", None, None),
    )

    def chosen(*rows: Candidate) -> Choice:
        return gate.choose(rows, version="v1.2.3", commit="a1b2c3d4", since=START)

    assert chosen(new, fresh, former) == Choice(("new",), gate.BY_VERSION)
    assert chosen(fresh, former, mute) == Choice(("fresh",), gate.BY_AGE)
    assert chosen(former, mute) == Choice(("former", "mute"), gate.ALL)


@given(st.integers(0, 10_000))
def test_the_next_look_is_ahead_and_on_the_beat(seconds):
    now = START + timedelta(seconds=seconds)
    coming = gate.next_look(START, now)
    assert now < coming <= now + gate.INTERVAL
    assert (coming - START) % gate.INTERVAL == timedelta(0)
    assert gate.next_look(START, START - timedelta(seconds=5)) == START + gate.INTERVAL  # a clock that jumped back
