"""The Celery app, what beat sends when, and the hooks that carry logs and request ids into tasks.

Two queues, each with its own worker processes: `fast` for samples, ticks and alerts, `long` for dumps and restores,
so that a dump never starves a sample.
"""

import logging.config
from contextlib import ExitStack
from typing import Any

from celery import Celery, signals
from celery.schedules import crontab
from django.conf import settings
from kombu import Queue
from kombu.transport import redis

from apps.core import context
from apps.core.logging import install_hooks
from pulsewatch.env import require_settings_module

require_settings_module()

# A worker whose broker goes away in the midst of a task would try to hand the message back to it, and die of that
# (kombu 5.7: 'NoneType' object has no attribute 'hostname'). Nothing is lost: the row is the work, a tick sends again.
redis.Channel.do_restore = False


class QoS(redis.QoS):  # type: ignore[misc]  # the library has no hints
    """Lets go of a message whose connection was lost: acknowledging it would end the worker with an AttributeError.

    If the broker still has it, it comes again after its visibility time-out, and the task finds the row done.
    """

    def ack(self, delivery_tag: str) -> None:
        if self.channel.connection is not None:
            super().ack(delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        if self.channel.connection is not None:
            super().reject(delivery_tag, requeue)


redis.Channel.QoS = QoS

app = Celery("pulsewatch")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.conf.task_queues = [Queue("fast"), Queue("long")]
app.autodiscover_tasks()
app.set_default()  # for every thread: the current app alone is the importing thread's, and requests run in others
app.conf.beat_schedule = {
    # `expires`: a minute later the sample of the next slot does the same work; an old one would only pile up.
    "open due backups": {"task": "backups.tick", "schedule": crontab(), "options": {"expires": 50}},
    "remove expired backups": {"task": "backups.clean_up", "schedule": crontab(hour=3, minute=0)},
    "apply deliveries left over": {"task": "api.tick", "schedule": crontab(), "options": {"expires": 50}},
    "forget old deliveries": {"task": "api.forget_deliveries", "schedule": crontab(hour=4, minute=11)},
    "forget old API answers": {"task": "api.clean_up", "schedule": crontab(minute=17)},
    "forget old diagnostics": {"task": "builds.forget", "schedule": crontab(minute=41), "options": {"expires": 3000}},
    "end builds nobody ends": {"task": "builds.tick", "schedule": crontab(minute="*/5"), "options": {"expires": 280}},
    "tell of alerts": {"task": "alerts.tick", "schedule": crontab(), "options": {"expires": 50}},
    "call the outside watcher": {"task": "alerts.deadman", "schedule": crontab(), "options": {"expires": 50}},
    "forget old alerts": {"task": "alerts.clean_up", "schedule": crontab(hour=4, minute=23)},
    # A window is evaluated fifteen seconds after its end, when the samples of its last minute are stored.
    "evaluate scaling policies": {
        "task": "scaling.tick",
        "schedule": crontab(),
        "options": {"countdown": 15.5, "expires": 60},
    },
    "mark decisions whose samples came late": {
        "task": "scaling.mark_late",
        "schedule": crontab(minute=53),
        "options": {"expires": 600},
    },
    "forget old scaling history": {"task": "scaling.clean_up", "schedule": crontab(hour=3, minute=43)},
    "find instances": {"task": "inventory.discover", "schedule": crontab(), "options": {"expires": 50}},
    "move deployments on": {"task": "deployments.tick", "schedule": crontab(), "options": {"expires": 50}},
    "show that queue fast works": {
        "task": "health.heartbeat",
        "schedule": crontab(),
        "options": {"queue": "fast", "expires": 50},
    },
    "show that queue long works": {
        "task": "health.heartbeat",
        "schedule": crontab(),
        "options": {"queue": "long", "expires": 50},
    },
    "sum up and delete old checks": {
        "task": "health.roll_up",
        "schedule": crontab(minute="4,19,34,49"),
        "options": {"expires": 600},
    },
    "check endpoints and databases": {"task": "health.probe", "schedule": crontab(), "options": {"expires": 50}},
    "sample every instance": {"task": "health.sample", "schedule": crontab(), "options": {"expires": 50}},
}

_bound = ExitStack()


@signals.setup_logging.connect
def _set_up_logging(**_: Any) -> None:
    """Workers and beat log as the web processes do."""
    logging.config.dictConfig(settings.LOGGING)
    install_hooks()


@signals.before_task_publish.connect
def _send_request_id(headers: dict[str, Any], **_: Any) -> None:
    """A task started by a request carries that request's id."""
    request_id = context.current().request_id
    if request_id:
        headers.setdefault("request_id", request_id)


@signals.task_prerun.connect
def _bind_task(task_id: str, task: Any, **_: Any) -> None:
    _bound.enter_context(context.bind(task_id=task_id, request_id=task.request.get("request_id")))


@signals.task_postrun.connect
def _unbind_task(**_: Any) -> None:
    _bound.close()
