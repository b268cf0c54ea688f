"""What workers and beat are sent. All of it is short, so it belongs to queue `fast`."""

from celery import shared_task
from django.utils import timezone

from apps.scaling import alarms, runner


@shared_task(name="scaling.act")
def act(key: str) -> None:
    """Make one intended change."""
    event = runner.act(key, now=timezone.now())
    if event is not None:
        alarms.check(timezone.now(), workload_id=event.workload_id)


@shared_task(name="scaling.tick")
def tick() -> None:
    """Once a minute."""
    now = timezone.now()
    runner.tick(now)
    alarms.check(now)


@shared_task(name="scaling.mark_late")
def mark_late() -> None:
    """Once an hour: the tick looks at the last minutes only."""
    runner.mark_late(timezone.now() - runner.LATEST)


@shared_task(name="scaling.clean_up")
def clean_up() -> None:
    """Once a day."""
    runner.forget(timezone.now())
