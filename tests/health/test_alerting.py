"""Alerts about targets are settled by several workers at once, each of whom has looked at another moment."""

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection

from apps.alerts.models import Alert
from apps.health import alerting, watched
from apps.health.models import DatabaseState, EndpointState
from apps.health.watched import Watched
from tests.factories import DatabaseFactory, EndpointFactory

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
KINDS = {
    "endpoint": (EndpointFactory, EndpointState, "_endpoints_down"),
    "database": (DatabaseFactory, DatabaseState, "_databases_down"),
}
pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.engine]


def aside(work: Callable[[], None]) -> threading.Thread:
    """Another worker, with a connection of its own."""

    def run() -> None:
        try:
            work()
        finally:
            connection.close()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


def failed(kind: str) -> Watched:
    """A target that is down."""
    factory, states, _ = KINDS[kind]
    factory()
    (one,) = watched.of_shard(0, 1)
    states.objects.create(pk=one.pk, status="failed", since=NOW, **one.facts)
    return one


def after_read(monkeypatch: pytest.MonkeyPatch, name: str, number: int, then: Callable[[], None]) -> None:
    """Do something right after the worker of this thread has read for that time what is down."""
    read, times, mine = getattr(alerting, name), [], threading.get_ident()

    def reading(*arguments):
        found = list(read(*arguments))
        if threading.get_ident() == mine:
            times.append(1)
            if len(times) == number:
                then()
        return found

    monkeypatch.setattr(alerting, name, reading)


def waits_or_is_done(thread: threading.Thread) -> None:
    """Until it waits for a lock of ours, or has ended."""
    deadline = time.monotonic() + 10
    while thread.is_alive() and time.monotonic() < deadline:
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'")
            if cursor.fetchone()[0]:
                return
        thread.join(0.05)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("read", [1, 2], ids=["before the lock", "under the lock"])
def test_a_target_that_recovers_while_its_failure_is_being_told_leaves_no_alert_open(kind, read, monkeypatch):
    _, states, name = KINDS[kind]
    one = failed(kind)
    threads = []

    def recovers() -> None:
        def recover() -> None:
            states.objects.update(status="healthy", since=NOW + timedelta(seconds=1))
            alerting.settle_targets([one], NOW + timedelta(seconds=1))

        threads.append(aside(recover))
        waits_or_is_done(threads[0])

    after_read(monkeypatch, name, read, recovers)

    alerting.settle_targets([one], NOW)

    threads[0].join(10)
    assert not threads[0].is_alive()
    assert not Alert.objects.open().exists()


def test_a_minute_in_which_all_stays_as_it_is_locks_nothing(django_assert_num_queries):
    failed("endpoint")
    alerting.settle_all(NOW)
    assert Alert.objects.open().count() == 1
    with django_assert_num_queries(9) as queries:
        alerting.settle_all(NOW + timedelta(minutes=1))
    assert not any("FOR UPDATE" in query["sql"] for query in queries.captured_queries)
