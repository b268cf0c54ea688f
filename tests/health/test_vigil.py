"""Pulsewatch's alerts about itself."""

from datetime import UTC, datetime, timedelta

import pytest

from apps.alerts.models import Alert
from apps.core import heartbeats
from apps.core.models import Heartbeat
from apps.health import tasks, vigil
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
        beats(now, "sampler")
        assert vigil.keep("fast", now)

    alert = Alert.objects.get()
    assert (alert.kind, alert.subject, alert.severity) == ("pulsewatch_stale", "pulsewatch:long", "critical")
    assert "queue “long” does nothing" in alert.detail
    assert "2026-03-01 12:00 UTC" in alert.detail

    for minute in range(5, 40):  # flapping alerts close late
        now = NOW + minute * timedelta(minutes=1)
        beats(now, "sampler", "long")
        vigil.keep("fast", now)
    assert open_alerts() == []


def test_a_night_without_beat_wakes_nobody_in_the_morning():
    heartbeats.expect(NOW)
    morning = NOW + timedelta(hours=14)

    assert not vigil.keep("fast", morning), "it was silent itself"
    assert not vigil.keep("long", morning + timedelta(seconds=1))
    beats(morning + timedelta(seconds=30), "sampler", "rollups")
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
    heartbeats.expect(NOW)
    ProbeSlice.objects.create(shard=0, shards=1, starts_at=NOW, holder="gone", beat_at=NOW)
    for minute, told in ((3, []), (4, ["pulsewatch:prober"])):
        now = NOW + minute * timedelta(minutes=1)
        beats(now, "sampler", "long")
        vigil.keep("fast", now)
        assert open_alerts() == told
    alert = Alert.objects.get()
    assert alert.severity == "critical"
    assert "Last sign of life: 2026-03-01 12:00 UTC" in alert.detail

    now = NOW + timedelta(minutes=5)
    ProbeSlice.objects.update(beat_at=now)
    vigil.keep("fast", now)
    assert open_alerts() == []


def test_a_quiet_minute_costs_four_statements(django_assert_num_queries):
    heartbeats.expect(NOW)
    with django_assert_num_queries(4):
        assert vigil.keep("long", NOW + timedelta(minutes=1))
