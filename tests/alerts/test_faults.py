"""Processes that die in the wrong moment, and a Redis that is away: nothing is lost, and what came twice says so."""

import json
import os
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from django.db import connection
from django.utils import timezone

from apps.alerts import runner
from apps.alerts.models import Alert, Delivery, Notice
from tests.alerts.conftest import received

ROOT = Path(__file__).parents[2]
# A part of Pulsewatch that finds something wrong while Redis is away, and dies before it can tell anybody.
FINDS = """
earlier = timezone.now() - timedelta(seconds=10)
settle("endpoint_down", [Firing("endpoint:17", "GET / is down", "Look.", "critical")], now=earlier)
os.kill(os.getpid(), signal.SIGKILL)
"""
# A worker that dies between the server's answer and its own note of it.
SENDS = """
send = channels.send
def and_die(*arguments, **named):
    send(*arguments, **named)
    os.kill(os.getpid(), signal.SIGKILL)
channels.send = and_die
runner.deliver(int(sys.argv[1]))
"""
IMPORTS = """
import os, signal, sys
from datetime import timedelta
import django
django.setup()
import pulsewatch.celery
from django.utils import timezone
from apps.alerts import channels, runner
from apps.alerts.services import Firing, settle
"""


def dies(code: str, *arguments: str) -> None:
    """Run code on the database of this test, with a Redis that does not answer, until it kills itself."""
    database = connection.settings_dict
    url = os.environ["DATABASE_URL"].rpartition("/")[0] + f"/{database['NAME']}"
    done = subprocess.run(
        [sys.executable, "-c", IMPORTS + code, *arguments],
        env={**os.environ, "DATABASE_URL": url, "REDIS_URL": "redis://127.0.0.1:1/0"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr


@pytest.mark.django_db(transaction=True)
def test_who_dies_with_the_news_in_hand_has_it_told_by_others(make_route, hook):
    route = make_route()
    dies(FINDS)
    assert Notice.objects.waiting().get().event.alert == Alert.objects.open().get()
    runner.tick(timezone.now())
    dies(SENDS, str(route.pk))
    row = Delivery.objects.get()
    assert (row.status, row.attempts) == ("sending", 1)
    later = timezone.now() + timedelta(seconds=70)
    runner.tick(later)
    assert runner.deliver(route.pk, clock=lambda: later) == 1
    first, second = received(hook)
    assert first == second  # the same message, with the same id
    assert row.pk in json.dumps(second)
    assert runner.deliver(route.pk, clock=lambda: later + timedelta(hours=1)) == 0
