"""Samples every instance once a minute: read, judge, store."""

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime

from django.conf import settings
from django.db import IntegrityError, transaction

from apps.core import ids
from apps.core.reach import guarded_socket, places_of
from apps.core.threads import run
from apps.health import rules
from apps.health.choices import SampleSource
from apps.health.models import HealthCheck
from apps.health.probers.instance import Target, observe_all
from apps.inventory.models import Instance

logger = logging.getLogger(__name__)

RESOLVERS = 256  # threads that look names up; most of them are made only when so many hang


def sample(now: datetime) -> list[HealthCheck]:
    """Look at every instance that has no sample for this minute yet, at the same time, and store one row for each."""
    slot = rules.slot_of(now)
    sampled = HealthCheck.objects.filter(timestamp=slot).values("instance_id")
    instances = list(Instance.objects.sampled().exclude(pk__in=sampled).select_related("workload__service"))
    if not instances:
        return []
    stored = look_at(instances, slot, now=now)
    counts = Counter(row.overall_status for row in stored)
    logger.info(
        "Sampled %d instances: %s",
        len(stored),
        ", ".join(f"{count} {status}" for status, count in sorted(counts.items())),
        extra={"event": "health_check", "event_type": "health", "slot": slot.isoformat(), **counts},
    )
    return stored


def look_at(
    instances: Sequence[Instance], at: datetime, *, now: datetime, source: str = SampleSource.SCHEDULED
) -> list[HealthCheck]:
    """Read these instances at the same time and store one sample of each that carries the time `at`.

    Instances need their workload and service at hand.
    """
    readings = _readings([instance.pk for instance in instances], since=now - rules.ERROR_WINDOW)
    observations = observe([target(instance) for instance in instances])
    return store(
        [
            health_check(instance, at, observation, readings.get(instance.pk, ()), source=source)
            for instance, observation in zip(instances, observations, strict=True)
        ]
    )


def observe(targets: Sequence[Target]) -> list[rules.Observation]:
    """Read all of them at the same time, in their order, as far as their addresses may be asked."""
    sockets = guarded_socket(allow_loopback=settings.PROBE_ALLOW_LOOPBACK, always=places_of(settings.SELF_URL))
    return run(observe_all(targets, sockets=sockets), resolvers=RESOLVERS)


def target(instance: Instance) -> Target:
    """Where and how an instance is read."""
    workload = instance.workload
    base = instance.url.rstrip("/")
    preset = workload.service.metrics_preset
    return Target(
        instance_id=instance.pk,
        readiness_url=base + workload.readiness_path,
        metrics_url="" if preset == "none" else base + workload.metrics_path,
        preset=preset,
        # Our own token goes to our own address only.
        metrics_token=settings.METRICS_TOKEN if base == settings.SELF_URL.rstrip("/") else "",
    )


def health_check(
    instance: Instance,
    slot: datetime,
    seen: rules.Observation,
    earlier: Iterable[rules.Reading],
    *,
    source: str = SampleSource.SCHEDULED,
) -> HealthCheck:
    """The row one observation comes to; not stored yet."""
    used = rules.usage(
        seen,
        earlier,
        cpu_limit=instance.cpu_limit_cores,
        memory_limit_bytes=instance.memory_limit_mb * 2**20 if instance.memory_limit_mb else None,
    )
    verdict = rules.judge(seen, used.error_rate)
    counters = seen.counters
    return HealthCheck(
        id=f"{ids.timestamped('health', slot)}_{ids.suffix()}",
        instance=instance,
        environment=instance.workload.environment,
        timestamp=slot,
        measured_at=seen.measured_at,
        source=source,
        overall_status=verdict.status,
        reasons=[asdict(reason) for reason in verdict.reasons],
        response_time_ms=seen.response_time_ms,
        database_status=seen.database.status,
        database_response_ms=seen.database.response_ms,
        redis_status=seen.redis.status,
        redis_response_ms=seen.redis.response_ms,
        memory_usage_mb=used.memory_mb,
        memory_usage_percent=used.memory_percent,
        cpu_usage_percent=used.cpu_percent,
        uptime_seconds=used.uptime_seconds,
        version=seen.version,
        total_requests=_whole(counters.requests),
        active_connections=_whole(counters.active_connections),
        error_rate_5min=used.error_rate,
        cpu_seconds_total=counters.cpu_seconds,
        errors_total=_whole(counters.errors),
        deployment_id=instance.workload.current_deployment_id,
    )


def store(rows: Sequence[HealthCheck]) -> list[HealthCheck]:
    """Insert the rows in one statement; a sample that is already there for its instance and minute stays as it is."""
    try:
        with transaction.atomic():
            return HealthCheck.objects.bulk_create(rows)
    except IntegrityError:
        # Another worker was faster with some of them, or an instance was removed meanwhile: find out one by one.
        return [row for row in rows if _stored_alone(row)]


def _stored_alone(row: HealthCheck) -> bool:
    try:
        with transaction.atomic():
            row.save(force_insert=True)
    except IntegrityError:
        taken = HealthCheck.objects.filter(instance_id=row.instance_id, timestamp=row.timestamp).exists()
        if not taken and Instance.objects.filter(pk=row.instance_id).exists():
            raise
        return False
    return True


def _readings(instance_ids: Sequence[str], *, since: datetime) -> Mapping[str, list[rules.Reading]]:
    """The counters of the last five minutes by instance, in one query."""
    found: dict[str, list[rules.Reading]] = {}
    rows = HealthCheck.objects.filter(instance_id__in=instance_ids, timestamp__gte=rules.slot_of(since)).values_list(
        "instance_id", "measured_at", "cpu_seconds_total", "total_requests", "errors_total"
    )
    for instance_id, measured_at, cpu, requests, errors in rows:
        found.setdefault(instance_id, []).append(rules.Reading(measured_at, cpu, requests, errors))
    return found


def _whole(value: float | None) -> int | None:
    return None if value is None else round(value)
