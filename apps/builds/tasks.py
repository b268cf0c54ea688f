"""What beat sends. All of it is short, so it belongs to queue `fast`."""

from celery import shared_task
from django.utils import timezone

from apps.builds import runner


@shared_task(name="builds.tick")
def tick() -> None:
    """Every five minutes."""
    runner.tick(timezone.now())


@shared_task(name="builds.forget")
def forget() -> None:
    """Every hour: it has a minute at a time."""
    runner.forget(timezone.now())
