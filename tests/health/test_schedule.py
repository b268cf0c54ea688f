"""Beat, workers and broker as real processes, while they are killed and come back. Slots last one second here."""

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
import pytest

from tests.http_app import Answer, http_app
from tests.servers import MariaDB, Redis

READY = Answer(200, json.dumps({"version": "1.0.0"}).encode())


class Fleet:
    """Private servers, one watched application, and the Celery processes that sample it."""

    def __init__(self, database: MariaDB, broker: Redis, url: str, folder: Path) -> None:
        self.database, self.broker, self.folder = database, broker, folder
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
                [sys.executable, "-m", "celery", "--quiet", "-A", "tests.fast_clock", *arguments],
                env=self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.processes.append(process)
        return process

    def worker(self) -> subprocess.Popen[bytes]:
        return self.celery("worker", "-Q", "fast", "-c", "1")

    def beat(self) -> subprocess.Popen[bytes]:
        schedule = self.folder / f"schedule-{len(self.processes)}"
        return self.celery("beat", "--schedule", str(schedule), "--pidfile", "")

    def slots(self) -> list[str]:
        """The time of every stored sample."""
        url = urlsplit(self.database.url)
        connection = MySQLdb.connect(
            host=url.hostname,
            port=url.port,
            user=url.username,
            password=unquote(url.password or ""),
            database=url.path[1:],
        )
        try:
            cursor = connection.cursor()
            cursor.execute("SELECT timestamp FROM health_checks ORDER BY timestamp")
            return [str(row[0]) for row in cursor.fetchall()]
        finally:
            connection.close()

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


@contextmanager
def running(folder: Path) -> Iterator[Fleet]:
    with MariaDB() as database, Redis() as broker, http_app(ready=READY) as app:
        fleet = Fleet(database, broker, app.url, folder)
        try:
            yield fleet
        finally:
            fleet.stop()


@pytest.fixture
def fleet(tmp_path) -> Iterator[Fleet]:
    with running(tmp_path) as fleet:
        yield fleet


def test_a_broker_that_was_gone_is_found_again_and_no_slot_is_sampled_twice(fleet):
    fleet.worker()
    fleet.beat()
    fleet.grows()
    fleet.broker.kill()
    gone = time.monotonic()
    quiet = len(fleet.slots())
    while time.monotonic() - gone < 8:
        time.sleep(0.2)
    assert len(fleet.slots()) <= quiet + 1
    fleet.broker.restart()

    fleet.grows(by=5, seconds=60)

    slots = fleet.slots()
    assert len(slots) == len(set(slots))
    assert all(process.poll() is None for process in fleet.processes), "nobody had to be restarted"


def test_two_beats_and_two_workers_store_one_sample_for_each_slot(fleet):
    for _ in range(2):
        fleet.worker()
        fleet.beat()
    fleet.grows(by=8)

    slots = fleet.slots()
    assert len(slots) == len(set(slots))


def test_a_beat_that_was_away_goes_on_with_the_present_slot(fleet):
    fleet.worker()
    beat = fleet.beat()
    fleet.grows()
    os.killpg(beat.pid, signal.SIGKILL)
    beat.wait()
    away = time.monotonic()
    while time.monotonic() - away < 5:
        time.sleep(0.2)
    before = fleet.slots()
    fleet.beat()

    fleet.grows()

    slots = fleet.slots()
    assert slots[: len(before)] == before, "missed slots are not made up"
    assert len(slots) == len(set(slots))


def test_a_killed_worker_leaves_its_slot_missing_and_the_next_one_whole(fleet):
    worker = fleet.worker()
    fleet.beat()
    fleet.grows()
    os.killpg(worker.pid, signal.SIGKILL)
    worker.wait()
    fleet.worker()

    fleet.grows()

    slots = fleet.slots()
    assert len(slots) == len(set(slots))


def test_a_database_that_was_frozen_is_nobody_elses_fault(fleet):
    fleet.worker()
    fleet.beat()
    fleet.grows()
    fleet.database.freeze()
    frozen = time.monotonic()
    while time.monotonic() - frozen < 5:
        time.sleep(0.2)
    fleet.database.thaw()

    fleet.grows(seconds=60)

    assert "unhealthy" not in fleet.logs()
