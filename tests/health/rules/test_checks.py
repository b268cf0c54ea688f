from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.health.rules import checks
from apps.health.rules.checks import (
    DEGRADED,
    FAILED,
    HEALTHY,
    UNKNOWN,
    Answer,
    Course,
    Expectation,
    Look,
    advance,
    certificate_level,
    holds,
    judge_answer,
    judge_look,
    moving_average,
    stalled,
)
from apps.inventory.rules import read_json_condition

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
WANTED = Expectation(((200, 200),), slow_ms=1000)


@pytest.mark.parametrize(
    ("answer", "status", "reason"),
    [
        (Answer(12.0, status=200), HEALTHY, ""),
        (Answer(None, status=200), HEALTHY, ""),
        (Answer(999.9, status=200), HEALTHY, ""),
        (Answer(1000.0, status=200), DEGRADED, "answered in 1000 ms; 1000 ms and more is slow"),
        (Answer(5.0, status=204), FAILED, "answered 204 instead of 200"),
        (Answer(5.0, failure="refused the connection"), FAILED, "refused the connection"),
        (Answer(5.0), FAILED, "gave no answer"),
        (Answer(5.0, failure="Pulsewatch slept", ours=True), UNKNOWN, "Pulsewatch slept"),
    ],
)
def test_an_answer_is_judged_by_status_and_speed(answer, status, reason):
    assert judge_answer(answer, WANTED) == checks.Verdict(status, reason)


def test_a_refused_status_names_every_range_that_was_wanted():
    expected = Expectation(((200, 200), (301, 308)), slow_ms=1)
    assert judge_answer(Answer(1.0, status=404), expected).reason == "answered 404 instead of 200,301-308"
    assert judge_answer(Answer(0.5, status=302), expected).status == HEALTHY


@pytest.mark.parametrize(
    ("body", "whole", "contains", "condition", "reason"),
    [
        (b"all well", True, "well", "", ""),
        ("schön".encode(), True, "ö", "", ""),
        (b"all ill", True, "well", "", "the answer does not contain the expected text"),
        (b"all ill", False, "well", "", "the beginning of the answer does not contain the expected text"),
        (b'{"status": "ok"}', True, "", '$.status == "ok"', ""),
        (b'{"status": "ok"}', True, "stat", '$.status == "ok"', ""),
        (b'{"status": "no"}', True, "", '$.status == "ok"', "the answer does not meet the JSON condition"),
        (b"<html>", True, "", '$.status == "ok"', "the answer is not JSON"),
        (b"[" * 100_000, True, "", "$", "the answer is not JSON"),
        (b'{"status": "ok"', False, "", "$.status", "the answer is too large to check its JSON"),
    ],
)  # fmt: skip
def test_a_body_is_searched_and_read(body, whole, contains, condition, reason):
    expected = Expectation(
        ((200, 200),), 1000, contains=contains, condition=read_json_condition(condition) if condition else None
    )
    verdict = judge_answer(Answer(1.0, status=200, body=body, whole=whole), expected)
    assert verdict == checks.Verdict(FAILED if reason else HEALTHY, reason)


@pytest.mark.parametrize(
    ("condition", "value", "held"),
    [
        ("$", None, True),
        ("$.a", {"a": None}, True),
        ("$.a", {"b": 1}, False),
        ("$.a", [1], False),
        ("$[0]", {"0": 1}, False),
        ("$[-1] == 3", [1, 2, 3], True),
        ("$[3]", [1, 2, 3], False),
        ('$.a["b c"][0].d == "x"', {"a": {"b c": [{"d": "x"}]}}, True),
        ("$.n == 1", {"n": True}, False),
        ("$.n != 1", {"n": True}, True),
        ("$.n == true", {"n": True}, True),
        ("$.n == null", {"n": None}, True),
        ("$.n != null", {}, False),
        ("$.n == 1", {"n": 1.0}, True),
        ("$.n < 2", {"n": 1}, True),
        ("$.n < 2", {"n": 2}, False),
        ("$.n <= 2", {"n": 2}, True),
        ("$.n > 2", {"n": 2}, False),
        ("$.n > 2", {"n": 2.5}, True),
        ("$.n >= 2", {"n": 2}, True),
        ("$.n >= 2", {"n": "3"}, False),
        ("$.n < 2", {"n": False}, False),
    ],
)
def test_a_condition_holds_for_one_value_at_one_place(condition, value, held):
    assert holds(read_json_condition(condition), value) is held


