"""The status rule and the arithmetic of counters."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.health import rules
from apps.health.rules import Counters, Dependency, Observation, Reading, judge, usage

NOON = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
WELL = Observation(
    measured_at=NOON,
    response_time_ms=45,
    http_status=200,
    database=Dependency("connected", 12),
    redis=Dependency("connected", 3),
)


@pytest.mark.parametrize(
    ("change", "error_rate", "status", "broken"),
    [
        ({}, 0.002, "healthy", []),
        ({}, None, "healthy", []),
        ({}, 0.0099999, "healthy", []),
        ({}, 0.01, "degraded", ["error_rate"]),
        ({}, 0.05, "degraded", ["error_rate"]),
        ({}, 0.0500001, "unhealthy", ["error_rate"]),
        ({"response_time_ms": 199}, 0, "healthy", []),
        ({"response_time_ms": 200}, 0, "degraded", ["response_slow"]),
        ({"database": Dependency("slow", 101)}, 0, "degraded", ["database_slow"]),
        ({"redis": Dependency("slow", 51)}, 0, "degraded", ["redis_slow"]),
        ({"redis": Dependency()}, 0, "healthy", []),
        ({"database": Dependency()}, 0, "healthy", []),
        ({"database": Dependency("disconnected")}, 0, "unhealthy", ["database_disconnected"]),
        ({"redis": Dependency("disconnected")}, 0, "unhealthy", ["redis_disconnected"]),
        ({"http_status": 503}, 0, "unhealthy", ["not_ready"]),
        ({"http_status": 301}, 0, "unhealthy", ["not_ready"]),
        ({"failure": "refused the connection", "http_status": None}, None, "unhealthy", ["no_answer"]),
        ({"http_status": 503, "response_time_ms": 900}, 0.2, "unhealthy", ["not_ready", "error_rate", "response_slow"]),
    ],
)
def test_each_limit_decides_on_its_own_side(change, error_rate, status, broken):
    verdict = judge(replace(WELL, **change), error_rate)

    assert verdict.status == status
    assert [reason.rule for reason in verdict.reasons] == broken


def test_a_reason_carries_the_value_and_the_limit_it_broke():
    (reason,) = judge(replace(WELL, response_time_ms=312), 0).reasons

    assert (reason.value, reason.limit) == (312, 200)


@pytest.mark.parametrize(("latency", "status"), [(100, "connected"), (100.4, "slow"), (None, "connected")])
def test_a_connected_dependency_is_slow_above_its_limit(latency, status):
    assert rules.dependency("connected", latency, slow_ms=100).status == status


statuses = st.sampled_from(["connected", "slow", "disconnected", "unknown"])
dependencies = st.builds(Dependency, statuses, st.none() | st.integers(0, 10_000))
observations = st.builds(
    Observation,
    measured_at=st.just(NOON),
    response_time_ms=st.integers(0, 100_000),
    failure=st.sampled_from(["", "refused the connection"]),
    http_status=st.none() | st.integers(100, 599),
    database=dependencies,
    redis=dependencies,
)
rates = st.none() | st.floats(0, 1)
RANK = {"healthy": 0, "degraded": 1, "unhealthy": 2}


@given(observations, rates)
def test_healthy_means_no_reason_and_every_other_status_has_one(seen, rate):
    verdict = judge(seen, rate)

    assert (verdict.status == "healthy") == (verdict.reasons == ())
    assert max((RANK[reason.status] for reason in verdict.reasons), default=0) == RANK[verdict.status]


@given(observations, rates)
def test_what_was_not_measured_breaks_no_rule(seen, rate):
    blind = replace(seen, database=Dependency(), redis=Dependency())

    assert RANK[judge(blind, None).status] <= RANK[judge(seen, rate).status]


@given(observations, st.floats(0, 1), st.floats(0, 1))
def test_more_errors_never_look_better(seen, one, other):
    low, high = sorted((one, other))

    assert RANK[judge(seen, low).status] <= RANK[judge(seen, high).status]


@given(st.lists(st.integers(0, 10**12), max_size=20))
def test_a_counter_that_only_grows_has_increased_by_its_difference(steps):
    values = [sum(steps[: i + 1]) for i in range(len(steps))]

    assert rules.increase(values) == (values[-1] - values[0] if values else 0)


@given(st.lists(st.integers(0, 10**6), min_size=1), st.lists(st.integers(0, 10**6), min_size=1))
def test_a_restart_counts_from_zero_and_is_never_negative(before, after):
    before, after = sorted(before), sorted(after)
    whole = rules.increase([*before, *after])

    assert whole >= 0
    if after[0] < before[-1]:
        assert whole == (before[-1] - before[0]) + after[0] + (after[-1] - after[0])


def seen(**counters):
    return replace(WELL, counters=Counters(**counters))


def earlier(minutes, **counters):
    return Reading(NOON - timedelta(minutes=minutes), **counters)


def test_the_first_sample_has_no_rates():
    used = usage(seen(cpu_seconds=100, requests=5, errors=1, cpu_limit_cores=2), [])

    assert (used.cpu_percent, used.error_rate) == (None, None)


def test_cpu_is_a_share_of_the_limit():
    used = usage(seen(cpu_seconds=130, cpu_limit_cores=2), [earlier(1, cpu_seconds=100)])

    assert used.cpu_percent == pytest.approx(25)


def test_an_explicit_limit_wins_over_the_reported_one():
    used = usage(
        seen(cpu_seconds=130, cpu_limit_cores=2, memory_bytes=2**28, memory_limit_bytes=2**30),
        [earlier(1, cpu_seconds=100)],
        cpu_limit=0.5,
        memory_limit_bytes=2**29,
    )

    assert used.cpu_percent == pytest.approx(100)
    assert (used.memory_mb, used.memory_percent) == (256, 50)


def test_without_any_limit_there_is_no_percentage():
    used = usage(seen(cpu_seconds=130, memory_bytes=2**20), [earlier(1, cpu_seconds=100)])

    assert (used.cpu_percent, used.memory_percent, used.memory_mb) == (None, None, 1)


def test_a_restarted_process_counts_its_cpu_from_zero():
    used = usage(seen(cpu_seconds=6, cpu_limit_cores=1), [earlier(1, cpu_seconds=5000)])

    assert used.cpu_percent == pytest.approx(10)


def test_the_error_rate_spans_five_minutes_and_a_restart():
    history = [
        earlier(4, requests=100, errors=10),
        earlier(6, requests=0, errors=0),  # outside the window
        earlier(2, requests=200, errors=10),
        earlier(1, requests=40, errors=2),  # restarted
    ]

    used = usage(seen(requests=60, errors=4), history)

    assert used.error_rate == pytest.approx((0 + 2 + 2) / (100 + 40 + 20))


def test_no_traffic_is_an_error_rate_of_zero():
    assert usage(seen(requests=7, errors=7), [earlier(1, requests=7, errors=7)]).error_rate == 0


def test_counters_without_requests_give_no_error_rate():
    assert usage(seen(cpu_seconds=1), [earlier(1, cpu_seconds=0)]).error_rate is None


figures = st.none() | st.floats(0, 2**50)


@given(
    st.lists(st.tuples(st.integers(1, 600), figures, figures, figures), max_size=8),
    st.builds(Counters, cpu_seconds=figures, requests=figures, errors=figures, memory_bytes=figures,
              start_time=figures, cpu_limit_cores=figures, memory_limit_bytes=figures),
)  # fmt: skip
def test_usage_is_never_negative_and_the_error_rate_is_a_share(history, counters):
    readings = [Reading(NOON - timedelta(seconds=ago), *values) for ago, *values in history]

    used = usage(replace(WELL, counters=counters), readings)

    assert used.error_rate is None or 0 <= used.error_rate <= 1
    for value in (used.cpu_percent, used.memory_mb, used.memory_percent, used.uptime_seconds):
        assert value is None or value >= 0


@given(st.lists(st.tuples(st.integers(1, 300), figures, figures, figures), max_size=8), st.randoms())
def test_the_order_of_earlier_readings_does_not_matter(history, random):
    readings = [
        Reading(NOON - timedelta(seconds=ago), *values) for ago, *values in {row[0]: row for row in history}.values()
    ]
    shuffled = random.sample(readings, len(readings))
    now = seen(cpu_seconds=50, requests=10, errors=1, cpu_limit_cores=1)

    assert usage(now, readings) == usage(now, shuffled)


def test_a_slot_is_the_minute_in_utc():
    berlin = datetime.fromisoformat("2026-03-29T03:00:59.999+02:00")

    assert rules.slot_of(berlin) == datetime(2026, 3, 29, 1, 0, tzinfo=UTC)
