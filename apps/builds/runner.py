"""What a worker does with builds: end those that nobody ends, forget what branches said that nobody builds any more."""

import time
from collections.abc import Iterator
from datetime import datetime, timedelta

from django.conf import settings
from django.db import transaction
from django.db.models import Exists, OuterRef, QuerySet

from apps.builds.choices import BuildStatus
from apps.builds.models import Build, Diagnostic, DiagnosticReport, DiagnosticSource
from apps.core import audit
from apps.core.models import StopSwitch

BATCH = 500  # rows ended at once
PORTION = 2000  # rows deleted in one transaction
KEPT = timedelta(days=90)  # what a branch said after its last report, and what has been resolved
DELETING = 60.0  # seconds of one run; the next one goes on


def tick(now: datetime) -> int:
    """End builds of which nobody has told anything for BUILD_TIMEOUT_HOURS: their CI job has died. Gives how many."""
    before = now - timedelta(hours=settings.BUILD_TIMEOUT_HOURS)
    return sum(_end(row, before, now) for row in Build.objects.left(before).defer("error_log")[:BATCH])


@transaction.atomic
def _end(row: Build, before: datetime, now: datetime) -> bool:
    """One that waits is cancelled, one that has begun has failed. False when somebody has told of it just now.

    Its diagnostics stay what they are: whether their errors broke it is not known.
    """
    status = BuildStatus.CANCELLED if row.build_status == BuildStatus.PENDING else BuildStatus.FAILED
    text = f"Nobody has told of it for {settings.BUILD_TIMEOUT_HOURS} hours: look at the CI job."
    left = Build.objects.left(before).filter(pk=row.pk, build_status=row.build_status)
    if not left.update(build_status=status, completed_at=max(now, row.created_at), updated_at=now):
        return False
    Build.objects.filter(pk=row.pk, error_log=None).update(error_log=text)
    audit.record(
        actor=audit.Actor.automation("time-out"),
        action=f"build.{status}",
        subject=f"build:{row.pk}",
        before={"build_status": row.build_status},
        after={"build_status": status.value},
        reason=text,
    )
    return True


def forget(now: datetime, *, seconds: float = DELETING) -> int:
    """Delete diagnostics, reports and sources of branches that reported last 90 days ago, and of the others what was
    resolved or reported as long ago. What is open on a branch that still reports stays. Gives how many rows.

    A few thousand at a time; ends early when its time is up or the stop switch is on.
    """
    deadline = time.monotonic() + seconds
    deleted = 0
    for count in _deleting(now - KEPT):
        deleted += count
        if time.monotonic() > deadline or StopSwitch.objects.filter(on=True).exists():
            break
    return deleted


def _deleting(before: datetime) -> Iterator[int]:
    """Delete a portion each time the next count is asked for; the first counts nothing."""
    yield 0
    for key in list(_silent(before).values_list("pk", flat=True)):
        while count := _delete_of(key, before):
            yield count
    resolved = Diagnostic.objects.filter(resolved_at__lt=before).order_by("resolved_at")
    reports = DiagnosticReport.objects.filter(received_at__lt=before).order_by("received_at")
    for rows in (resolved, reports):
        while keys := list(rows.values_list("pk", flat=True)[:PORTION]):
            # Asked once more: a report may have found one of them again meanwhile.
            yield rows.order_by().filter(pk__in=keys).delete()[0]


def _silent(before: datetime) -> QuerySet[DiagnosticSource]:
    since = DiagnosticReport.objects.filter(source=OuterRef("pk"), received_at__gte=before)
    return DiagnosticSource.objects.filter(~Exists(since)).order_by("pk")


@transaction.atomic
def _delete_of(key: int, before: datetime) -> int:
    """Delete a portion of what a silent source has, and in the end itself. 0 when it is gone, or has reported again."""
    if not DiagnosticSource.objects.select_for_update().filter(pk=key).exists():
        return 0
    if not _silent(before).filter(pk=key).exists():
        return 0
    for model in (Diagnostic, DiagnosticReport):
        rows = model._default_manager.filter(source=key)
        if keys := list(rows.order_by().values_list("pk", flat=True)[:PORTION]):
            return int(rows.filter(pk__in=keys).delete()[0])
    return int(DiagnosticSource.objects.filter(pk=key).delete()[0])
