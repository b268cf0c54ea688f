"""Gunicorn's configuration: `gunicorn --config python:pulsewatch.web pulsewatch.wsgi`."""

import os
import shutil
from pathlib import Path
from typing import Any

# Seconds after which a request gives up on a database that does not answer. Must be set before the settings are read.
os.environ.setdefault("DATABASE_TIMEOUT", "15")
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "pulsewatch.settings")

from django.conf import settings

# A folder of this server's own, emptied at every start: counters of an earlier run would be added to this one's.
_metrics_dir = Path(os.environ.setdefault("PROMETHEUS_MULTIPROC_DIR", str(settings.VAR_DIR / "metrics")))
shutil.rmtree(_metrics_dir, ignore_errors=True)
_metrics_dir.mkdir(parents=True)

bind = f"{settings.HOST}:{settings.PORT}"
workers = settings.WEB_CONCURRENCY
worker_class = "gthread"
threads = 8
timeout = 30  # seconds without a sign of life from a worker
graceful_timeout = 8  # seconds for running requests after TERM; the launcher allows 10 in all
keepalive = 5  # seconds
reload = settings.DEBUG  # a developer sees a change at once
preload_app = not reload  # the application is whole before the port is opened
worker_tmp_dir = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108  (a heartbeat file, no data)
control_socket = str(settings.VAR_DIR / "gunicorn.sock")
accesslog = None  # apps.core.middleware writes one line a request
logconfig_dict = settings.LOGGING
forwarded_allow_ips = "*"  # the address is taken by apps.core.middleware, which counts trusted proxies


def post_fork(server: Any, worker: Any) -> None:
    """Tell the worker which process tree it belongs to."""
    from apps.core import metrics

    metrics.process_root = server.pid


def child_exit(server: Any, worker: Any) -> None:
    """Forget the gauges of a worker that has gone; its counters stay."""
    from prometheus_client import multiprocess

    multiprocess.mark_process_dead(worker.pid)
