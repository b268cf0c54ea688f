"""Beat, workers, broker and database as real processes, while they are killed, frozen and come back.

A minute lasts two seconds here, and each target is checked every second.
"""

import json
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from itertools import pairwise

import pytest

from tests.fleet import Fleet, connect, running
from tests.http_app import Answer, App, http_app
from tests.receiver import receiver
from tests.servers import free_port

TARGETS = 12
SECONDS = 30  # the longest to wait for anything


class Probing:
    """A fleet that checks, and what it has stored."""

    def __init__(self, fleet: Fleet, app: App) -> None:
        self.fleet, self.app = fleet, app

    def rows(self, statement: str) -> list[tuple]:
        connection = connect(self.fleet.database)
        try:
            cursor = connection.cursor()
            cursor.execute(statement)
            return list(cursor.fetchall())
        finally:
            connection.close()

    def run(self, statement: str) -> None:
        connection = connect(self.fleet.database)
        try:
            connection.cursor().execute(statement)
            connection.commit()
        finally:
            connection.close()

    def outcomes(self, since: str = "2000-01-01") -> Counter[str]:
        return Counter(row[0] for row in self.rows(f"SELECT status FROM endpoint_checks WHERE at >= '{since}'"))

    def now(self) -> str:
        return str(self.rows("SELECT UTC_TIMESTAMP(6)")[0][0])

    def wait(self, what: Callable[[], bool]) -> None:
        deadline = time.monotonic() + SECONDS
        while not what():
            assert time.monotonic() < deadline, self.fleet.logs()
            time.sleep(0.1)

    def grows(self, by: int = 3 * TARGETS) -> None:
        """Wait for that many more good checks."""
        before = self.outcomes()["healthy"]
        self.wait(lambda: self.outcomes()["healthy"] >= before + by)

    def worker(self):
        return self.fleet.celery("worker", "-Q", "fast", "-c", "5")

    def nothing_twice(self) -> None:
        """No check of a target lies nearer to the one before than its second."""
        rows = self.rows("SELECT endpoint_id, at FROM endpoint_checks WHERE status <> 'unknown' ORDER BY 1, 2")
        for (one, earlier), (other, later) in pairwise(rows):
            assert one != other or later - earlier > timedelta(seconds=0.5)


@pytest.fixture
def probing(tmp_path) -> Iterator[Probing]:
    answers = {f"api/{number}": Answer() for number in range(TARGETS)}
    with running("tests.fast_probes", tmp_path) as fleet, http_app(**answers) as app:
        one = Probing(fleet, app)
        workload = one.rows("SELECT id FROM services WHERE slug = 'app'")[0][0]
        fleet.run("shell", "-c", _ADD.format(service=workload, url=app.url, count=TARGETS))
        yield one


_ADD = """
from apps.inventory.models import Endpoint, Workload
workload = Workload.objects.create(service_id={service}, environment="staging", base_url="{url}")
for number in range({count}):
    Endpoint.objects.create(
        workload=workload, name=str(number), endpoint_path=f"/api/{{number}}", interval_seconds=10, timeout_seconds=8,
        slow_ms=60_000,
    )
"""


def test_a_second_beat_a_killed_worker_and_a_restarted_broker_cost_no_target_its_checks(probing):
    first = probing.worker()
    for _ in range(2):
        probing.fleet.beat()
    probing.grows()

    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    killed = probing.now()
    probing.worker()
    probing.grows()
    adopted = probing.rows(f"SELECT COUNT(*) FROM probe_slices WHERE finished_at IS NULL AND starts_at < '{killed}'")
    probing.wait(
        lambda: (
            not probing.rows(
                f"SELECT 1 FROM probe_slices WHERE finished_at IS NULL AND starts_at < '{killed}' - INTERVAL 1 SECOND"
            )
        )
    )
    assert adopted

    probing.fleet.broker.kill()
    probing.fleet.broker.restart()
    probing.grows()

    assert set(probing.outcomes()) <= {"healthy", "unknown"}
    probing.nothing_twice()
    checked = probing.rows("SELECT COUNT(DISTINCT endpoint_id) FROM endpoint_checks WHERE status = 'healthy'")
    assert checked == [(TARGETS,)]


def test_a_frozen_database_is_no_targets_fault_and_its_checks_are_stored_later(probing):
    probing.worker()
    probing.fleet.beat()
    probing.grows()
    slices = "SELECT COUNT(*) FROM probe_slices"
    before = probing.rows(slices)
    probing.wait(lambda: probing.rows(slices) != before)  # one has just begun: it has its whole time before it
    began = probing.now()
    probing.fleet.database.freeze()
    asked = len(probing.app.seen)
    frozen = time.monotonic()
    while time.monotonic() - frozen < 4:
        time.sleep(0.1)
    assert len(probing.app.seen) > asked, "checks went on"
    probing.fleet.database.thaw()
    ended = probing.now()
    probing.grows()

    meanwhile = Counter(
        row[0] for row in probing.rows(f"SELECT status FROM endpoint_checks WHERE at >= '{began}' AND at <= '{ended}'")
    )
    assert meanwhile["healthy"] >= TARGETS // 2, "those that were made are kept with their own times"
    assert set(probing.outcomes()) <= {"healthy", "unknown"}
    assert "failed" not in {row[0] for row in probing.rows("SELECT status FROM api_health")}


_TELL = """
from apps.alerts.arrangements import check_address, save_route
from apps.alerts.models import Route
from apps.core.audit import Actor
from apps.inventory.models import Endpoint, Workload
address = check_address("json://127.0.0.1:{hook}/told")
save_route(route=Route(name="hook"), address=address, actor=Actor.automation("test"))
workload = Workload.objects.create(service_id={service}, environment="production", base_url="http://127.0.0.1:{port}")
Endpoint.objects.create(workload=workload, name="till", endpoint_path="/ready", interval_seconds=10, slow_ms=60_000)
"""


def test_a_target_that_refuses_is_told_once_and_once_more_when_it_is_back(probing):
    """The whole way: refused connections, one alert, one message to a local webhook; answers, and it is closed."""
    port = free_port()
    [[service]] = probing.rows("SELECT id FROM services WHERE slug = 'app'")
    with receiver() as hook:
        probing.fleet.run("shell", "-c", _TELL.format(service=service, port=port, hook=hook.port))
        probing.worker()
        probing.fleet.beat()

        probing.wait(lambda: len(hook.requests) == 1)
        state = probing.rows(
            "SELECT status, consecutive_failures, error_message FROM api_health WHERE status = 'failed'"
        )
        assert len(state) == 1
        assert state[0][1] >= 3
        assert state[0][2] == "refused the connection"
        with http_app(port=port, ready=Answer()):
            probing.wait(lambda: not probing.rows("SELECT 1 FROM api_health WHERE status <> 'healthy'"))
            probing.wait(lambda: not probing.rows("SELECT 1 FROM alerts WHERE closed_at IS NULL"))
            probing.wait(lambda: len(hook.requests) == 2)
        down, up = (json.loads(request.body) for request in hook.requests)

    assert (down["type"], up["type"]) == ("failure", "success")
    assert down["title"] == f"Critical: GET http://127.0.0.1:{port}/ready is down (production)"
    assert up["title"] == f"Resolved: GET http://127.0.0.1:{port}/ready is down (production)"
    assert len(probing.rows("SELECT 1 FROM alerts")) == 1
