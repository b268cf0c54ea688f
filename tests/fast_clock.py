"""Pulsewatch's Celery app with slots of one second: what takes minutes in earnest takes seconds here."""

from datetime import timedelta

from apps.health import rules
from pulsewatch.celery import app

rules.SLOT = timedelta(seconds=1)
for entry in app.conf.beat_schedule.values():
    entry["schedule"] = timedelta(seconds=1)
    entry["options"] = {**entry.get("options", {}), "expires": 1}
