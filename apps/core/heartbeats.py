"""Signs of life of Pulsewatch's own parts, and who has given none for too long.

Whoever looks compares the stored times with the present, so that silence shows also when everything that could raise
an alarm is what has died.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta

from celery import current_task
from django.conf import settings
from django.utils import timezone
from prometheus_client.core import GaugeMetricFamily, Metric

from apps.core import freshness
from apps.core.choices import HeartbeatSource
from apps.core.models import Heartbeat


def beat(source: str, now: datetime) -> None:
    """Say that a part is at work; a source nobody knows is ignored. One short statement."""
    if source in HeartbeatSource.values and not Heartbeat.objects.filter(source=source).update(at=now):
        Heartbeat.objects.bulk_create([Heartbeat(source=source, at=now)], ignore_conflicts=True)


def expect(now: datetime) -> None:
    """From now on each part has to give signs of life: one that never does is reported like one that has ceased to."""
    rows = [Heartbeat(source=source, at=now) for source in HeartbeatSource.values]
    Heartbeat.objects.bulk_create(rows, ignore_conflicts=True)


def stale(now: datetime) -> list[freshness.Stale]:
    """The parts that are silent for too long, the cause before its consequences. One query of a few rows."""
    patience = freshness.PATIENCE | {freshness.SAMPLER: timedelta(seconds=settings.STALE_AFTER_SECONDS)}
    return freshness.stale(dict(Heartbeat.objects.values_list("source", "at")), now, patience)


def queue_of_this_task() -> str | None:
    """The queue whose message this code works on; None outside of a worker."""
    if not current_task:
        return None
    return (current_task.request.delivery_info or {}).get("routing_key")


def read() -> Iterator[Metric]:
    """For the metrics page."""
    family = GaugeMetricFamily(
        "pulsewatch_heartbeat_age_seconds",
        "Time since a part of Pulsewatch last gave a sign of life",
        labels=["source"],
    )
    now = timezone.now()
    for source, at in Heartbeat.objects.values_list("source", "at"):
        family.add_metric([source], max(0.0, (now - at).total_seconds()))
    yield family
