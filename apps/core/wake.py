"""Wakes a worker for a row. The row is the work; a lost message costs a minute, until the tick sends it again."""

import logging

from celery import current_app
from django.db import transaction
from kombu.exceptions import OperationalError

logger = logging.getLogger(__name__)


def wake(task: str, key: str, *, seconds: float = 0) -> None:
    """Send `task` the key of a row once the running transaction has been committed, to run so many seconds later."""
    transaction.on_commit(lambda: _send(task, key, seconds))


def _send(task: str, key: str, seconds: float) -> None:
    try:
        # Nobody waits for a result. To listen for one, Celery would retry for 20 s while Redis is away, then raise.
        current_app.send_task(task, args=[key], countdown=seconds or None, retry=False, ignore_result=True)
    except OperationalError:
        logger.warning(
            "No worker was woken for %s: the broker does not answer. The next tick tries again.",
            key,
            exc_info=True,
            extra={"event": "wake_failed", "event_type": "task", "resource_id": key},
        )
