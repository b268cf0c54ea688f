"""Checks at once, for whoever waits for their answers. Nothing of them is stored with the checks of the prober."""

import asyncio
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime

from django.conf import settings

from apps.core import audit
from apps.core.errors import Conflict, Invalid, PulsewatchError, Transient
from apps.core.reach import Place, places_of
from apps.core.threads import run
from apps.health import watched
from apps.health.probers.database import Looker
from apps.health.probers.database import Target as DatabaseTarget
from apps.health.probers.endpoint import Asker
from apps.health.probers.endpoint import Target as EndpointTarget
from apps.health.rules.checks import UNKNOWN, Answer, Look, Verdict, judge_answer, judge_look
from apps.inventory.models import Database, Endpoint
from apps.inventory.runner import address_of
from apps.inventory.services import subject

PATIENCE = 15.0  # seconds at most: somebody sits before the page, and a thread of the web server waits with him
AT_ONCE = 4  # such checks in one web process: a quarter of its threads, with the others it goes on answering
OWN_PATIENCE = 1.0  # seconds for looking our own name up, before the check begins
RESOLVERS = 8  # threads of one check that look names up

_free = threading.BoundedSemaphore(AT_ONCE)


@dataclass(frozen=True, slots=True)
class Trial:
    """What came of it. Times in ms; None: not measured."""

    status: str
    reason: str
    response_ms: float | None = None
    http_status: int | None = None
    certificate_expires_at: datetime | None = None
    connection_status: str | None = None
    query_status: str | None = None
    connections: int | None = None
    connections_max: int | None = None


def try_endpoint(*, endpoint: Endpoint, actor: audit.Actor) -> Trial:
    """Ask an endpoint as the prober does.

    Raises Conflict when it has no address, Invalid when it cannot be asked, Transient when too many checks run.
    """
    if not endpoint.url:
        raise Conflict(f"{endpoint.workload} has no base URL, so there is nothing to ask: enter it first.")
    try:
        target = watched.endpoint_target(endpoint)
    except ValueError as error:
        raise Invalid(f"It cannot be asked: {error}") from error
    with _turn():
        audit.record(actor=actor, action="endpoint.try", subject=subject(endpoint))
        [answer] = run(
            _ask(replace(target, timeout=min(target.timeout, PATIENCE), keep_alive=False)), resolvers=RESOLVERS
        )
    verdict = judge_answer(answer, target.expected)
    return Trial(
        status=verdict.status,
        reason=verdict.reason,
        response_ms=answer.response_ms,
        http_status=answer.status,
        certificate_expires_at=answer.expires_at,
    )


def ask_all(endpoints: Sequence[Endpoint], *, patience: float) -> dict[int, Verdict]:
    """Ask several endpoints at the same time, each for at most so many seconds; the verdict on each by primary key."""
    found: dict[int, Verdict] = {}
    wanted: dict[int, EndpointTarget] = {}
    for row in endpoints:
        try:
            target = watched.endpoint_target(row)
        except (PulsewatchError, ValueError) as error:
            found[row.pk] = Verdict(UNKNOWN, str(error))
        else:
            wanted[row.pk] = replace(target, timeout=min(target.timeout, patience), keep_alive=False)
    answers = run(_ask(*wanted.values()), resolvers=RESOLVERS) if wanted else []
    for (pk, target), answer in zip(wanted.items(), answers, strict=True):
        found[pk] = judge_answer(answer, target.expected)
    return found


def try_database(*, database: Database, actor: audit.Actor) -> Trial:
    """Connect to a database and ask it something small, as the prober does.

    Raises Invalid when its URL is unusable, Transient when too many checks run.
    """
    target = DatabaseTarget(address_of(database), min(database.timeout_seconds, PATIENCE))
    with _turn():
        audit.record(actor=actor, action="database.try", subject=f"database:{database.name}")
        look, verdict = judge_look(run(_look(target), resolvers=RESOLVERS), database.slow_query_ms)
    return Trial(
        status=verdict.status,
        reason=verdict.reason,
        response_ms=look.took_ms,
        connection_status=look.connection,
        query_status=look.query,
        connections=look.used,
        connections_max=look.limit,
    )


@contextmanager
def _turn() -> Iterator[None]:
    """Not more at once than the web process can spare threads for."""
    if not _free.acquire(blocking=False):
        raise Transient(
            f"{AT_ONCE} such checks run at this moment, and no more are made at once: try again in a few seconds."
        )
    try:
        yield
    finally:
        _free.release()


async def _own_places(patience: float) -> frozenset[Place]:
    """Where we are ourselves; nowhere when our own name cannot be looked up in time."""
    try:
        async with asyncio.timeout(patience):
            return await asyncio.get_running_loop().run_in_executor(None, places_of, settings.SELF_URL)
    except TimeoutError:
        return frozenset()


async def _ask(*asked: EndpointTarget) -> list[Answer]:
    always = await _own_places(OWN_PATIENCE)
    async with Asker(allow_loopback=settings.PROBE_ALLOW_LOOPBACK, always=always) as asker:
        return await asyncio.gather(*map(asker.ask, asked))


async def _look(target: DatabaseTarget) -> Look:
    looker = Looker()
    try:
        return await looker.look(target)
    finally:
        looker.close()
