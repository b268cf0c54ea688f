"""The database frozen for a minute while endpoints are checked: with `make soak`, or `python -m bench.frozen`.

Twice, for it matters when: in the middle of a slice, and from just before the next one begins until just after it.
"""

import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from bench.recorded import Recorded, recorded
from tests.fleet import Fleet, running

OFTEN, RARELY = 40, 400  # endpoints that are checked every 10 s, and every 60 s
FROZEN = 60  # seconds
SETTLED = 100  # seconds after the thaw: the next slice ends in them
SOON = 15  # seconds after the thaw in which checks go on
_ADD = """
from apps.inventory.models import Endpoint, Service, Workload
service, _ = Service.objects.get_or_create(slug="frozen", defaults={{"name": "Frozen"}})
workload = Workload.objects.create(service=service, environment="production", base_url="http://127.0.0.1:{port}")
Endpoint.objects.bulk_create(
    Endpoint(workload=workload, name=f"{{n}}", endpoint_path=f"/{{n}}", interval_seconds=10 if n < {often} else 60)
    for n in range({often} + {rarely})
)
"""


@dataclass
class _Freeze:
    second: int  # of the minute in which it begins
    began: float = 0
    ended: float = 0


def run(fleet: Fleet) -> bool:
    """Whether all held. Needs beat, a worker of queue `fast` with four processes, and one of queue `long`."""
    with recorded() as server:
        fleet.run("shell", "-c", _ADD.format(port=server.port, often=OFTEN, rarely=RARELY))
        freezes = [_Freeze(30), _Freeze(58)]
        for freeze in freezes:
            _until(_minute() + 60 + freeze.second)
            _say(f"the database freezes for {FROZEN} s")
            fleet.database.freeze()
            freeze.began = time.time()
            _until(freeze.began + FROZEN)
            fleet.database.thaw()
            freeze.ended = time.time()
            _say("it goes on")
            _until(freeze.ended + SETTLED)
        held = [_report(fleet, server, freeze) for freeze in freezes]
    return all(held)


def _report(fleet: Fleet, server: Recorded, freeze: _Freeze) -> bool:
    since, until = freeze.began - 5, freeze.ended + SETTLED - 20
    window = f"at >= '{_moment(since)}' AND at < '{_moment(until)}'"
    checks = fleet.rows(f"SELECT status, error, COUNT(*) FROM endpoint_checks WHERE {window} GROUP BY 1, 2")
    stored = sum(int(str(count)) for _, _, count in checks)
    asked = [at for times in server.times.values() for at in times]
    during = sum(freeze.began <= at < freeze.ended for at in asked)
    resumed = min(at for at in asked if at > freeze.ended) - freeze.ended
    gap = server.gap(freeze.ended, until)
    alerts = fleet.rows(f"SELECT kind, subject FROM alerts WHERE opened_at >= '{_moment(freeze.began)}'")
    due = round((until - since) * (OFTEN / 10 + RARELY / 60))
    taken = sum("slice_adopted" in path.read_text() for path in fleet.folder.glob("worker-*.log"))
    print(f"frozen from second {freeze.second} on: {during} checks went on, {stored} stored of {due} due")
    for status, error, count in checks:
        print(f"  {count} {status} {error}")
    # The slice at work goes on until five seconds after its minute; the next one waits for the thaw.
    bound = 60 + max(0.0, freeze.ended - (freeze.began // 60 * 60 + 65)) + SOON
    print(f"  first check {resumed:.1f} s after the thaw, longest gap {gap:.0f} s (<= {bound:.0f})")
    print(f"  slices taken over: {taken}, alerts: {alerts}")
    holds = resumed < SOON and gap <= bound and not taken and not alerts
    holds = holds and not any(status == "failed" for status, _, _ in checks)
    print("ok   no target was blamed, checks went on soon" if holds else "FAIL see above")
    return holds


def _minute() -> float:
    return time.time() // 60 * 60


def _moment(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S.%f}"


def _until(moment: float) -> None:
    while (left := moment - time.time()) > 0:
        time.sleep(left)


def _say(what: str) -> None:
    print(f"{datetime.now().astimezone():%H:%M:%S} {what}", flush=True)


def main() -> int:
    with tempfile.TemporaryDirectory() as folder, running("pulsewatch", Path(folder)) as fleet:
        fleet.celery("worker", "-Q", "fast", "-c", "4")
        fleet.worker("long")
        fleet.beat()
        return 0 if run(fleet) else 1


if __name__ == "__main__":
    sys.exit(main())
