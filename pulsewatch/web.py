"""Gunicorn's configuration: `gunicorn --config python:pulsewatch.web pulsewatch.wsgi`."""

import os
from pathlib import Path
from typing import Any

from django.conf import settings
from gunicorn.glogging import Logger

from pulsewatch.env import bracketed, require_settings_module

# Seconds after which a request gives up on a database that does not answer. Must be set before the settings are read.
os.environ.setdefault("DATABASE_TIMEOUT", "10")
require_settings_module()

# A folder of this server's own, emptied at every start: counters of an earlier run would be added to this one's.
# Never a folder that the environment names: others may keep their files in that one.
_metrics_dir = settings.VAR_DIR / "metrics"
settings.VAR_DIR.mkdir(mode=0o700, parents=True, exist_ok=True)
_metrics_dir.mkdir(mode=0o700, exist_ok=True)
for _counters in _metrics_dir.glob("*.db"):
    _counters.unlink()
os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(_metrics_dir)


class ErrorLog(Logger):  # type: ignore[misc]  # the library has no hints
    """Gunicorn's words without its access log, which `logconfig_dict` would switch on, query strings and all."""

    @property
    def access_log_enabled(self) -> bool:
        """False: apps.core.middleware writes one line a request."""
        return False


bind = f"{bracketed(settings.HOST)}:{settings.PORT}"
workers = settings.WEB_CONCURRENCY
worker_class = "gthread"
threads = settings.WEB_THREADS
timeout = 30  # seconds without a sign of life from a worker
graceful_timeout = 8  # seconds for running requests after TERM; the launcher allows 10 in all
keepalive = 5  # seconds
reload = settings.DEBUG  # a developer sees a change at once
preload_app = not reload  # the application is whole before the port is opened
worker_tmp_dir = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108  (a heartbeat file, no data)
# Where platform gunicorn finds this server. One that a killed server left behind may name anybody's process by now,
# and gunicorn would not start beside it.
pidfile = str(settings.VAR_DIR / "web.pid")
Path(pidfile).unlink(missing_ok=True)
control_socket = str(settings.VAR_DIR / "gunicorn.sock")
logger_class = ErrorLog
logconfig_dict = settings.LOGGING
# Gunicorn believes no header about scheme, path or address: apps.core.middleware and Django's
# SECURE_PROXY_SSL_HEADER do, as far as TRUSTED_PROXIES says.
forwarded_allow_ips = ""
forwarder_headers = ""
secure_scheme_headers: dict[str, str] = {}


def when_ready(server: Any) -> None:
    """All files in VAR_DIR are their owner's alone; gunicorn lets everybody read its pid file."""
    Path(pidfile).chmod(0o600)


def on_starting(server: Any) -> None:
    """Warnings and uncaught exceptions go through the log, redacted; the workers inherit it."""
    from apps.core.logging import install_hooks

    install_hooks()


def post_fork(server: Any, worker: Any) -> None:
    """Tell the worker which process tree it belongs to."""
    from apps.core import metrics

    metrics.process_root = server.pid


def post_worker_init(worker: Any) -> None:
    """Ask database and Redis once before the first probe does: that answer would tell of our start, not of theirs.

    It ends within READY_TIMEOUT_SECONDS, whatever they do.
    """
    from apps.health.readiness import readiness

    readiness().check()


def child_exit(server: Any, worker: Any) -> None:
    """Forget the gauges of a worker that has gone; its counters stay."""
    from prometheus_client import multiprocess

    multiprocess.mark_process_dead(worker.pid)
