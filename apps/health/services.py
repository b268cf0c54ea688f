"""What a client may ask of health: to store samples it took itself."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.db import IntegrityError, connection, transaction

from apps.core import audit, ids
from apps.core.errors import Conflict, Invalid
from apps.core.inserts import Inserter
from apps.health import rules
from apps.health.choices import SampleSource
from apps.health.models import HealthCheck
from apps.inventory import services as inventory
from apps.inventory.models import DEFAULT_SERVICE, Instance, Workload

CLOCK_SKEW = timedelta(seconds=60)  # how far the sender's clock may be ahead of ours
MAX_SAMPLES = 10_000  # of one push
MAX_NEW_INSTANCES = 1_000  # of one push: each is validated and audited by itself, at some milliseconds


@dataclass(frozen=True, slots=True)
class Pushed:
    """One sample as an application took it of itself. Its own opinion of its status is no part of it."""

    instance: str
    environment: str
    timestamp: datetime
    response_time_ms: int
    service: str = DEFAULT_SERVICE
    database: rules.Dependency = field(default_factory=rules.Dependency)
    redis: rules.Dependency = field(default_factory=rules.Dependency)
    usage: rules.Usage = field(default_factory=rules.Usage)
    version: str | None = None
    total_requests: int | None = None
    active_connections: int | None = None
    deployment_id: str | None = None


@dataclass(frozen=True, slots=True)
class PushResult:
    """What became of a push. A sample that was there before counts as duplicate and changes nothing."""

    stored: int
    duplicates: int
    registered: int


def push_samples(*, samples: Sequence[Pushed], actor: audit.Actor, now: datetime) -> PushResult:
    """Judge and store samples; an unknown instance is registered by its first one.

    All or none: raises Invalid, naming the place in the list, for a time that is not within the last 24 hours, an
    unknown service, or more instances than one push may register.
    """
    if len(samples) > MAX_SAMPLES:
        raise Invalid(f"Send at most {MAX_SAMPLES:,} samples at once.")
    for place, sample in enumerate(samples):
        if sample.timestamp > now + CLOCK_SKEW:
            raise Invalid("This time lies in the future: check the sender's clock.", field=f"[{place}].timestamp")
        if sample.timestamp < now - rules.RAW_KEPT:
            raise Invalid(
                "This time is more than 24 hours ago; samples are kept no longer.", field=f"[{place}].timestamp"
            )
    instances, registered = _instances(samples, actor)
    rows: dict[tuple[str, datetime], tuple[Any, ...]] = {}
    received = connection.ops.adapt_datetimefield_value(now)
    for sample in samples:
        instance = instances[_key(sample)]
        if (instance.pk, sample.timestamp) not in rows:
            rows[instance.pk, sample.timestamp] = _row(instance, sample, received)
    # In the order of the unique index: two pushes of the same samples wait for each other and never lock crosswise.
    stored = _store([rows[key] for key in sorted(rows)])
    return PushResult(stored=stored, duplicates=len(samples) - stored, registered=registered)


_Key = tuple[str, str, str]


def _key(sample: Pushed) -> _Key:
    """What an instance goes by. Case does not count, for it does not in MySQL's columns either."""
    return sample.service.lower(), sample.environment, sample.instance.lower()


def _instances(samples: Sequence[Pushed], actor: audit.Actor) -> tuple[dict[_Key, Instance], int]:
    """The instance of every sample, and how many of them had to be registered."""
    first: dict[_Key, int] = {}
    for place, sample in enumerate(samples):
        first.setdefault(_key(sample), place)
    workloads: dict[tuple[str, str], Workload] = {}
    for (service, environment, _), place in first.items():
        if (service, environment) not in workloads:
            try:
                workloads[service, environment] = inventory.ensure_workload(
                    service=samples[place].service, environment=environment, actor=actor
                )
            except Invalid as error:
                raise Invalid(str(error), field=f"[{place}].{error.field}") from error
    found = _known(workloads, {name for _, _, name in first})
    missing = [key for key in first if key not in found]
    if len(missing) > MAX_NEW_INSTANCES:
        raise Invalid(f"One push may register up to {MAX_NEW_INSTANCES:,} new instances, not {len(missing):,}.")
    with transaction.atomic():
        for key in missing:
            found[key] = _register(samples[first[key]].instance, workloads[key[:2]], actor, first[key])
    return found, len(missing)


def _known(workloads: dict[tuple[str, str], Workload], names: Iterable[str]) -> dict[_Key, Instance]:
    by_pk = {workload.pk: key for key, workload in workloads.items()}
    found = {}
    for row in Instance.objects.filter(workload__in=by_pk, name__in=names):
        key = by_pk[row.workload_id]
        row.workload = workloads[key]
        found[*key, row.name.lower()] = row
    return found


def _register(name: str, workload: Workload, actor: audit.Actor, place: int) -> Instance:
    try:
        with transaction.atomic():
            return inventory.register_instance(name=name, workload=workload, actor=actor)
    except (Invalid, Conflict, IntegrityError) as error:
        # Another push may have registered it meanwhile; the transaction sees what others have committed.
        found = Instance.objects.filter(workload=workload, name=name).first()
        if found is None and isinstance(error, Invalid):
            raise Invalid(str(error), field=f"[{place}].instance_id") from error
        if found is None:
            raise
        found.workload = workload
        return found


# Rows are never objects: making ten thousand and turning their fields into parameters takes longer than all the rest.
_COLUMNS = (
    *("id", "instance", "environment", "source", "timestamp", "measured_at", "overall_status", "reasons"),
    "response_time_ms",
    *("database_status", "database_response_ms", "redis_status", "redis_response_ms", "memory_usage_mb"),
    *("memory_usage_percent", "cpu_usage_percent", "uptime_seconds", "version", "total_requests", "active_connections"),
    *("error_rate_5min", "deployment_id", "created_at"),
)


def _row(instance: Instance, sample: Pushed, received: Any) -> tuple[Any, ...]:
    """The values of `_COLUMNS`, as the driver takes them."""
    used, workload = sample.usage, instance.workload
    seen = rules.Observation(
        measured_at=sample.timestamp,
        response_time_ms=sample.response_time_ms,
        database=sample.database,
        redis=sample.redis,
    )
    verdict = rules.judge(seen, used.error_rate)
    at = connection.ops.adapt_datetimefield_value(sample.timestamp)
    return (
        f"{ids.timestamped('health', sample.timestamp)}_{ids.suffix(source=ids.fast)}",
        instance.pk,
        workload.environment,
        SampleSource.PUSHED.value,
        at,
        at,
        str(verdict.status),
        json.dumps([asdict(reason) for reason in verdict.reasons]) if verdict.reasons else "[]",
        sample.response_time_ms,
        str(sample.database.status),
        sample.database.response_ms,
        str(sample.redis.status),
        sample.redis.response_ms,
        used.memory_mb,
        used.memory_percent,
        used.cpu_percent,
        used.uptime_seconds,
        sample.version,
        sample.total_requests,
        sample.active_connections,
        used.error_rate,
        sample.deployment_id or workload.current_deployment_id,
        received,
    )


def _store(rows: Sequence[tuple[Any, ...]]) -> int:
    """Insert the rows that are not there yet; how many."""
    inserter = Inserter(HealthCheck, _COLUMNS)
    try:
        with transaction.atomic():
            return inserter.insert(rows)
    except IntegrityError:
        # Some are there. The slower way: let the database leave those out.
        with transaction.atomic():
            return inserter.insert_missing(rows)
