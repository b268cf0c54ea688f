"""Scaling by real beats and workers that are killed between asking and settling, and by a real gunicorn under load."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import psutil
import pytest

from bench.load import Load
from tests.fleet import Fleet, connect, running
from tests.serving import served

WAIT_SECONDS = 60  # for what takes a few on an idle machine
REGISTER = """
from apps.inventory.models import Service, Workload
from apps.scaling.models import ScalingPolicy
service = Service.objects.create(slug="held", name="Held")
Workload.objects.create(service=service, environment="production", platform="docker")
ScalingPolicy.objects.create(id="policy_held_production", service=service, environment="production", metrics="cpu",
    evaluation_period_seconds=60, datapoints_to_trigger=1)
"""
# The minute that ended last, in which both instances were at 90 %.
BUSY = """
INSERT INTO utilisation_minutes (workload_id, minute, expected, reported, warming, cpu_sum, cpu_count, memory_sum,
    memory_count, warming_cpu_sum, warming_cpu_count, warming_memory_sum, warming_memory_count, samples)
SELECT workloads.id, DATE_FORMAT(UTC_TIMESTAMP(), '%Y-%m-%d %H:%i:00') - INTERVAL one.seq MINUTE, 2, 2, 0, 180, 2, 0, 0,
    0, 0, 0, 0, 0 FROM workloads JOIN services ON services.id = workloads.service_id JOIN seq_0_to_3 AS one
WHERE services.slug = 'held'
"""


class Scaled:
    """A fleet, and what its database and its platform say of scaling."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet

    def sql(self, statement: str) -> list[dict[str, Any]]:
        with closing(connect(self.fleet.database)) as connection:
            cursor = connection.cursor()
            cursor.execute(statement)
            connection.commit()
            names = [column[0] for column in cursor.description or ()]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + WAIT_SECONDS
        while not condition():
            assert time.monotonic() < deadline, self.fleet.logs()
            time.sleep(0.1)

    def events(self) -> list[dict[str, Any]]:
        return self.sql("SELECT * FROM scaling_events ORDER BY created_at")

    def decisions(self) -> list[dict[str, Any]]:
        return self.sql("SELECT * FROM scaling_decisions ORDER BY boundary")

    def asked(self) -> list[str]:
        file = self.fleet.folder / "asked"
        return file.read_text().split() if file.exists() else []

    def shell(self, program: str) -> None:
        self.fleet.run("shell", "--no-imports", "--command", program)

    def a_minute_passes(self) -> None:
        """Everything that was recorded moves back by a minute."""
        for table, columns in (
            ("health_checks", ("timestamp", "measured_at")),
            ("utilisation_minutes", ("minute",)),
            ("scaling_decisions", ("boundary", "evaluated_at", "looked_from")),
            ("scaling_events", ("timestamp", "created_at", "settled_at")),
        ):
            moved = ", ".join(f"`{column}` = `{column}` - INTERVAL 1 MINUTE" for column in columns)
            self.sql(f"UPDATE {table} SET {moved} ORDER BY `{columns[0]}`")


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with running("tests.fast_scaling", tmp_path_factory.mktemp("fleet")) as fleet:
        yield fleet


@pytest.fixture
def scaled(fleet: Fleet) -> Iterator[Scaled]:
    """Without any process or history."""
    one = Scaled(fleet)
    yield one
    fleet.stop()
    fleet.processes.clear()
    for table in ("scaling_events", "scaling_decisions", "utilisation_minutes"):
        one.sql(f"DELETE FROM {table}")
    one.sql("UPDATE workloads SET change_lock = NULL, change_lock_since = NULL, change_lock_by = ''")


@pytest.fixture
def held(scaled: Scaled) -> Iterator[Scaled]:
    """A busy workload on the platform in files, which runs two."""
    (scaled.fleet.folder / "count").write_text("2")
    (scaled.fleet.folder / "asked").unlink(missing_ok=True)
    if not scaled.sql("SELECT id FROM scaling_policies WHERE id = 'policy_held_production'"):
        scaled.shell(REGISTER)
    scaled.sql("UPDATE scaling_policies SET enabled = (id = 'policy_held_production')")
    scaled.sql(BUSY)
    yield scaled
    (scaled.fleet.folder / "slow").unlink(missing_ok=True)


