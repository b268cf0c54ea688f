"""What beat sends."""

from celery import shared_task
from django.utils import timezone

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
