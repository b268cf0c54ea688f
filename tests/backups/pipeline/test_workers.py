"""Backups by real beats and workers that are killed, told to end, or left without their broker and their database."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from apps.backups.engines import engine_for, parse_url
from tests.backups.pipeline.product import fill, run, stored_in, url_of
from tests.fleet import Fleet, connect, running
from tests.servers import MariaDB

MEGABYTES = 8
RATE_MB = 2  # a second: a dump takes four, unless its server is frozen meanwhile
WAIT_SECONDS = 45  # for what takes a few on an idle machine


class Backups:
    """A fleet, its backups, and a database to back up, whose dump takes seconds."""

    def __init__(self, fleet: Fleet, server: MariaDB) -> None:
        self.fleet = fleet
        self.server = server  # frozen, it holds a dump where it is
        self.source = engine_for(parse_url(server.url))
        self.folder = fleet.folder / "backups"

    def due(self, name: str) -> None:
        """Register the database under another name, with one slot to make up for."""
        file = self.fleet.folder / "url"
        file.write_text(url_of(self.source))
        adding = ("database", "add", name, "--url-file", str(file), "--environment", "production")
        self.fleet.run(*adding, "--max-rate-mb", str(RATE_MB))
        self.sql(
            "UPDATE backup_plans SET last_slot = UTC_TIMESTAMP() - INTERVAL 1 DAY "
            f"WHERE database_id = (SELECT id FROM `databases` WHERE name = '{name}')"
        )

    def sql(self, statement: str) -> list[dict[str, Any]]:
        with closing(connect(self.fleet.database)) as connection:
            cursor = connection.cursor()
            cursor.execute(statement)
            connection.commit()
            names = [column[0] for column in cursor.description or ()]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def jobs(self) -> list[dict[str, Any]]:
        return self.sql("SELECT * FROM backup_jobs ORDER BY id")

    def worker(self) -> subprocess.Popen[bytes]:
        return self.fleet.celery("worker", "-Q", "fast,long", "-c", "4")

    def log(self, process: subprocess.Popen[bytes]) -> str:
        """What a worker has written."""
        return (self.fleet.folder / f"worker-{self.fleet.processes.index(process)}.log").read_text()

    def says(self, process: subprocess.Popen[bytes], text: str, *, times: int = 1) -> None:
        """Wait until a worker has written a text so often."""
        self.until(lambda: self.log(process).count(text) >= times)

    def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + WAIT_SECONDS
        while not condition():
            assert time.monotonic() < deadline, self.fleet.logs()
            time.sleep(0.1)

    def under_way(self, count: int = 1) -> None:
        """Wait until so many dumps have begun."""
        begun = "SELECT id FROM backup_jobs WHERE status = 'in_progress' AND progress_bytes > 0"
        self.until(lambda: len(self.sql(begun)) == count)

    def ended(self) -> list[dict[str, Any]]:
        """Wait until all are completed."""
        self.until(lambda: all(job["status"] == "completed" for job in self.jobs()))
        return self.jobs()

    def stored(self, jobs: list[dict[str, Any]]) -> bool:
        """Whether the storage holds the backups of these jobs and nothing else."""
        paths = [Path(job[name]) for job in jobs for name in ("object_path", "sidecar_path")]
        return stored_in(self.folder) == sorted(map(str, paths))


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with running("tests.fast_backups", tmp_path_factory.mktemp("fleet")) as fleet:
        yield fleet


@pytest.fixture(scope="module")
def server() -> Iterator[MariaDB]:
    with MariaDB() as server:
        fill(engine_for(parse_url(server.url)), MEGABYTES)
        yield server


@pytest.fixture
def backups(fleet: Fleet, server: MariaDB) -> Iterator[Backups]:
    """Without any process, registered database or backup yet."""
    made = Backups(fleet, server)
    yield made
    server.thaw()
    fleet.stop()
    fleet.processes.clear()
    shutil.rmtree(made.folder)
    for table in ("backup_jobs", "backup_plans", "`databases`"):
        made.sql(f"DELETE FROM {table}")


def test_a_killed_worker_is_noticed_and_the_next_one_clears_its_half_and_makes_the_backup(backups: Backups) -> None:
    backups.due("shop")
    worker = backups.worker()
    backups.fleet.beat()
    backups.under_way()
    assert [path for path in stored_in(backups.folder) if path.endswith(".partial")]
    os.killpg(worker.pid, signal.SIGKILL)
    worker.wait()
    backups.worker()

    [job] = backups.ended()

    assert (job["retry_count"], job["integrity_check_passed"]) == (1, 1)
    assert backups.stored([job])
    dumping = "SELECT id FROM information_schema.processlist WHERE info LIKE '%FROM `large`%' AND id <> CONNECTION_ID()"
    assert not run(backups.source, dumping), "the dead worker's client has gone with it"


def test_a_backup_outlives_its_broker_its_own_database_and_the_order_to_end(backups: Backups) -> None:
    backups.due("shop")
    worker = backups.worker()
    backups.fleet.beat()
    backups.under_way()
    backups.server.freeze()
    backups.fleet.broker.kill()
    backups.fleet.database.kill()
    backups.says(worker, "could not be renewed")
    backups.fleet.database.start()
    backups.fleet.broker.start()
    backups.says(worker, "Connected to redis", times=2)
    os.kill(worker.pid, signal.SIGTERM)
    backups.says(worker, "Warm shutdown")
    backups.server.thaw()

    assert worker.wait(WAIT_SECONDS) == 0, "a worker told to end finishes what it has begun"

    [job] = backups.ended()
    assert (job["retry_count"], job["integrity_check_passed"], job["error_message"]) == (0, 1, None)
    assert backups.stored([job])


def test_two_beats_two_workers_and_messages_delivered_twice_make_one_backup_of_each_slot(backups: Backups) -> None:
    names = ("one", "two")
    for name in names:
        backups.due(name)
    workers = [backups.worker()]
    for _ in range(2):
        backups.fleet.beat()
    backups.under_way(len(names))
    backups.server.freeze()
    workers.append(backups.worker())  # looks for messages that are taken for lost, long before the dumps end
    # Each received, then received again by whichever worker, and ended at once.
    backups.until(lambda: sum(backups.log(one).count("Task backups.run[") for one in workers) >= 3 * len(names))
    backups.server.thaw()

    jobs = backups.ended()

    assert len(jobs) == len({job["plan_id"] for job in jobs}) == len(names)
    assert {job["retry_count"] for job in jobs} == {0}
    assert len({job["lease_owner"] for job in jobs}) == len(names), "each in a process of its own"
    assert backups.stored(jobs)
