"""What beat sends."""

import logging

from celery import shared_task
from django.conf import settings
from django.db import IntegrityError
from django.utils import timezone

from apps.core import heartbeats
from apps.core.choices import HeartbeatSource
from apps.core.errors import PulsewatchError
from apps.health import alarms, runner, upkeep, utilisation, vigil
from apps.inventory import services as inventory

logger = logging.getLogger(__name__)


@shared_task(name="health.sample")
def sample() -> None:
    """Register Pulsewatch's own web server where it is missing, sample every instance, sum up how loaded they are."""
    try:
        inventory.ensure_own_instance(
            instance_id=settings.INSTANCE_ID, url=settings.SELF_URL, environment=settings.ENVIRONMENT
        )
    except (PulsewatchError, IntegrityError):
        # Two first ticks at once, or a name that was given away: the others are sampled all the same.
        logger.exception("Pulsewatch's own instance could not be registered", extra={"event": "registration_failed"})
    runner.sample(timezone.now())
    utilisation.record(timezone.now())
    heartbeats.beat(HeartbeatSource.SAMPLER, timezone.now())
    alarms.check(timezone.now())


# Several times its budget, for what it has begun it ends: an hour of a very large fleet.
@shared_task(name="health.roll_up", time_limit=600, soft_time_limit=540)
def roll_up() -> None:
    """Every quarter of an hour, in queue `long`."""
    upkeep.run(timezone.now())


@shared_task(name="health.heartbeat")
def heartbeat() -> None:
    """Once a minute in each queue: whoever runs this proves that beat, the broker and the queue's worker are alive."""
    queue = heartbeats.queue_of_this_task() or ""
    if not vigil.keep(queue, timezone.now()) and queue == HeartbeatSource.LONG:
        roll_up.delay()  # back after a silence, with hours to make good
