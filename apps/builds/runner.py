"""What a worker does with builds: end those that nobody ends."""

from datetime import datetime, timedelta

from django.conf import settings
from django.db import transaction

from apps.builds.choices import BuildStatus
from apps.builds.models import Build
from apps.core import audit

BATCH = 500  # rows ended at once


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
