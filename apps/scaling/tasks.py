"""What workers and beat are sent. All of it is short, so it belongs to queue `fast`."""

from celery import shared_task
from django.utils import timezone

from apps.scaling import runner


@shared_task(name="scaling.act")
def act(key: str) -> None:
    """Make one intended change."""
    runner.act(key, now=timezone.now())


@shared_task(name="scaling.tick")
def tick() -> None:
    """Once a minute."""
    runner.tick(timezone.now())


@shared_task(name="scaling.clean_up")
def clean_up() -> None:
    """Once a day."""
    runner.forget(timezone.now())
