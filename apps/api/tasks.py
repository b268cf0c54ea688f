"""What beat sends."""

from celery import shared_task
from django.utils import timezone

from apps.api import inbox
from apps.api.models import StoredAnswer

BATCH = 1_000  # rows of one statement, so that nobody waits long for their locks
BATCHES = 100  # of one run; the next hour goes on


@shared_task(name="api.clean_up")
def clean_up() -> int:
    """Delete the answers that no retry may ask for any more; how many."""
    deleted = 0
    for _ in range(BATCHES):
        keys = list(
            StoredAnswer.objects.stale(timezone.now()).order_by("created_at").values_list("pk", flat=True)[:BATCH]
        )
        if not keys:
            break
        deleted += StoredAnswer.objects.filter(pk__in=keys).delete()[0]
    return deleted


@shared_task(name="api.tick")
def tick() -> None:
    """Once a minute."""
    inbox.wake_waiting(timezone.now())


@shared_task(name="api.apply_delivery")
def apply_delivery(key: str) -> None:
    """Act on one delivery of a webhook that was stored and not acted on."""
    inbox.apply(int(key))


@shared_task(name="api.forget_deliveries")
def forget_deliveries() -> int:
    """Once a day; how many."""
    return inbox.clean_up(timezone.now())
