"""Private servers, one watched application, and the Celery processes that sample it."""

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

import MySQLdb
import redis

from tests.http_app import Answer, http_app
from tests.servers import MariaDB, Redis

READY = Answer(200, json.dumps({"version": "1.0.0"}).encode())


def connect(database: MariaDB, *, schema: str = "") -> MySQLdb.Connection:
    """A connection to a private server, to the schema of its URL or another one."""
    url = urlsplit(database.url)
    return MySQLdb.connect(
        host=url.hostname,
        port=url.port,
        user=url.username,
        password=unquote(url.password or ""),
        database=schema or url.path[1:],
        charset="utf8mb4",
    )


class Fleet:
    """Private servers, one watched application, and the Celery processes that sample it."""

    def __init__(self, app: str, database: MariaDB, broker: Redis, url: str, folder: Path) -> None:
        self.app, self.database, self.broker, self.folder = app, database, broker, folder
        self.environment = {
            **os.environ,
            "DATABASE_URL": database.url,
            "REDIS_URL": broker.url,
            "SECRET_KEY": secrets.token_urlsafe(50),
            "VAR_DIR": str(folder),
            "SELF_URL": url,
            "INSTANCE_ID": "app-1",
        }
        self.processes: list[subprocess.Popen[bytes]] = []
        self.run("prepare")

    def run(self, *command: str) -> None:
        subprocess.run(
            [sys.executable, "manage.py", *command], check=True, env=self.environment, stdout=subprocess.DEVNULL
        )

    def celery(self, *arguments: str) -> subprocess.Popen[bytes]:
        log = (self.folder / f"{arguments[0]}-{len(self.processes)}.log").open("wb")
        with log:
            process = subprocess.Popen(
                [sys.executable, "-m", "celery", "--quiet", "-A", self.app, *arguments],
                env=self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.processes.append(process)
        return process

    def worker(self, queue: str = "fast") -> subprocess.Popen[bytes]:
        return self.celery("worker", "-Q", queue, "-n", f"{queue}-{len(self.processes)}", "-c", "1")

    def beat(self) -> subprocess.Popen[bytes]:
        schedule = self.folder / f"schedule-{len(self.processes)}"
        return self.celery("beat", "--schedule", str(schedule), "--pidfile", "")

    def rows(self, query: str) -> list[tuple[object, ...]]:
        connection = connect(self.database)
        try:
            cursor = connection.cursor()
            cursor.execute(query)
            return list(cursor.fetchall())
        finally:
            connection.close()

    def slots(self) -> list[str]:
        """The time of every stored sample."""
        return [str(at) for (at,) in self.rows("SELECT timestamp FROM health_checks ORDER BY timestamp")]

    def beats(self) -> dict[object, object]:
        """When each part of Pulsewatch last gave a sign of life."""
        return dict(self.rows("SELECT source, at FROM heartbeats"))

    def grows(self, *, by: int = 3, seconds: float = 40) -> None:
        """Wait until that many more samples are stored."""
        before = len(self.slots())
        deadline = time.monotonic() + seconds
        while len(self.slots()) < before + by:
            assert time.monotonic() < deadline, self.logs()
            time.sleep(0.1)

    def logs(self) -> str:
        return "\n".join(f"{path.name}: {path.read_text()[-1500:]}" for path in self.folder.glob("*.log"))

    def stop(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def clear(self) -> None:
        """End the processes and remove their traces: logs, what beats remember, messages. The database stays."""
        self.stop()
        self.processes.clear()
        for path in (*self.folder.glob("*.log"), *self.folder.glob("schedule-*")):
            path.unlink()
        self.database.start()  # which a test that failed may have left dead or frozen
        self.database.thaw()
        self.broker.start()
        with redis.Redis.from_url(self.broker.url) as broker:
            broker.flushall()


@contextmanager
def running(app: str, folder: Path) -> Iterator[Fleet]:
    """A fleet without Celery processes yet; `app` is the Celery app they will run."""
    with MariaDB(migrated=True) as database, Redis() as broker, http_app(ready=READY) as watched:
        fleet = Fleet(app, database, broker, watched.url, folder)
        try:
            yield fleet
        finally:
            fleet.stop()
