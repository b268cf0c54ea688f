"""Which part of Pulsewatch is silent, and how that is told."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from apps.core.freshness import BEAT, FAST, LONG, PATIENCE, PROBER, ROLLUPS, SAMPLER, stale

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def beats(**ages: float) -> dict[str, datetime]:
    """Minutes since the last sign of each source; the others gave one just now."""
    return {source: NOW - timedelta(minutes=ages.get(source, 0)) for source in PATIENCE}


def silent(**ages: float) -> list[str]:
    return [part.source for part in stale(beats(**ages), NOW)]


def test_the_cause_is_told_and_not_its_consequences():
    assert silent() == []
    assert silent(fast=5, sampler=5) == [FAST]
    assert silent(long=5) == [LONG]
    assert silent(sampler=5) == [SAMPLER]
    assert silent(prober=5) == [PROBER]
    assert silent(fast=5, prober=5) == [FAST]
    assert silent(fast=5, long=7, sampler=6, prober=6) == [BEAT]
    assert silent(fast=5, long=5, rollups=800) == [BEAT, ROLLUPS]
    assert silent(rollups=800) == [ROLLUPS]


def test_beat_is_silent_since_the_last_thing_of_all_that_it_had_done():
    assert stale(beats(fast=5, long=7), NOW)[0].since == NOW - timedelta(minutes=5)


def test_what_never_gave_a_sign_is_not_expected():
    assert stale({}, NOW) == []
    assert [part.source for part in stale({LONG: NOW - timedelta(hours=1)}, NOW)] == [LONG]


def test_a_sign_from_the_future_is_no_sign_of_life():
    assert silent(long=-60 * 24) == [LONG]
    assert silent(long=-1) == []


@given(st.dictionaries(st.sampled_from(sorted(PATIENCE)), st.integers(-100_000, 100_000)))
def test_somebody_is_named_exactly_when_somebody_is_silent(ages):
    found = stale({source: NOW - timedelta(seconds=age) for source, age in ages.items()}, NOW)

    assert bool(found) == any(abs(age) > PATIENCE[source].total_seconds() for source, age in ages.items())
    assert len({part.source for part in found}) == len(found)
    assert all(part.text for part in found)
