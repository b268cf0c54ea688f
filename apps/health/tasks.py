"""What beat sends, and the slices it starts."""

import asyncio
import logging
from datetime import datetime

from celery import shared_task
from django.conf import settings
from django.db import IntegrityError
from django.utils import timezone

from apps.core import heartbeats
from apps.core.choices import HeartbeatSource
from apps.core.errors import PulsewatchError
from apps.core.reach import places_of
from apps.health import alarms, alerting, rules, runner, upkeep, utilisation, vigil
from apps.health.prober import Prober
from apps.inventory import services as inventory

logger = logging.getLogger(__name__)

# A slice lasts a minute, begins up to five seconds after its message, and then waits for its last answers (at most a
# minute) and for the database (at most another one).
SLICE_SECONDS = 190
SLICE_EXPIRES = 50  # seconds: later on the next minute's slice makes good what this one would have done


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


@shared_task(name="health.probe")
def probe() -> None:
    """Start the slices of this minute, one a shard, and settle the alerts of what is down anew."""
    now = timezone.now()
    for shard in range(settings.PROBE_SHARDS):
        probe_slice.apply_async((shard, settings.PROBE_SHARDS, rules.slot_of(now).isoformat()), expires=SLICE_EXPIRES)
    alerting.settle_all(now)


@shared_task(name="health.probe_slice", time_limit=SLICE_SECONDS + 20, soft_time_limit=SLICE_SECONDS)
def probe_slice(shard: int, shards: int, minute: str) -> None:
    """Check what a shard has to check in this minute. A second message for it finds it taken."""
    prober = Prober(allow_loopback=settings.PROBE_ALLOW_LOOPBACK, always=places_of(settings.SELF_URL))
    asyncio.run(prober.run(shard, shards, datetime.fromisoformat(minute)))


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
