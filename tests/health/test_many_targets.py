"""A crowd of targets that hang must cost the healthy ones nothing: three thousand of them, in eight seconds."""

import asyncio
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest

from apps.health import prober
from apps.health.models import EndpointCheck, EndpointState
from apps.health.prober import Clock, Prober
from apps.health.rules import schedule
from apps.inventory.models import Endpoint
from tests.factories import WorkloadFactory
from tests.servers import free_port

HEALTHY, HANGING = 100, 2900
SPAN = timedelta(seconds=8)  # of the slice; each target has one slot in it
TIMEOUT = 2.0  # of the hanging ones
PROMPT = 2.0  # seconds a check may begin after its time: on a busy machine, yet less than one target hangs


class Server(asyncio.Protocol):
    """Answers what asks for /well, and nobody else."""

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        if data.startswith(b"GET /well"):
            self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


@contextmanager
def serving() -> Iterator[int]:
    port, loop = free_port(), asyncio.new_event_loop()
    server = loop.run_until_complete(loop.create_server(Server, "127.0.0.1", port, backlog=4096))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield port
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        server.close()
        loop.close()


@pytest.mark.django_db(transaction=True)
def test_three_thousand_targets_of_which_nearly_all_hang_hold_up_no_healthy_one(monkeypatch):
    monkeypatch.setattr(prober, "STALL_SECONDS", 5.0)  # that a busy machine starves us is not the matter here
    monkeypatch.setattr(schedule, "MINUTE", SPAN)
    monkeypatch.setattr(schedule, "LEAD", timedelta(0))
    # Each one's slot within the first eight seconds of its ten.
    phase = schedule.phase_of
    monkeypatch.setattr(schedule, "phase_of", lambda key, interval: phase(key, interval) * 0.8)
    # Far in the past, where every rule holds that holds now.
    start = datetime(2026, 3, 2, 12, tzinfo=UTC)

    class Past(Clock):
        def __init__(self) -> None:
            super().__init__()
            self._start = start.timestamp()

        def wall(self) -> datetime:
            return self.now()

    with serving() as port:
        workload = WorkloadFactory(base_url=f"http://127.0.0.1:{port}")
        rows = [
            Endpoint(
                workload=workload, name=f"{kind} {number}", endpoint_path=f"/{kind}/{number}", interval_seconds=10,
                timeout_seconds=TIMEOUT, slow_ms=30_000,
            )
            for kind, count in (("well", HEALTHY), ("hang", HANGING)) for number in range(count)
        ]  # fmt: skip
        Endpoint.objects.bulk_create(rows)
        Endpoint.objects.update(updated_at=start - timedelta(days=1))

        async def run():
            return await Prober(allow_loopback=True, clock=Past()).run(0, 1, start)

        report = asyncio.run(run())

    assert report is not None
    assert (report.checks, report.missed, report.dropped) == (HEALTHY + HANGING, 0, 0)
    well = EndpointCheck.objects.filter(endpoint__endpoint_path__startswith="/well")
    assert Counter(well.values_list("status", flat=True)) == {"healthy": HEALTHY}
    hanging = EndpointState.objects.filter(endpoint_path__startswith="/hang")
    assert Counter(hanging.values_list("error_message", flat=True)) == {"did not answer within 2 s": HANGING}
    lags = sorted(report.lags)
    assert lags[len(lags) * 99 // 100] < PROMPT
