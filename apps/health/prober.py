"""Runs a slice: one event loop asks, one thread stores, and neither waits for the other.

What is measured is measured in the loop; the database has a thread of its own, so that a stall of it delays only the
storing. Times within a slice come from the monotonic clock: whoever sets the clock moves no check.
"""

import asyncio
import gc
import heapq
import itertools
import logging
import math
import resource
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from django.db import DatabaseError, connection, transaction

from apps.core import garbage
from apps.core.reach import Place
from apps.core.threads import LeftBehind
from apps.health import recording, slices, standings, watched
from apps.health.models import ProbeSlice
from apps.health.probers.database import Looker
from apps.health.probers.database import Target as DatabaseTarget
from apps.health.probers.endpoint import Asker
from apps.health.probers.endpoint import Target as EndpointTarget
from apps.health.recording import Flip, Result
from apps.health.rules import schedule
from apps.health.rules.checks import (
    FAILED,
    STALL_SECONDS,
    UNKNOWN,
    Answer,
    Look,
    Verdict,
    judge_answer,
    judge_look,
    stalled,
)
from apps.health.watched import ENDPOINT, Watched

logger = logging.getLogger(__name__)

Found = TypeVar("Found")

BATCH = 1_000  # results that are stored at once without waiting for more
# The longest a result waits for others: 5,000 targets a minute need few statements then. What a killed worker had not
# stored is still young enough to be checked again when its slice is adopted.
BATCH_SECONDS = 10.0
HURRY_SECONDS = 2.0  # the longest it waits when it may change how a target stands
LOOK_EVERY = 0.25  # seconds between two looks at what waits
BUFFER = 50_000  # results kept while the database does not take them: ten minutes of 5,000 targets; then the oldest go
CATCH_UP_SECONDS = 5.0  # checks that are late are spread over this time
HELD_UP_SECONDS = 2.0  # a check that is later than this is one of many
GIVE_UP = timedelta(seconds=60)  # after the end of the slice, when the database still takes nothing
RETRY_SECONDS = 1.0  # before a slice that could not begin asks the database again
RESOLVERS = 256  # threads that look names up; most of them are made only when so many hang
CLOCK_JUMPS = 5.0  # seconds by which the clock is set between two signs of life: then all the others' look old or new
FILES_KEPT = 128  # of the limit of open files, for all but checks
SUSPECTS_SHARE = 0.75  # of the places: so many may be held by targets that failed the last time


class Clock:
    """The wall's time when it was made, and from then on the monotonic clock's."""

    def __init__(self) -> None:
        self._start, self._zero = datetime.now(UTC).timestamp(), time.monotonic()

    def time(self) -> float:
        """Unix seconds."""
        return self._start + time.monotonic() - self._zero

    def now(self) -> datetime:
        """The same as a moment."""
        return datetime.fromtimestamp(self.time(), UTC)

    def wall(self) -> datetime:
        """What everybody else calls now."""
        return datetime.now(UTC)


@dataclass(slots=True)
class Report:
    """What a slice came to."""

    checks: int = 0
    missed: int = 0
    dropped: int = 0
    adopted: int = 0
    lags: list[float] = field(default_factory=list)  # seconds each check began after its time


@dataclass(slots=True)
class _Waiting:
    """A result that is not judged and stored yet."""

    one: Watched
    at: datetime
    seen: Answer | Look
    started: float
    ended: float
    verdict: Verdict | None = None


