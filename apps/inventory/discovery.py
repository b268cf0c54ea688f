"""Instances follow their platform: once a minute those it names are registered, and those it no longer names retired.

What was registered by hand is never touched, and nothing is deleted: history hangs on it. A platform that does not
answer leaves everything as it is.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.db.models import Q

from apps.core import audit
from apps.inventory.models import Instance, Workload
from apps.inventory.platforms import NAMING
from apps.inventory.platforms.base import Found, PlatformError
from apps.inventory.runner import scaler_of

logger = logging.getLogger(__name__)

ACTOR = audit.Actor.automation("discovery")
READERS = 16  # platforms read at the same time
MOST = 2000  # instances of one workload that are looked at


def discover() -> None:
    """Bring the instances of every workload whose platform names them up to date."""
    found = _read(list(Workload.objects.filter(platform__in=NAMING).select_related("service")))
    rows: dict[int, dict[str, Instance]] = {workload.pk: {} for workload, _ in found}
    names = {item.name for _, items in found for item in items}
    known = Instance.objects.filter(workload__in=rows).filter(
        Q(listed=True) | Q(listed=None, active=True) | Q(name__in=names)
    )
    for row in known:
        rows[row.workload_id][row.name] = row
    for workload, items in found:
        _follow(workload, items, rows[workload.pk])


def _read(workloads: Sequence[Workload]) -> list[tuple[Workload, Sequence[Found]]]:
    """What each platform names; a workload whose platform fails is left out."""
    if not workloads:
        return []
    read = []
    # A slow platform holds up nobody else.
    with ThreadPoolExecutor(min(READERS, len(workloads)), thread_name_prefix="platform") as readers:
        asked: list[tuple[Workload, Future[Sequence[Found]]]] = []
        for workload in workloads:
            try:
                scaler = scaler_of(workload)  # its secret is unsealed here, where the database is at hand
            except PlatformError as error:
                _unread(workload, error)
                continue
            if scaler is not None:
                asked.append((workload, readers.submit(scaler.instances)))
        for workload, answer in asked:
            try:
                read.append((workload, answer.result()[:MOST]))
            except PlatformError as error:
                _unread(workload, error)
    return read


def _unread(workload: Workload, error: PlatformError) -> None:
    logger.warning(
        "The instances of %s stay as they are, because its platform did not name them: %s",
        workload,
        error,
        extra={"event": "discovery_failed", "resource_id": str(workload)},
    )


def _follow(workload: Workload, found: Iterable[Found], rows: Mapping[str, Instance]) -> None:
    by_hand = any(row.listed is None and row.active for row in rows.values())
    named = set()
    for item in found:
        named.add(item.name)
        row = rows.get(item.name)
        if row is None:
            # Where an application reports under names that were registered by hand, a second set of instances that
            # nobody reports for would look silent.
            if item.url or not by_hand:
                _register(workload, item)
        elif row.listed is False:
            _change(row, listed=True, active=True, url=item.url)
        elif row.listed and row.url != item.url:
            _change(row, url=item.url)
    for row in rows.values():
        if row.listed and row.name not in named:
            _change(row, listed=False, active=False)


def _register(workload: Workload, found: Found) -> None:
    row = Instance(name=found.name, workload=workload, url=found.url, listed=True)
    row.pk = Instance.objects.free_id(found.name, workload)
    try:
        row.full_clean()
        with transaction.atomic():
            row.save(force_insert=True)
            audit.record(
                actor=ACTOR,
                action="instance.create",
                subject=f"instance:{row.pk}",
                after={"name": row.name, "workload": workload.pk, "url": row.url, "active": True},
            )
    except ValidationError as error:
        logger.warning(
            "%s of %s cannot be registered: %s",
            found.name[:100],
            workload,
            "; ".join(error.messages),
            extra={"event": "discovery_failed", "resource_id": str(workload)},
        )
    except IntegrityError:
        # Another beat, or a person, was faster.
        if not Instance.objects.filter(workload=workload, name=found.name).exists():
            raise


def _change(row: Instance, **values: object) -> None:
    """Change a row that is as it was read; else somebody was faster, and the next minute looks again."""
    before, subject = {name: getattr(row, name) for name in values}, f"instance:{row.pk}"
    with transaction.atomic():
        if Instance.objects.filter(pk=row.pk, listed=row.listed, url=row.url).update(**values):
            audit.record(actor=ACTOR, action="instance.update", subject=subject, before=before, after=values)