@pytest.mark.parametrize(
    ("look", "status", "query", "reason"),
    [
        (Look("connected", "success", 2.0, 1.0), HEALTHY, "success", ""),
        (Look("connected", "success", 2, 99), DEGRADED, "slow", "answered the query in 99 ms; 50 ms and more is slow"),
        (Look("connected", "failed", 2.0, failure="lost"), FAILED, "failed", "lost"),
        (Look("connected", "failed", 2.0), FAILED, "failed", "gave no answer"),
        (Look("timeout", failure="nothing within 5 s"), FAILED, "not_tested", "nothing within 5 s"),
        (Look("error", failure="no key", ours=True), UNKNOWN, "not_tested", "no key"),
        (Look(), UNKNOWN, "not_tested", ""),
    ],
)  # fmt: skip
def test_a_look_at_a_database_is_judged_by_connection_and_query(look, status, query, reason):
    marked, verdict = judge_look(look, 50)
    assert (verdict.status, marked.query, verdict.reason) == (status, query, reason)


def test_a_look_takes_as_long_as_connecting_and_query_together():
    assert Look("connected", "success", 2.0, 1.5).took_ms == 3.5
    assert Look("connected", "failed", 2.0).took_ms == 2.0
    assert Look("timeout").took_ms is None


def test_the_average_of_query_times_moves_slowly_and_skips_what_was_not_measured():
    assert moving_average(None, 10.0) == 10.0
    assert moving_average(10.0, None) == 10.0
    assert moving_average(None, None) is None
    assert moving_average(10.0, 20.0) == 12.0


def course(*statuses: str, down_after: int = 3, up_after: int = 2) -> Course:
    now = Course()
    for minute, status in enumerate(statuses):
        now = advance(now, status, NOW + timedelta(minutes=minute), down_after=down_after, up_after=up_after)
    return now


def test_it_is_degraded_before_and_failed_from_the_third_failure_on():
    assert course(HEALTHY, FAILED, FAILED) == Course(DEGRADED, NOW + timedelta(minutes=1), 2, 0)
    assert course(HEALTHY, FAILED, FAILED, FAILED) == Course(FAILED, NOW + timedelta(minutes=3), 3, 0)


def test_it_is_back_after_the_second_good_answer_even_a_slow_one():
    down = (FAILED, FAILED, FAILED)
    assert course(*down, HEALTHY).status == FAILED
    assert course(*down, HEALTHY, FAILED, HEALTHY).status == FAILED
    assert course(*down, HEALTHY, DEGRADED) == Course(DEGRADED, NOW + timedelta(minutes=4), 0, 2)


def test_a_check_of_unknown_outcome_proves_nothing():
    assert course(HEALTHY, FAILED, FAILED, UNKNOWN, FAILED, FAILED).status == DEGRADED
    assert course(FAILED, FAILED, FAILED, UNKNOWN).status == FAILED
    assert course(HEALTHY, UNKNOWN).status == UNKNOWN
    assert course(HEALTHY, UNKNOWN, HEALTHY).status == HEALTHY


STATUSES = st.lists(st.sampled_from([HEALTHY, DEGRADED, FAILED, UNKNOWN]), max_size=40)


@given(STATUSES, st.integers(1, 5), st.integers(1, 5))
def test_failed_means_that_enough_failures_came_and_not_enough_good_answers_since(statuses, down_after, up_after):
    now = Course()
    down, bad, good = False, 0, 0
    for minute, status in enumerate(statuses):
        at = NOW + timedelta(minutes=minute)
        before = now
        now = advance(now, status, at, down_after=down_after, up_after=up_after)
        bad = bad + 1 if status == FAILED else 0
        good = good + 1 if status in (HEALTHY, DEGRADED) else 0
        down = (down and good < up_after) or bad >= down_after
        assert (now.status == FAILED) == down
        assert (now.failures, now.successes) == (bad, good)
        assert now.since == (before.since if now.status == before.status else at)


def test_counters_stop_before_their_column_ends():
    full = Course(FAILED, NOW, checks.MOST, 0)
    assert advance(full, FAILED, NOW, down_after=3, up_after=2).failures == checks.MOST
    fine = Course(HEALTHY, NOW, 0, checks.MOST)
    assert advance(fine, HEALTHY, NOW, down_after=3, up_after=2).successes == checks.MOST


def test_what_was_measured_while_the_process_slept_does_not_count():
    stalls = [(10.0, 12.0)]
    assert stalled(9.0, 10.5, stalls)
    assert stalled(11.0, 11.5, stalls)
    assert not stalled(12.0, 13.0, stalls)
    assert not stalled(9.0, 10.0, stalls)
    assert not stalled(9.0, 20.0, [])


@pytest.mark.parametrize(
    ("days", "level"), [(None, ""), (22, ""), (21, "warning"), (7.1, "warning"), (7, "critical"), (-1, "critical")]
)
def test_a_certificate_warns_before_it_ends(days, level):
    ends = None if days is None else NOW + timedelta(days=days)
    assert certificate_level(ends, NOW, warning_days=21, critical_days=7) == level
    assert certificate_level(ends, NOW, warning_days=0, critical_days=0) == ""
