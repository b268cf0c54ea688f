"""What workers and beat are sent. The settings route the work to queue `long`; the tick belongs to queue `fast`."""

import os
import socket

from celery import shared_task
from django.utils import timezone

from apps.backups import alarms, restorer, runner, schedule

# Seconds. A dump of a terabyte takes hours; beyond this something hangs.
LONG_LIMIT = 12 * 3600


def _owner() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"


@shared_task(name="backups.run", time_limit=LONG_LIMIT, soft_time_limit=LONG_LIMIT - 60)
def run(key: str) -> None:
    """Run one queued backup."""
    runner.back_up(key, owner=_owner())
    alarms.check(timezone.now())


@shared_task(name="backups.restore", time_limit=LONG_LIMIT, soft_time_limit=LONG_LIMIT - 60)
def restore(key: str) -> None:
    """Run one queued restore or drill."""
    restorer.restore(key, owner=_owner())
    alarms.check(timezone.now())


@shared_task(name="backups.tick")
def tick() -> None:
    """Once a minute."""
    now = timezone.now()
    schedule.heal(now)
    schedule.open_due_plans(now)
    schedule.open_due_drills(now)
    schedule.wake_waiting(now)
    alarms.check(now)


@shared_task(name="backups.clean_up", time_limit=LONG_LIMIT, soft_time_limit=LONG_LIMIT - 60)
def clean_up() -> None:
    """Once a day at 03:00 UTC."""
    schedule.clean_up(timezone.now())
