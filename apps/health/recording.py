"""Stores what the prober found: one statement for the checks of a batch, one for what they make of their targets.

Everything of a batch is one transaction: a worker that dies loses the batch whole, and its checks are made again.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import IntegrityError, connection, transaction
from django.db.models.constants import OnConflict

from apps.health.models import MAX_ERROR, DatabaseCheck, DatabaseState, EndpointCheck, EndpointState
from apps.health.rules.checks import NOT_TESTED, UNKNOWN, Answer, Course, Look, Verdict, advance, moving_average
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
    _insert(book.check_model, rows, OnConflict.IGNORE if careful else None)
    _insert(book.state, states, OnConflict.UPDATE)
    return flips


def _insert(model: Any, rows: Sequence[dict[str, Any]], on_conflict: OnConflict | None) -> None:
    """Rows of plain values in one statement, by the names of their columns.

    bulk_create does the same at twice the CPU, for it makes an object of each row and asks each field of it what its
    value is. Here all rows have the same columns, and of their values only times are written differently by databases.
    """
    if not rows:
        return
    operations, quote = connection.ops, connection.ops.quote_name
    names, key = list(rows[0]), model._meta.pk.column
    others, unique = [name for name in names if name != key], [key]
    fields = [column for column in model._meta.concrete_fields if column.column in names]
    head = operations.insert_statement(on_conflict=on_conflict)
    tail = operations.on_conflict_suffix_sql(fields, on_conflict, others, unique)
    one = f"({', '.join(['%s'] * len(names))})"
    written: dict[datetime, Any] = {}

    def plain(value: Any) -> Any:
        if type(value) is not datetime:
            return value
        if value not in written:
            written[value] = operations.adapt_datetimefield_value(value)
        return written[value]

    columns = ", ".join(map(quote, names))
    with connection.cursor() as cursor:
        for start in range(0, len(rows), ROWS_OF_ONE_STATEMENT):
            part = rows[start : start + ROWS_OF_ONE_STATEMENT]
            cursor.execute(
                f"{head} {quote(model._meta.db_table)} ({columns}) VALUES {', '.join([one] * len(part))} {tail}",
                [plain(row[name]) for row in part for name in names],
            )


def _existing(book: "_Book", pks: Collection[int]) -> set[int]:
    target = book.state._meta.get_field(book.column).related_model
    return set(target.objects.filter(pk__in=pks).values_list("pk", flat=True))


def _courses(book: "_Book", results: Sequence[Result]) -> tuple[list[dict[str, Any]], list[Flip]]:
    """The new states of the targets, each from its state as it is stored now: another slice may have its last check."""
    pks = sorted({result.watched.pk for result in results})
    known = {
        row[0]: row[1:]
        for row in book.state.objects.select_for_update().filter(pk__in=pks).order_by("pk").values_list(
            "pk", "status", "since", "consecutive_failures", "consecutive_successes", book.last, book.carried
        )
    }  # fmt: skip
    states: dict[int, dict[str, Any]] = {}
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
            row[book.carried],
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
    check: Callable[[Result], dict[str, Any]]
    missed: Callable[[Watched, datetime], dict[str, Any]]
    make: Callable[[Result, Course, Any], dict[str, Any]]


def _endpoint_check(result: Result) -> dict[str, Any]:
    answer = result.seen
    assert isinstance(answer, Answer)
    return {
        "endpoint_id": result.watched.pk,
        "at": result.at,
        "status": result.verdict.status,
        "response_time_ms": answer.response_ms,
        "http_status": answer.status,
        "error": result.verdict.reason[:MAX_ERROR],
    }


def _endpoint_state(result: Result, course: Course, expires: datetime | None) -> dict[str, Any]:
    answer = result.seen
    assert isinstance(answer, Answer)
    return dict(
        endpoint_id=result.watched.pk,
        **result.watched.facts,
        **_course(course),
        error_message=result.verdict.reason[:MAX_ERROR],
        actual_status=answer.status,
        response_time=answer.response_ms,
        last_checked=result.at,
        tls_expires_at=answer.expires_at or (None if _without_tls(result) else expires),
    )


def _without_tls(result: Result) -> bool:
    """Whether an answer came over a connection that has no certificate: new, and without an end of one."""
    probe, answer = result.watched.probe, result.seen
    return isinstance(answer, Answer) and answer.status is not None and not getattr(probe, "keep_alive", True)


def _database_check(result: Result) -> dict[str, Any]:
    look = result.seen
    assert isinstance(look, Look)
    return {
        "database_id": result.watched.pk,
        "at": result.at,
        "status": result.verdict.status,
        "connection_status": look.connection,
        "query_status": look.query,
        "response_time_ms": look.took_ms,
        "connect_ms": look.connect_ms,
        "query_ms": look.query_ms,
        "connections_used": look.used,
        "connections_max": look.limit,
        "error": result.verdict.reason[:MAX_ERROR],
    }


def _database_state(result: Result, course: Course, average: float | None) -> dict[str, Any]:
    look = result.seen
    assert isinstance(look, Look)
    return dict(
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


def _missed(model: Any, column: str) -> Callable[[Watched, datetime], dict[str, Any]]:
    """What is stored for a check that was not made: the same columns, so that one statement takes both."""
    names = [field.column for field in model._meta.concrete_fields if not field.primary_key]
    empty = dict.fromkeys(names)
    if "query_status" in empty:
        empty["query_status"] = NOT_TESTED
    return lambda watched, at: empty | {f"{column}_id": watched.pk, "at": at, "status": UNKNOWN, "error": MISSED}


BOOKS = {
    ENDPOINT: _Book(
        kind=ENDPOINT,
        check_model=EndpointCheck,
        state=EndpointState,
        column="endpoint",
        last="last_checked",
        carried="tls_expires_at",
        check=_endpoint_check,
        missed=_missed(EndpointCheck, "endpoint"),
        make=_endpoint_state,
    ),
    DATABASE: _Book(
        kind=DATABASE,
        check_model=DatabaseCheck,
        state=DatabaseState,
        column="database",
        last="last_tested",
        carried="average_query_time",
        check=_database_check,
        missed=_missed(DatabaseCheck, "database"),
        make=_database_state,
    ),
}