def test_two_beats_and_two_workers_make_one_decision_a_window_and_one_change(held: Scaled) -> None:
    for _ in range(2):
        held.fleet.worker()
        held.fleet.beat()

    held.until(lambda: [event["success"] for event in held.events()] == [1])
    for worker in held.fleet.processes[::2]:
        held.until(lambda worker=worker: _log(held.fleet, worker).count("Task scaling.tick[") >= 3)

    decisions = held.decisions()
    assert [one["action"] for one in decisions].count("scale_up") == 1
    assert len({(one["policy_id"], one["boundary"]) for one in decisions}) == len(decisions)
    assert held.asked() == ["3"]
    [event] = held.events()
    assert event["trigger_reason"] == "CPU 90 % for 1 minute (threshold 80 %)"


def test_a_worker_killed_between_asking_and_settling_leaves_it_to_the_next_tick(held: Scaled) -> None:
    slow = held.fleet.folder / "slow"
    slow.touch()
    worker = held.fleet.worker()
    held.fleet.beat()
    held.until(held.asked)
    os.killpg(worker.pid, signal.SIGKILL)
    worker.wait()
    [event] = held.events()
    assert (event["success"], event["settled_at"]) == (None, None)
    (held.fleet.folder / "count").write_text("3")  # the platform did what it was asked for
    slow.unlink()

    held.fleet.worker()
    held.until(lambda: [one["success"] for one in held.events()] == [1])

    assert held.asked() == ["3"], "it saw that it was done already"
    [workload] = held.sql("SELECT change_lock FROM workloads WHERE platform = 'docker'")
    assert workload["change_lock"] is None


def test_a_gunicorn_under_load_gets_a_web_worker_and_loses_it_when_the_load_has_ended(scaled: Scaled) -> None:
    servers = {"DATABASE_URL": scaled.fleet.database.url, "REDIS_URL": scaled.fleet.broker.url}
    with served(WEB_CONCURRENCY="1", **servers) as web:
        pid_file, master = web.log.parent / "web.pid", psutil.Process(web.process.pid)
        assert int(pid_file.read_text()) == master.pid
        scaled.shell(
            "from pathlib import Path; from apps.health.tasks import sample; from bench.load import register; "
            "sample(); "  # the first one registers the console itself
            f"register({web.base!r}, Path({str(pid_file)!r}), 1)"
        )
        # A look a second is some load in itself.
        scaled.sql("UPDATE scaling_policies SET enabled = (metrics = 'cpu'), scale_down_threshold = 0.35")
        scaled.fleet.worker()
        scaled.fleet.beat()

        with Load(web.base, master.pid):
            scaled.until(lambda: _cpu(scaled) > 45)
            scaled.a_minute_passes()
            scaled.until(lambda: len(master.children()) == 2)
        scaled.until(lambda: [event["success"] for event in scaled.events()] == [1])
        scaled.sql("DELETE FROM health_checks")
        scaled.sql("DELETE FROM utilisation_minutes")
        scaled.until(lambda: 0 < _cpu(scaled) < 30)
        scaled.a_minute_passes()
        scaled.until(lambda: len(master.children()) == 1)
        scaled.until(lambda: [event["success"] for event in scaled.events()] == [1, 1])

    up, down = scaled.events()
    assert [(one["instances_before"], one["instances_after"]) for one in (up, down)] == [(1, 2), (2, 1)]
    assert re.fullmatch(r"CPU \d+(\.\d)? % for 1 minute \(threshold 40 %\)", up["trigger_reason"])
    assert re.fullmatch(r"CPU \d+(\.\d)? % for 1 minute \(threshold 35 %\)", down["trigger_reason"])
    assert up["cpu_percent_avg"] > 40 > 35 > down["cpu_percent_avg"]


def _cpu(scaled: Scaled) -> float:
    """How busy gunicorn was in the newest minute; 0 while nobody knows."""
    rows = scaled.sql(
        "SELECT cpu_sum / cpu_count AS cpu FROM utilisation_minutes JOIN workloads ON workloads.id = workload_id "
        "WHERE platform = 'gunicorn' AND cpu_count > 0 ORDER BY minute DESC LIMIT 1"
    )
    return rows[0]["cpu"] if rows else 0.0


def _log(fleet: Fleet, process: subprocess.Popen[bytes]) -> str:
    return (fleet.folder / f"worker-{fleet.processes.index(process)}.log").read_text()
