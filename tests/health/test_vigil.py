"""Pulsewatch's alerts about itself."""

from datetime import UTC, datetime, timedelta

import pytest

from apps.alerts.models import Alert
from apps.core import heartbeats
from apps.core.models import Heartbeat
from apps.health import alerting, slices, tasks, vigil
from apps.health.models import ProbeSlice

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
pytestmark = pytest.mark.django_db


def beats(at: datetime, *sources: str) -> None:
    for source in sources:
        heartbeats.beat(source, at)


def open_alerts() -> list[str]:
    return sorted(Alert.objects.filter(closed_at=None).values_list("subject", flat=True))


def test_a_worker_that_died_is_told_by_the_other_and_closed_when_it_is_back():
    heartbeats.expect(NOW)
    for minute in range(1, 5):
        now = NOW + minute * timedelta(minutes=1)
        beats(now, "sampler", "prober")
        assert vigil.keep("fast", now)

    alert = Alert.objects.get()
    assert (alert.kind, alert.subject, alert.severity) == ("pulsewatch_stale", "pulsewatch:long", "critical")
    assert "queue “long” does nothing" in alert.detail
    assert "2026-03-01 12:00 UTC" in alert.detail

    for minute in range(5, 40):  # flapping alerts close late
        now = NOW + minute * timedelta(minutes=1)
        beats(now, "sampler", "long", "prober")
        vigil.keep("fast", now)
    assert open_alerts() == []


def test_a_night_without_beat_wakes_nobody_in_the_morning():
    heartbeats.expect(NOW)
    morning = NOW + timedelta(hours=14)

    assert not vigil.keep("fast", morning), "it was silent itself"
    assert not vigil.keep("long", morning + timedelta(seconds=1))
    beats(morning + timedelta(seconds=30), "sampler", "rollups", "prober")
    assert vigil.keep("fast", morning + timedelta(minutes=1))

    assert not Alert.objects.exists()


def test_the_long_worker_makes_the_hours_of_its_silence_good_at_once(monkeypatch):
    sent = []
    monkeypatch.setattr(tasks.roll_up, "delay", lambda: sent.append(1))
    heartbeats.expect(datetime.now(UTC))
    tasks.heartbeat.apply(routing_key="long").get()
    assert not sent

    Heartbeat.objects.update(at=NOW)
    tasks.heartbeat.apply(routing_key="long").get()
    assert sent
    assert Heartbeat.objects.get(source="long").at > NOW


def test_targets_that_nobody_checks_any_more_are_told_though_they_still_look_well():
    heartbeats.expect(NOW - timedelta(hours=1))
    held = [slices.claim(0, 1, NOW, NOW)]
    slices.beat(held, NOW + timedelta(seconds=10), suspicious=False)
    slices.finish(held, NOW + timedelta(seconds=65), suspicious=False)
    for minute, told in ((5, []), (6, ["pulsewatch:prober"])):
        now = NOW + minute * timedelta(minutes=1)
        beats(now, "fast", "sampler", "long", "rollups")
        assert [part.source for part in heartbeats.stale(now)] == [subject.split(":")[1] for subject in told], "banner"
        vigil.keep("fast", now)
        assert open_alerts() == told
    alert = Alert.objects.get()
    assert alert.severity == "critical"
    assert "Last sign of life: 2026-03-01 12:01 UTC" in alert.detail

    now = NOW + timedelta(minutes=7)
    slices.beat([slices.claim(0, 1, now, now)], now, suspicious=False)
    beats(now, "long")
    vigil.keep("fast", now)
    assert open_alerts() == []


def test_a_prober_that_never_ran_is_told_and_so_is_one_that_dies_as_soon_as_it_has_claimed_its_slice():
    heartbeats.expect(NOW)
    for minute, told in ((4, []), (5, ["pulsewatch:prober"])):
        now = NOW + minute * timedelta(minutes=1)
        slices.claim(0, 1, now, now)
        beats(now, "sampler", "long")
        vigil.keep("fast", now)
        assert open_alerts() == told
    ages = {sample.labels["source"]: sample.value for metric in heartbeats.read() for sample in metric.samples}
    assert ages["prober"] > ages["long"]


def test_a_holder_that_was_taken_for_dead_gives_no_sign_of_life_any_more():
    heartbeats.expect(NOW)
    held = slices.claim(0, 1, NOW, NOW)
    slices.adopt_abandoned(NOW + timedelta(seconds=40))
    assert slices.beat([held], NOW + timedelta(seconds=41), suspicious=False) == []
    slices.finish([held], NOW + timedelta(seconds=42), suspicious=False)
    adopter = ProbeSlice.objects.get()
    assert slices.beat([adopter], NOW + timedelta(seconds=43), suspicious=False, storing=False), (
        "nor who stores nothing"
    )
    assert Heartbeat.objects.get(source="prober").at == NOW


def test_that_nearly_all_fails_is_not_over_because_nobody_looks_any_more():
    held = [slices.claim(0, 1, NOW, NOW)]
    slices.beat(held, NOW + timedelta(seconds=10), suspicious=True)
    alerting.settle_mass_failure(NOW + timedelta(seconds=10))
    assert open_alerts() == ["prober:network"]

    for minutes in (3, 10, 300):
        alerting.settle_mass_failure(NOW + timedelta(minutes=minutes))
        assert open_alerts() == ["prober:network"]

    # Back after a gap: the new slice suspects nobody, for it has not looked yet.
    now = NOW + timedelta(minutes=300)
    again = [slices.claim(0, 1, now, now)]
    slices.beat(again, now + timedelta(seconds=10), suspicious=False)
    alerting.settle_mass_failure(now + timedelta(seconds=10))
    assert open_alerts() == ["prober:network"]

    slices.finish(again, now + timedelta(seconds=66), suspicious=False)
    alerting.settle_mass_failure(now + timedelta(seconds=70))
    assert open_alerts() == []


def test_a_quiet_minute_costs_three_statements(django_assert_num_queries):
    heartbeats.expect(NOW)
    with django_assert_num_queries(3):
        assert vigil.keep("long", NOW + timedelta(minutes=1))
