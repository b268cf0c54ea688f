"""Pulsewatch's Celery app with a minute that lasts two seconds, and targets that are checked ten times as often."""

from datetime import timedelta

import celery.schedules
import django

from pulsewatch.celery import app

django.setup()  # what is changed below knows models

from apps.alerts.rules import sending  # noqa: E402  (as above)
from apps.health import prober, rules, slices, watched  # noqa: E402  (as above)
from apps.health.rules import schedule  # noqa: E402

FASTER = 10

rules.SLOT = schedule.MINUTE = timedelta(seconds=2)
sending.DELAY = timedelta(seconds=0.5)
schedule.LEAD = timedelta(seconds=0.5)
schedule.LATE = timedelta(seconds=2)
slices.BEAT_SECONDS, slices.DEAD_AFTER = 0.4, timedelta(seconds=1.2)
prober.BATCH_SECONDS, prober.HURRY_SECONDS, prober.CATCH_UP_SECONDS = 0.3, 0.1, 0.2

_whole = watched.of_shard


def _faster(shard: int, shards: int) -> list[watched.Watched]:
    found = _whole(shard, shards)
    for one in found:
        one.interval //= FASTER
    return found


watched.of_shard = _faster
app.conf.beat_schedule = {
    "check": {"task": "health.probe", "schedule": celery.schedules.schedule(2.0), "options": {"expires": 2}}
}
app.conf.beat_max_loop_interval = 0.2
