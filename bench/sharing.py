"""Two workers share thousands of endpoints; one is killed in the midst of its slice, and the other makes it good."""

import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from bench.measure import Report
from bench.recorded import Recorded, recorded
from tests.fleet import Fleet, running

ENDPOINTS = 5_000
INTERVAL = 60  # seconds between two checks of one
MADE_GOOD = 60  # seconds, the longest by which a death may hold a check up
DIES_AT = 35  # the second of a minute: in the midst of slices that began at the fifth
PATIENCE = 150  # seconds after the death, the longest to wait until all were asked again
_ADD = """
from apps.inventory.models import Endpoint, Service, Workload
service = Service.objects.create(slug="shared", name="Shared")
workload = Workload.objects.create(service=service, environment="production", base_url="http://127.0.0.1:{port}")
Endpoint.objects.bulk_create(
    Endpoint(workload=workload, name=f"{{n}}", endpoint_path=f"/{{n}}", interval_seconds={interval})
    for n in range({count})
)
"""
_PROBE = "from pulsewatch.celery import app; app.send_task('health.probe', queue='fast', expires=50)"


def run(report: Report) -> None:
    """On servers of its own, in real time: two to four minutes."""
    with (
        tempfile.TemporaryDirectory() as folder,
        recorded() as server,
        running("pulsewatch", Path(folder)) as fleet,
    ):
        fleet.environment |= {"PROBE_SHARDS": "2", "LOG_LEVEL": "INFO"}
        fleet.run("shell", "-c", _ADD.format(port=server.port, interval=INTERVAL, count=ENDPOINTS))
        workers = [fleet.celery("worker", "-Q", "fast", "-c", "6", "-n", f"fast-{n}") for n in (1, 2)]
        logs = [fleet.folder / f"worker-{number}.log" for number in range(len(workers))]
        _wait("both workers to be up", 40, lambda: all(psutil.Process(one.pid).children() for one in workers))
        fleet.run("shell", "-c", _PROBE)  # as beat does at the next minute
        fleet.beat()
        _wait("all endpoints to be asked", 90, lambda: len(server.times) == ENDPOINTS)
        _until((time.time() - 5) // 60 * 60 + 65)  # the next slices begin
        _wait("the first slices to end", DIES_AT - 10, lambda: sum(map(_checked, logs)) >= ENDPOINTS)
        shares = [_checked(log) for log in logs]
        victim = _kill(workers, at=time.time() // 60 * 60 + DIES_AT)
        died = time.time()
        _wait("all endpoints to be asked again", PATIENCE, lambda: _all_since(server, died))
        report.note(f"{ENDPOINTS:,} endpoints every {INTERVAL} s, two workers, two shards, one worker killed:")
        report.figure("share of the first worker before", 100 * shares[0] / sum(shares), "%")
        report.figure("share of the second", 100 * shares[1] / sum(shares), "%")
        gap = server.gap(died, time.time())
        report.ratio("longest gap between two checks after the death, s", gap, at_most=INTERVAL + MADE_GOOD)
        twice = _stored_twice(fleet)
        report.ratio("checks stored twice", twice, at_most=0)
        taken = logs[1 - victim].read_text().count('"slice_adopted"')
        report.figure("taken over by the other worker", taken, "slices")


def _checked(log: Path) -> int:
    """Checks of the slices that a worker has ended."""
    lines = [json.loads(line) for line in log.read_text().splitlines() if '"probe_slice"' in line]
    return sum(line["checks"] for line in lines)


def _kill(workers: list[subprocess.Popen[bytes]], *, at: float) -> int:
    """Kill the worker that has worked more in this minute: it has a slice. Its place in the list."""
    before = [_cpu(worker.pid) for worker in workers]
    _until(at)
    used = [_cpu(worker.pid) - cpu for worker, cpu in zip(workers, before, strict=True)]
    victim = used.index(max(used))
    os.killpg(workers[victim].pid, signal.SIGKILL)
    workers[victim].wait()
    return victim


def _cpu(pid: int) -> float:
    times = [process.cpu_times() for process in psutil.Process(pid).children(recursive=True)]
    return float(sum(one.user + one.system for one in times))


def _all_since(server: Recorded, moment: float) -> bool:
    return all(times[-1] > moment for times in list(server.times.values()))


def _stored_twice(fleet: Fleet) -> int:
    """Checks of one endpoint nearer to the one before than half its interval, the first ones aside."""
    [[count]] = fleet.rows(
        "SELECT COUNT(*) FROM (SELECT status, at, LAG(at) OVER (PARTITION BY endpoint_id ORDER BY at) AS earlier,"
        " ROW_NUMBER() OVER (PARTITION BY endpoint_id ORDER BY at) AS number FROM endpoint_checks) AS checks"
        f" WHERE number > 2 AND at < earlier + INTERVAL {INTERVAL // 2} SECOND"
    )
    return int(str(count))


def _wait(what: str, seconds: float, done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            raise RuntimeError(f"waited {seconds:.0f} s in vain for {what}")
        time.sleep(0.2)


def _until(moment: float) -> None:
    time.sleep(max(0.0, moment - time.time()))
