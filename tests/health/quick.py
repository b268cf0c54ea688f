"""Slices of a prober whose clock runs fast: ten seconds take half a one, and begin when the test says."""

import asyncio
import time
from datetime import UTC, datetime, timedelta

from apps.health.prober import Clock, Prober, Report
from apps.inventory.models import Endpoint
from tests.factories import EndpointFactory, WorkloadFactory
from tests.receiver import Receiver

START = datetime(2026, 3, 2, 12, tzinfo=UTC)
LENGTH = timedelta(seconds=10)  # of a slice, in the time of its own clock
QUICK = 20  # times faster than everybody else's


class QuickClock(Clock):
    """Begins at a moment of the test's choice and runs fast."""

    def __init__(self, start: datetime) -> None:
        self._from, self._mono = start.timestamp(), time.monotonic()

    def time(self) -> float:
        return self._from + (time.monotonic() - self._mono) * QUICK

    def wall(self) -> datetime:
        return self.now()


def probe(number: int = 0, *, shard: int = 0, shards: int = 1, **options) -> Report | None:
    """Run the slice of that number from the start."""
    return probe_at(START + number * LENGTH, shard=shard, shards=shards, **options)


def probe_at(minute: datetime, *, shard: int = 0, shards: int = 1, begins: datetime | None = None, **options):
    async def run() -> Report | None:
        one = Prober(allow_loopback=True, clock=QuickClock(begins or minute), **options)
        return await one.run(shard, shards, minute)

    return asyncio.run(run())


def endpoints(server: Receiver, count: int = 1, **fields) -> list[Endpoint]:
    """Some that are asked every ten seconds, and were there long before the first slice."""
    workload = WorkloadFactory(base_url=server.url)
    made = EndpointFactory.create_batch(
        count, workload=workload, **{"interval_seconds": 10, "slow_ms": 30_000, **fields}
    )
    Endpoint.objects.update(updated_at=START - timedelta(days=1))
    return made
