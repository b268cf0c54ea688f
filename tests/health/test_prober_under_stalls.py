"""What a prober does when its database keeps it waiting, or its slice begins late. Slices and clock as in the tests of
the prober: ten seconds take half a one."""

import asyncio
import time
from datetime import datetime, timedelta

import pytest
from django.db import OperationalError, connection

from apps.health import prober, recording, slices, watched
from apps.health.models import EndpointCheck, ProbeSlice
from apps.health.prober import Prober, Report
from apps.health.rules import schedule
from tests.health.quick import LENGTH, START, QuickClock, endpoints, probe

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("short_slices")]


def test_whoever_was_kept_waiting_says_at_once_that_he_lives_and_takes_nobody_for_dead_yet(server, monkeypatch):
    """After a freeze all look dead to each other until each of them has had the time to speak."""
    endpoints(server)
    ProbeSlice.objects.create(shard=0, shards=1, starts_at=START - LENGTH, holder="frozen too", beat_at=START - LENGTH)
    done: list[tuple[str, float]] = []
    tell, adopt = slices.beat, slices.adopt_abandoned

    def hanging(held, now, **how):
        if [what for what, _ in done].count("beat") == 1:
            time.sleep(0.3)  # six seconds of the slice's
        done.append(("beat", time.monotonic()))
        return tell(held, now, **how)

    def adopting(now):
        done.append(("adopt", time.monotonic()))
        return adopt(now)

    monkeypatch.setattr(schedule, "MINUTE", 3 * LENGTH)
    monkeypatch.setattr(slices, "BEAT_SECONDS", 0.2)
    monkeypatch.setattr(slices, "beat", hanging)
    monkeypatch.setattr(slices, "adopt_abandoned", adopting)

    assert probe() is not None

    beats = [at for what, at in done if what == "beat"]
    assert beats[2] - beats[1] < 0.16, "the stored time is the one before the freeze; a second one says the present"
    first = next(at for what, at in done if what == "adopt")
    assert first - beats[2] > 0.16


def test_a_clock_that_jumps_within_a_slice_makes_nobody_look_dead(server, monkeypatch):
    """Every sign of life is ten minutes old then, until each has given a new one."""
    endpoints(server)
    done: list[tuple[str, datetime, float]] = []
    tell, adopt = slices.beat, slices.adopt_abandoned

    class Jumping(QuickClock):
        def wall(self) -> datetime:
            now = self.now()
            return now + timedelta(minutes=10) if now > START + LENGTH else now

    def telling(held, now, **how):
        done.append(("beat", now, time.monotonic()))
        return tell(held, now, **how)

    def adopting(now):
        done.append(("adopt", now, time.monotonic()))
        return adopt(now)

    monkeypatch.setattr(schedule, "MINUTE", 3 * LENGTH)
    monkeypatch.setattr(slices, "BEAT_SECONDS", 0.2)
    monkeypatch.setattr(slices, "beat", telling)
    monkeypatch.setattr(slices, "adopt_abandoned", adopting)

    report = asyncio.run(Prober(allow_loopback=True, clock=Jumping(START)).run(0, 1, START))

    assert report is not None
    assert report.checks == 3
    assert ProbeSlice.objects.get().finished_at is not None
    jumped = next(at for what, now, at in done if what == "beat" and now > START + timedelta(minutes=10))
    adopts = [at for what, _, at in done if what == "adopt" and at > jumped]
    assert adopts
    assert adopts[0] - jumped > 0.16


def test_an_owner_who_speaks_up_in_the_last_moment_keeps_his_slice():
    now = START + timedelta(minutes=1)
    ProbeSlice.objects.create(shard=0, shards=1, starts_at=START, holder="slow", beat_at=START)

    def he_speaks(execute, sql, params, many, context):
        if sql.startswith("UPDATE"):
            with connection.cursor() as cursor:
                cursor.cursor.execute("UPDATE probe_slices SET beat_at = %s", [now.replace(tzinfo=None)])
        return execute(sql, params, many, context)

    with connection.execute_wrapper(he_speaks):
        assert slices.adopt_abandoned(now) == []
    assert ProbeSlice.objects.get().holder == "slow"


def test_a_database_that_comes_back_after_the_last_moment_still_gets_all_checks(server, monkeypatch):
    endpoints(server, 12)
    monkeypatch.setattr(prober, "GIVE_UP", timedelta(seconds=5))
    monkeypatch.setattr(recording, "ROWS_OF_ONE_STATEMENT", 5)
    keep, frozen = recording.store, []

    def frozen_first(*batch):
        if not frozen:
            frozen.append(True)
            time.sleep(1.0)  # twice as long as the slice
        return keep(*batch)

    monkeypatch.setattr(recording, "store", frozen_first)

    report = probe()

    assert report is not None
    assert report.checks == EndpointCheck.objects.count() == 12
    assert ProbeSlice.objects.get().finished_at is not None


def test_a_database_that_takes_nothing_costs_the_checks_and_ends_the_slice_all_the_same(server, monkeypatch):
    endpoints(server, 3)
    monkeypatch.setattr(prober, "GIVE_UP", timedelta(seconds=5))

    def refuse(*_):
        raise OperationalError(2013, "Lost connection to server during query")

    monkeypatch.setattr(recording, "store", refuse)

    report = probe()

    assert report is not None
    assert report.checks == 0
    assert ProbeSlice.objects.get().finished_at is None, "who takes it over checks again"


def test_checks_that_are_late_begin_over_some_seconds_and_not_all_at_once(server):
    endpoints(server, 60)
    planned: list[float] = []

    class Noting(Prober):
        def _add(self, one, at, *, over=0.0):
            super()._add(one, at, over=over)
            if over:
                planned.extend(due for due, _, who, *_ in self._plan if who is one)

    async def run() -> Report | None:
        clock = QuickClock(START + timedelta(seconds=6))
        return await Noting(allow_loopback=True, clock=clock).run(0, 1, START)

    report = asyncio.run(run())

    assert report is not None
    assert (report.checks, report.missed) == (60, 0)
    assert len(planned) > 15, "of those whose time was in the first six seconds"
    assert max(planned) - min(planned) > 2


def test_a_slice_whose_time_comes_while_the_database_is_away_begins_when_it_is_back(server, monkeypatch):
    """And is not left to the next minute; although the answer to its claim was lost."""
    endpoints(server, 12)
    claim, load, tries = slices.claim, watched.of_shard, []

    def away(*asked, **how):
        tries.append("claim")
        if len(tries) == 1:
            raise OperationalError(
                2013, "Lost connection to server at 'handshake: reading initial communication packet'"
            )
        taken = claim(*asked, **how)
        if len(tries) == 2:
            raise OperationalError(2013, "Lost connection to server during query")
        return taken

    def away_again(*asked):
        tries.append("load")
        if tries.count("load") == 1:
            raise OperationalError(2006, "Server has gone away")
        return load(*asked)

    monkeypatch.setattr(prober, "RETRY_SECONDS", 0.02)
    monkeypatch.setattr(slices, "claim", away)
    monkeypatch.setattr(watched, "of_shard", away_again)

    report = probe()

    assert report is not None
    assert (report.checks, report.missed, report.adopted) == (12, 0, 0)
    assert tries == ["claim", "claim", "claim", "load", "load"]
    assert ProbeSlice.objects.get().finished_at is not None