class Prober:
    """One slice, and those it adopts. Made for one run."""

    def __init__(
        self, *, allow_loopback: bool, always: frozenset[Place] = frozenset(), clock: Clock | None = None
    ) -> None:
        self._allow_loopback, self._always = allow_loopback, always
        self._clock = clock or Clock()
        self.report = Report()
        self._held: list[ProbeSlice] = []
        self._end = datetime.min.replace(tzinfo=UTC)
        self._plan: list[tuple[float, int, Watched, datetime, bool]] = []
        self._order = itertools.count()
        self._running: set[asyncio.Task[None]] = set()
        self._results: deque[_Waiting] = deque()
        self._missed: deque[tuple[Watched, datetime]] = deque()
        self._stalls: deque[tuple[float, float]] = deque(maxlen=100)
        self._standings = standings.Standings()
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="store")
        self._looked_at = 0.0  # when the loop last found out whether it had stood still
        self._storing_now = asyncio.Lock()
        self._hurry = False

    async def run(self, shard: int, shards: int, minute: datetime) -> Report | None:
        """Check what is due in the slice, until its end. None when another worker has it."""
        with garbage.seldom():  # a check makes few cycles, and many objects that live as long as it does
            return await self._run(shard, shards, minute)

    async def _run(self, shard: int, shards: int, minute: datetime) -> Report | None:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(LeftBehind(RESOLVERS, "resolve"))  # name servers may hang too
        try:
            self._end, holder = schedule.window(minute)[1], slices.new_holder()
            taken = await self._insistently(
                lambda: slices.claim(shard, shards, minute, self._clock.now(), holder=holder)
            )
            if taken is None:
                return None
            await self._begin(taken)
            gc.freeze()  # the program and the targets stay: no look for garbage needs to walk through them
            places = _places()
            self._free, self._free_for_suspects = (
                asyncio.Semaphore(places),
                asyncio.Semaphore(max(1, int(places * SUSPECTS_SHARE))),
            )
            self._looker = Looker()
            async with Asker(allow_loopback=self._allow_loopback, always=self._always) as self._asker:
                helpers = [asyncio.create_task(self._storing()), asyncio.create_task(self._beating())]
                try:
                    await self._checking()
                    await self._store_rest()
                finally:
                    for helper in helpers:
                        helper.cancel()
                    await asyncio.gather(*helpers, return_exceptions=True)
                    for task in self._running:
                        task.cancel()
            if not self._results and not self._missed:
                await self._database(slices.finish, self._held, self._clock.wall(), suspicious=self._standings.held)
            self._log()
            return self.report
        finally:
            await self._in_writer(_disconnect)
            self._writer.shutdown(wait=False)

    # ---- What is to be done ------------------------------------------------------------------------------------------

    async def _begin(self, taken: ProbeSlice) -> None:
        """Plan a slice of our own: its slots, and what was missed before it."""
        self._held.append(taken)
        start, _ = slices.span(taken)
        targets = await self._insistently(lambda: watched.of_shard(taken.shard, taken.shards))
        missing = await self._insistently(lambda: slices.gap(taken))
        now = self._clock.now()
        self._standings.held = taken.suspicious and bool(targets)  # without any, nothing would ever clear us
        for one in targets:
            self._standings.add(one)
            slots = schedule.slots(one.key, one.interval, start, self._end)
            for slot in slots:
                self._add(one, slot)
            if missing:
                self._make_good(one, _since(one, schedule.slots(one.key, one.interval, *missing)), now)
            if schedule.neglected(one.last, one.interval, slots, now):
                self._add(one, now, over=CATCH_UP_SECONDS)

    async def _adopt(self, taken: ProbeSlice) -> None:
        """Plan what is left of a slice whose holder died, and make good what he did not store."""
        now = self._clock.now()
        logger.warning("The slice of %s is taken over: its worker is silent", taken, extra={"event": "slice_adopted"})
        self._held.append(taken)
        self.report.adopted += 1
        start, end = slices.span(taken)
        targets = await self._database(watched.of_shard, taken.shard, taken.shards)
        stored = await self._database(recording.stored, start, end)
        for one in targets:
            self._standings.add(one)
            slots = _since(one, schedule.slots(one.key, one.interval, start, end))
            for slot in slots:
                if slot >= now:
                    self._add(one, slot)
            self._make_good(one, [slot for slot in slots if slot < now and (one.key, slot) not in stored], now)

    def _make_good(self, one: Watched, missing: Sequence[datetime], now: datetime) -> None:
        due = schedule.overdue(missing, now)
        self._missed.extend((one, slot) for slot in due.missed)
        if due.take is not None:
            self._add(one, due.take, over=CATCH_UP_SECONDS)

    def _add(self, one: Watched, at: datetime, *, over: float = 0.0) -> None:
        """Plan a check for its own time, or for some time within so many seconds from now."""
        due = at.timestamp()
        if over:
            due = self._clock.time() + schedule.phase_of(one.key, 1).total_seconds() * over
        heapq.heappush(self._plan, (due, next(self._order), one, at, over > 0))

    # ---- Checking ----------------------------------------------------------------------------------------------------

    async def _checking(self) -> None:
        """Start every check at its time, until the end of the slice and of the last check."""
        end = self._end.timestamp()
        while True:
            now = self._clock.time()
            while self._plan and self._plan[0][0] <= now:
                _, _, one, at, made_good = heapq.heappop(self._plan)
                if not made_good and now - at.timestamp() > HELD_UP_SECONDS and not _superseded(one, at, now):
                    # With many others, which would hold each other up if all began at once.
                    self._add(one, at, over=min(now - at.timestamp(), CATCH_UP_SECONDS))
                elif made_good or not _superseded(one, at, now):
                    task = asyncio.create_task(self._check(one, at))
                    self._running.add(task)
                    task.add_done_callback(self._running.discard)
                else:
                    self._missed.append((one, at))
            idle = not self._plan and not self._running
            if idle and (now >= end or not self._standings):
                self._looked_at = math.inf
                return
            wake = min(self._plan[0][0] if self._plan else now + LOOK_EVERY, now + LOOK_EVERY)
            await asyncio.sleep(wake - now)
            woken = self._clock.time()
            if woken - wake > STALL_SECONDS:
                self._stalls.append((wake, woken))
            self._looked_at = woken

    async def _check(self, one: Watched, at: datetime) -> None:
        places = self._free_for_suspects if self._standings.failing(one) else self._free
        async with places:
            started = self._clock.time()
            self.report.lags.append(started - at.timestamp())
            seen = await self._see(one)
        self._results.append(_Waiting(one, at, seen, started, self._clock.time()))
        if len(self._results) > BUFFER:
            self._results.popleft()
            self.report.dropped += 1

    async def _see(self, one: Watched) -> Answer | Look:
        try:
            if isinstance(one.probe, EndpointTarget):
                return await self._asker.ask(one.probe)
            if isinstance(one.probe, DatabaseTarget):
                return await self._looker.look(one.probe, suspect=self._standings.failing(one))
            text = one.fault
        except Exception:  # whatever one target provokes must not end the slice of all
            logger.exception("%s could not be checked", one.key, extra={"event": "probe_failed"})
            text = "could not be checked; Pulsewatch's log says why"
        return Answer(None, text, ours=True) if one.kind == ENDPOINT else Look(failure=text, ours=True)

    # ---- Judging and storing -----------------------------------------------------------------------------------------

    async def _storing(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY)
            await self._judge()
            oldest = self._results[0].ended if self._results else None
            patience = HURRY_SECONDS if self._hurry else BATCH_SECONDS
            waited = oldest is not None and self._clock.time() - oldest >= patience
            if len(self._results) >= BATCH or waited or self._missed:
                await self._store_some()

    async def _store_rest(self) -> None:
        """At the end of the slice; not for ever when the database takes nothing."""
        taken = True
        while self._results or self._missed:
            if not taken and self._clock.now() > self._end + GIVE_UP:
                logger.error(
                    "%d checks could not be stored: the database took nothing for a minute", len(self._results),
                    extra={"event": "checks_lost", "event_type": "health"},
                )  # fmt: skip
                return
            await asyncio.sleep(LOOK_EVERY / 5)
            await self._judge()
            taken = await self._store_some()

    async def _judge(self) -> None:
        """What each new answer comes to; and whether the fault is ours."""
        fresh = [one for one in self._results if one.verdict is None and one.ended <= self._looked_at]
        for waiting in fresh:
            waiting.seen, waiting.verdict = self._verdict(waiting)
            self._hurry |= self._standings.changes(waiting.one, waiting.verdict.status)
            self._standings.note(waiting.one, waiting.ended, waiting.verdict.status)
        if not fresh:
            return
        before = self._standings.held
        failing = self._standings.reconsider(self._clock.time())
        if self._standings.held:
            self._suspend(self._results)
        if self._standings.held != before:
            await self._tell_suspicion(failing)

    def _verdict(self, waiting: _Waiting) -> tuple[Answer | Look, Verdict]:
        seen = waiting.seen
        asleep = stalled(waiting.started, waiting.ended, self._stalls)
        if isinstance(seen, Answer):
            verdict = (
                judge_answer(seen, waiting.one.probe.expected) if waiting.one.probe else Verdict(UNKNOWN, seen.failure)
            )  # type: ignore[union-attr]  # an endpoint's
            seen = replace(seen, body=b"")  # judged; and so many wait while the database is frozen
        else:
            seen, verdict = judge_look(seen, waiting.one.slow_ms)
        if asleep and verdict.status != UNKNOWN:
            return seen, Verdict(UNKNOWN, "Pulsewatch itself stood still while it measured")
        return seen, verdict

    def _suspend(self, waiting: Iterable[_Waiting]) -> None:
        """While we suspect ourselves, a failure of what was well proves nothing."""
        for result in waiting:
            if result.verdict and result.verdict.status == FAILED and self._standings.was_well(result.one):
                result.verdict = Verdict(UNKNOWN, f"nearly all targets failed at once; it {result.verdict.reason}")

    async def _tell_suspicion(self, failing: Sequence[Watched]) -> None:
        now = self._clock.now()
        logger.warning(
            "Nearly all targets fail at once: Pulsewatch suspects its own network"
            if self._standings.held
            else "Targets answer again: Pulsewatch suspects its own network no more",
            extra={"event": "mass_failure", "event_type": "health"},
        )
        try:
            await self._database(standings.tell, self._held, failing, self._standings.held, now)
        except DatabaseError:
            logger.warning("The suspicion could not be stored; the next sign of life does", exc_info=True)

    async def _store_some(self) -> bool:
        async with self._storing_now:
            return await self._store_batch()

    async def _store_batch(self) -> bool:
        """Whether the database took something."""
        judged = list(itertools.islice((w for w in self._results if w.verdict), recording.ROWS_OF_ONE_STATEMENT))
        gone = list(itertools.islice(self._missed, recording.ROWS_OF_ONE_STATEMENT))
        batch = [Result(w.one, w.at, w.seen, w.verdict) for w in judged if w.verdict]
        if not batch and not gone:
            return False
        try:
            flips: list[Flip] = await self._in_writer(recording.store, batch, gone)
        except DatabaseError:
            logger.warning("Checks could not be stored; they are kept and tried again", exc_info=True)
            await self._in_writer(_disconnect)
            await asyncio.sleep(1)
            return False
        self._hurry = False
        taken = set(map(id, judged))
        self._results = deque(w for w in self._results if id(w) not in taken)
        for _ in gone:
            self._missed.popleft()
        self.report.checks += len(batch)
        self.report.missed += len(gone)
        self._standings.flipped(flips)
        if flips := [flip for flip in flips if FAILED in (flip.before, flip.after.status)]:
            try:
                await self._database(standings.notice, flips, self._clock.wall())
            except DatabaseError:
                logger.warning("Alerts could not be settled; the next minute does", exc_info=True)
                await self._in_writer(_disconnect)
        return True

    # ---- Being alive -------------------------------------------------------------------------------------------------

    async def _beating(self) -> None:
        """Give signs of life; and take over what lies there, unless the database has just kept everybody waiting.

        After a freeze all signs are old, this prober's own too, which was sent before it; and so they are when the
        clock was set. So it speaks again at once, and gives the others the time to do the same.
        """
        calm, jumped = False, self._ahead()
        while True:
            asked = time.monotonic()
            try:
                mine = await self._database(self._live, storing=self._stores())
                prompt, ahead = time.monotonic() - asked < slices.BEAT_SECONDS / 2, self._ahead()
                before, calm = calm, prompt and abs(ahead - jumped) < CLOCK_JUMPS
                jumped = ahead
                if len(mine) < len(self._held):
                    # Somebody took us for dead. What is measured is still stored; all else is his.
                    self._plan.clear()
                    self._held = mine
                elif before and calm:
                    for taken in await self._database(slices.adopt_abandoned, self._clock.wall()):
                        await self._adopt(taken)
            except DatabaseError:
                logger.warning("A sign of life could not be stored", exc_info=True)
                await self._in_writer(_disconnect)
                calm = False
                await asyncio.sleep(slices.BEAT_SECONDS / 4)
            if calm:
                await asyncio.sleep(slices.BEAT_SECONDS)

    def _ahead(self) -> float:
        """Seconds by which everybody's clock was set, or the machine was asleep, since the slice began."""
        return (self._clock.wall() - self._clock.now()).total_seconds()

    def _live(self, *, storing: bool) -> list[ProbeSlice]:
        return slices.beat(self._held, self._clock.wall(), suspicious=self._standings.held, storing=storing)

    def _stores(self) -> bool:
        """Whether results do not wait for longer than for a database that was frozen for a moment."""
        return not self._results or self._clock.time() - self._results[0].ended < GIVE_UP.total_seconds()

    async def _database(self, ask: Callable[..., Found], *arguments: Any, **named: Any) -> Found:
        """Ask the database something outside a transaction of checks."""

        def plainly() -> Found:
            if connection.connection is not None and not connection.in_atomic_block:
                transaction.set_autocommit(True)
            return ask(*arguments, **named)

        return await self._in_writer(plainly)

    async def _insistently(self, ask: Callable[[], Found]) -> Found:
        """Ask the database until it answers, or the slice is over: giving up leaves the whole minute to nobody."""
        while True:
            try:
                return await self._database(ask)
            except DatabaseError as error:
                if self._clock.now() > self._end:
                    raise
                logger.warning("The slice waits for the database: %s", error, extra={"event": "slice_waits"})
                await self._in_writer(_disconnect)
                await asyncio.sleep(RETRY_SECONDS)

    async def _in_writer(self, ask: Callable[..., Found], *arguments: Any) -> Found:
        return await asyncio.get_running_loop().run_in_executor(self._writer, lambda: ask(*arguments))

    def _log(self) -> None:
        lags = sorted(self.report.lags)
        logger.info(
            "Checked %d targets, %d checks were missed", self.report.checks, self.report.missed,
            extra={
                "event": "probe_slice", "event_type": "health", "checks": self.report.checks,
                "missed": self.report.missed, "dropped": self.report.dropped, "adopted": self.report.adopted,
                "lag_p99_ms": round(1000 * lags[len(lags) * 99 // 100], 1) if lags else None,
            },
        )  # fmt: skip


def _superseded(one: Watched, at: datetime, now: float) -> bool:
    """Whether a late check has lost its meaning: its time is long gone, or its successor's has come too."""
    late = now - at.timestamp()
    return late > schedule.LATE.total_seconds() or late >= one.interval


def _disconnect() -> None:
    connection.close()  # of the thread that runs this


def _since(one: Watched, slots: Iterable[datetime]) -> list[datetime]:
    """Without the slots before the target was last changed: it may not have been there, or switched off."""
    return [slot for slot in slots if slot > one.changed_at]


def _places() -> int:
    """How many checks may run at once: as many as files may be open, which is raised to what the system allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = 65_536 if hard == resource.RLIM_INFINITY else min(hard, 65_536)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return max(most - FILES_KEPT, 64)
