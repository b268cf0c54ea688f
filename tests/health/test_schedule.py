"""Beat, workers and broker as real processes, while they are killed and come back. Slots last one second here."""

import os
import signal
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from tests.fleet import Fleet, running


@pytest.fixture(scope="module")
def servers(tmp_path_factory) -> Iterator[Fleet]:
    with running("tests.fast_clock", tmp_path_factory.mktemp("fleet")) as fleet:
        yield fleet


@pytest.fixture
def fleet(servers: Fleet) -> Iterator[Fleet]:
    """Without any process; samples of the tests before are there."""
    yield servers
    servers.clear()


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


def test_a_beat_that_was_away_goes_on_with_the_present_slot_and_its_silence_shows(fleet):
    prepared = fleet.beats()
    fleet.worker()
    long = fleet.worker("long")
    beat = fleet.beat()
    fleet.grows()
    deadline = time.monotonic() + 30
    while any(fleet.beats()[source] == prepared[source] for source in ("fast", "long", "sampler")):
        assert time.monotonic() < deadline, fleet.logs()
        time.sleep(0.1)
    for process in (beat, long):
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    away = time.monotonic()
    while time.monotonic() - away < 5:
        time.sleep(0.2)
    before, silent = fleet.slots(), fleet.beats()
    assert datetime.now(UTC).replace(tzinfo=None) - silent["fast"] > timedelta(seconds=3), "no beat, no sign"
    fleet.beat()

    fleet.grows()

    slots, beats = fleet.slots(), fleet.beats()
    assert slots[: len(before)] == before, "missed slots are not made up"
    assert len(slots) == len(set(slots))
    assert beats["fast"] > silent["fast"]
    assert beats["long"] == silent["long"], "its worker is dead"


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
