"""Pulsewatch's Celery app in a hurry: a tick a second, short leases, and a broker that soon sends a message again."""

from datetime import timedelta

import django

from pulsewatch.celery import app

django.setup()  # what is changed below knows models

from apps.backups import rules  # noqa: E402  (as above)
from apps.core import lease  # noqa: E402  (as above)

VISIBILITY_SECONDS = 1  # shorter than any backup in these tests: each one's message is delivered again while it runs

lease.LENGTH = timedelta(seconds=5)
lease.Lease.__init__.__kwdefaults__["every"] = 0.5
rules.RETRY_DELAY = timedelta(seconds=1)
app.conf.broker_transport_options = {**app.conf.broker_transport_options, "visibility_timeout": VISIBILITY_SECONDS}
app.conf.beat_schedule = {
    "open due backups": {"task": "backups.tick", "schedule": timedelta(seconds=1), "options": {"expires": 5}}
}
