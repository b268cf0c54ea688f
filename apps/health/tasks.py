"""What beat sends."""

from celery import shared_task
from django.conf import settings
from django.utils import timezone

from apps.health import runner
from apps.inventory import services as inventory


@shared_task(name="health.sample")
def sample() -> None:
    """Register Pulsewatch's own web server where it is missing, then sample every instance."""
    inventory.ensure_own_instance(
        instance_id=settings.INSTANCE_ID, url=settings.SELF_URL, environment=settings.ENVIRONMENT
    )
    runner.sample(timezone.now())
