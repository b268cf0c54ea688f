"""Pulsewatch's Celery app in a hurry: gates that look four times a second, a tick a second."""

from datetime import timedelta

from apps.deployments.rules import gate, transitions
from pulsewatch.celery import app

gate.INTERVAL = timedelta(seconds=0.25)
transitions.ASKING = timedelta(seconds=2)
app.conf.beat_schedule = {
    "move deployments on": {"task": "deployments.tick", "schedule": timedelta(seconds=1), "options": {"expires": 5}}
}
