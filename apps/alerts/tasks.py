"""What workers and beat are sent. All of it is short, so it belongs to queue `fast`; only the clean-up is not."""

import logging
import threading
from collections.abc import Callable
from datetime import datetime

from celery import shared_task
from django.db import DatabaseError, connection
from django.utils import timezone

from apps.alerts import outbox, runner

logger = logging.getLogger(__name__)


@shared_task(name="alerts.gather")
def gather(_: str = "") -> None:
    """Put together what waits, and come back when more is due."""
    _again(runner.gather(timezone.now()))


@shared_task(name="alerts.deliver")
def deliver(key: str) -> None:
    """Send the messages of one route, in a thread: a route that hangs holds up neither probes nor other routes.

    The row is the work: when the worker ends before the thread has, the tick sends again.
    """
    _aside(f"route-{key}", lambda: runner.deliver(int(key)))


@shared_task(name="alerts.tick")
def tick() -> None:
    """Once a minute."""
    _again(runner.tick(timezone.now()))


@shared_task(name="alerts.clean_up", time_limit=3600, soft_time_limit=3500)
def clean_up() -> None:
    """Once a day."""
    runner.clean_up(timezone.now())


@shared_task(name="alerts.deadman")
def deadman() -> None:
    """Once a minute, in a thread for the same reason."""
    _aside("deadman", lambda: runner.ping_deadman(timezone.now()))


def _aside(name: str, work: Callable[[], object]) -> None:
    def run() -> None:
        try:
            work()
        except DatabaseError:
            logger.exception("%s was interrupted; the next tick tries again", name, extra={"event": "interrupted"})
        finally:
            connection.close()

    threading.Thread(target=run, name=name, daemon=True).start()


def _again(at: datetime | None) -> None:
    if at is not None:
        outbox.gather(seconds=max(0.0, (at - timezone.now()).total_seconds()))
