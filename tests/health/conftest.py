"""A target, and minutes that are short."""

from collections.abc import Iterator
from datetime import timedelta

import pytest

from apps.health import prober
from apps.health.rules import schedule
from tests.health.quick import LENGTH, QUICK
from tests.receiver import Receiver, receiver


@pytest.fixture
def server() -> Iterator[Receiver]:
    with receiver() as platform:
        yield platform


@pytest.fixture
def short_slices(monkeypatch) -> None:
    """For the quick clock."""
    monkeypatch.setattr(schedule, "MINUTE", LENGTH)
    monkeypatch.setattr(schedule, "LEAD", timedelta(0))
    monkeypatch.setattr(prober, "LOOK_EVERY", 0.05)
    monkeypatch.setattr(prober, "STALL_SECONDS", 1.5 * QUICK)  # of the quick clock: a busy machine is no stall
