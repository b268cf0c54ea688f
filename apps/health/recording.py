"""Stores what the prober found: one statement for the checks of a batch, one for what they make of their targets.

Everything of a batch is one transaction: a worker that dies loses the batch whole, and its checks are made again.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import IntegrityError, connection, models, transaction

from apps.health.models import MAX_ERROR, DatabaseCheck, DatabaseState, EndpointCheck, EndpointState
from apps.health.rules.checks import UNKNOWN, Answer, Course, Look, Verdict, advance, moving_average
from apps.health.rules.schedule import follows
from apps.health.watched import DATABASE, ENDPOINT, Watched

ROWS_OF_ONE_STATEMENT = 2_000  # below every server's default max_allowed_packet, and SQLite's number of variables
MISSED = "Pulsewatch did not check in time"


@dataclass(frozen=True, slots=True)
class Result:
    """One check: of whom, for which time, what was seen and what it comes to."""

    watched: Watched
    at: datetime
    seen: Answer | Look
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Flip:
    """A target whose status has changed."""

    watched: Watched
    before: str
    after: Course


def store(results: Sequence[Result], missed: Sequence[tuple[Watched, datetime]] = ()) -> list[Flip]:
    """Store a batch; what flipped by it. Checks that are there already stay as they are."""
    if connection.get_autocommit():
        transaction.set_autocommit(False)  # and stays so: begin and end of a transaction would be statements too
    try:
        return _store(results, missed, careful=False)
    except IntegrityError:
        # Some are there already, or a target was removed meanwhile. The slower way leaves those out.
        connection.rollback()
        return _store(results, missed, careful=True)


def stored(start: datetime, end: datetime) -> set[tuple[str, datetime]]:
    """Key and time of every check that is stored for a time from `start` to before `end`."""
    found: set[tuple[str, datetime]] = set()
    for book in BOOKS.values():
        rows = book.check_model.objects.filter(at__gte=start, at__lt=end).values_list(f"{book.column}_id", "at")
        found |= {(f"{book.kind}:{pk}", at) for pk, at in rows.order_by()}
    return found


def discount(failing: Iterable[Watched], now: datetime) -> None:
    """Forget the newest failures of these: we suspect ourselves, so they prove nothing."""
    for book in BOOKS.values():
        pks = [one.pk for one in failing if one.kind == book.kind]
        for start in range(0, len(pks), ROWS_OF_ONE_STATEMENT):
            book.state.objects.filter(pk__in=pks[start : start + ROWS_OF_ONE_STATEMENT]).update(
                status=UNKNOWN, since=now, consecutive_failures=0, consecutive_successes=0
            )


def _store(results: Sequence[Result], missed: Sequence[tuple[Watched, datetime]], *, careful: bool) -> list[Flip]:
    flips: list[Flip] = []
    with transaction.atomic(savepoint=False):
        for book in BOOKS.values():
            own = [result for result in results if result.watched.kind == book.kind]
            gone = [(watched, at) for watched, at in missed if watched.kind == book.kind]
            if own or gone:
                flips += _keep(book, own, gone, careful=careful)
    if not connection.in_atomic_block:
        transaction.commit()
    return flips


def _keep(
    book: "_Book", results: Sequence[Result], missed: Sequence[tuple[Watched, datetime]], *, careful: bool
) -> list[Flip]:
    if careful:
        there = _existing(book, {result.watched.pk for result in results} | {watched.pk for watched, _ in missed})
        results = [result for result in results if result.watched.pk in there]
        missed = [(watched, at) for watched, at in missed if watched.pk in there]
    rows = [book.check(result) for result in results]
    rows += [book.missed(watched, at) for watched, at in missed]
    states, flips = _courses(book, results)
    book.check_model.objects.bulk_create(rows, batch_size=ROWS_OF_ONE_STATEMENT, ignore_conflicts=careful)
    if states:
        targets = {"unique_fields": [book.column]} if connection.features.supports_update_conflicts_with_target else {}
        book.state.objects.bulk_create(
            states,
            batch_size=ROWS_OF_ONE_STATEMENT,
            update_conflicts=True,
            update_fields=book.columns,
            **targets,
        )
    return flips


def _existing(book: "_Book", pks: Collection[int]) -> set[int]:
    target = book.state._meta.get_field(book.column).related_model
    return set(target.objects.filter(pk__in=pks).values_list("pk", flat=True))


def _courses(book: "_Book", results: Sequence[Result]) -> tuple[list[models.Model], list[Flip]]:
    """The new states of the targets, each from its state as it is stored now: another slice may have its last check."""
    pks = sorted({result.watched.pk for result in results})
    known = {
        row[0]: row[1:]
        for row in book.state.objects.select_for_update().filter(pk__in=pks).order_by("pk").values_list(
            "pk", "status", "since", "consecutive_failures", "consecutive_successes", book.last, book.carried
        )
    }  # fmt: skip
    states: dict[int, models.Model] = {}
    before: dict[int, str] = {}
    courses: dict[int, tuple[Course, Watched]] = {}
    for result in sorted(results, key=lambda result: result.at):
        watched = result.watched
        status, since, failures, successes, last, carried = known.get(watched.pk, (UNKNOWN, None, 0, 0, None, None))
        if not follows(result.at, last):
            continue
        course = advance(
            Course(status, since, failures, successes),
            result.verdict.status,
            result.at,
            down_after=watched.down_after,
            up_after=watched.up_after,
        )
        row = book.make(result, course, carried)
        known[watched.pk] = (
            *(course.status, course.since, course.failures, course.successes, result.at),
            getattr(row, book.carried),
        )
        before.setdefault(watched.pk, status)
        states[watched.pk], courses[watched.pk] = row, (course, watched)
    flips = [
        Flip(watched, before[pk], course) for pk, (course, watched) in courses.items() if course.status != before[pk]
    ]
    return [states[pk] for pk in sorted(states)], flips


# ---- The two kinds ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Book:
    """How the checks and states of one kind of target are written."""

    kind: str
    check_model: Any
    state: Any
    column: str  # names the target in both
    last: str  # the state's column with the time of the newest check
    carried: str  # the state's column that outlives a check which does not measure it
    columns: list[str]  # of the state that a check may change
    check: Callable[[Result], models.Model]
    missed: Callable[[Watched, datetime], models.Model]
    make: Callable[[Result, Course, Any], models.Model]


def _endpoint_check(result: Result) -> EndpointCheck:
    answer = result.seen
    assert isinstance(answer, Answer)
    return EndpointCheck(
        endpoint_id=result.watched.pk,
        at=result.at,
        status=result.verdict.status,
        response_time_ms=answer.response_ms,
        http_status=answer.status,
        error=result.verdict.reason[:MAX_ERROR],
    )


def _endpoint_state(result: Result, course: Course, expires: datetime | None) -> EndpointState:
    answer = result.seen
    assert isinstance(answer, Answer)
    return EndpointState(
        endpoint_id=result.watched.pk,
        **result.watched.facts,
        **_course(course),
        error_message=result.verdict.reason[:MAX_ERROR],
        actual_status=answer.status,
        response_time=answer.response_ms,
        last_checked=result.at,
        tls_expires_at=answer.expires_at or expires,
    )


def _database_check(result: Result) -> DatabaseCheck:
    look = result.seen
    assert isinstance(look, Look)
    return DatabaseCheck(
        database_id=result.watched.pk,
        at=result.at,
        status=result.verdict.status,
        connection_status=look.connection,
        query_status=look.query,
        response_time_ms=look.took_ms,
        connect_ms=look.connect_ms,
        query_ms=look.query_ms,
        connections_used=look.used,
        connections_max=look.limit,
        error=result.verdict.reason[:MAX_ERROR],
    )


def _database_state(result: Result, course: Course, average: float | None) -> DatabaseState:
    look = result.seen
    assert isinstance(look, Look)
    return DatabaseState(
        database_id=result.watched.pk,
        **result.watched.facts,
        **_course(course),
        error_message=result.verdict.reason[:MAX_ERROR],
        connection_status=look.connection,
        query_test_status=look.query,
        average_query_time=moving_average(average, look.query_ms),
        connect_ms=look.connect_ms,
        query_ms=look.query_ms,
        connection_pool_size=look.used,
        connections_max=look.limit,
        last_tested=result.at,
    )


def _course(course: Course) -> dict[str, Any]:
    return {
        "status": course.status,
        "since": course.since,
        "consecutive_failures": course.failures,
        "consecutive_successes": course.successes,
    }


def _all_but(model: Any, key: str) -> list[str]:
    return [column.name for column in model._meta.concrete_fields if column.name != key]


BOOKS = {
    ENDPOINT: _Book(
        kind=ENDPOINT,
        check_model=EndpointCheck,
        state=EndpointState,
        column="endpoint",
        last="last_checked",
        carried="tls_expires_at",
        columns=_all_but(EndpointState, "endpoint"),
        check=_endpoint_check,
        missed=lambda watched, at: EndpointCheck(endpoint_id=watched.pk, at=at, status=UNKNOWN, error=MISSED),
        make=_endpoint_state,
    ),
    DATABASE: _Book(
        kind=DATABASE,
        check_model=DatabaseCheck,
        state=DatabaseState,
        column="database",
        last="last_tested",
        carried="average_query_time",
        columns=_all_but(DatabaseState, "database"),
        check=_database_check,
        missed=lambda watched, at: DatabaseCheck(database_id=watched.pk, at=at, status=UNKNOWN, error=MISSED),
        make=_database_state,
    ),
}
