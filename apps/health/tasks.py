"""What beat sends."""

import logging

from celery import shared_task
from django.conf import settings
from django.db import IntegrityError
from django.utils import timezone

from apps.core.errors import PulsewatchError
from apps.health import runner
from apps.inventory import services as inventory

logger = logging.getLogger(__name__)


@shared_task(name="health.sample")
def sample() -> None:
    """Register Pulsewatch's own web server where it is missing, then sample every instance."""
    try:
        inventory.ensure_own_instance(
            instance_id=settings.INSTANCE_ID, url=settings.SELF_URL, environment=settings.ENVIRONMENT
        )
    except (PulsewatchError, IntegrityError):
        # Two first ticks at once, or a name that was given away: the others are sampled all the same.
        logger.exception("Pulsewatch's own instance could not be registered", extra={"event": "registration_failed"})
    runner.sample(timezone.now())
