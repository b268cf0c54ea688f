"""What a shard has to check, read from the inventory in a few queries, with the secrets it takes unsealed."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from yarl import URL

from apps.core.errors import PulsewatchError
from apps.health.models import DatabaseState, EndpointState
from apps.health.probers import database as databases
from apps.health.probers import endpoint as endpoints
from apps.health.rules.checks import UNKNOWN, Expectation
from apps.health.rules.schedule import shard_of
from apps.inventory.models import Database, Endpoint, Workload
from apps.inventory.rules import read_json_condition, read_statuses
from apps.inventory.runner import address_of, headers_of

ENDPOINT, DATABASE = "endpoint", "database"


@dataclass(slots=True)
class Watched:
    """One target: what to ask it, how often, and how it fared when it was loaded."""

    kind: str
    pk: int
    interval: int  # seconds
    down_after: int
    up_after: int
    slow_ms: int
    changed_at: datetime
    probe: endpoints.Target | databases.Target | None  # None: it cannot be asked, see `fault`
    fault: str = ""
    facts: dict[str, Any] = field(default_factory=dict)  # columns of its state that repeat the inventory
    last: datetime | None = None
    status: str = UNKNOWN
    since: datetime | None = None
    failing: bool = False

    @property
    def key(self) -> str:
        return f"{self.kind}:{self.pk}"


def of_shard(shard: int, shards: int) -> list[Watched]:
    """Every target of a shard."""
    return [*_endpoints(shard, shards), *_databases(shard, shards)]


_ENDPOINT_COLUMNS = (
    *("pk", "interval_seconds", "failures_before_down", "successes_before_up", "slow_ms", "updated_at"),
    *("workload__base_url", "workload__environment", "endpoint_path", "http_method", "expected_status"),
    *("body_contains", "body_json", "headers_sealed", "request_body", "timeout_seconds"),
    *("follow_redirects", "verify_tls", "keep_alive"),
)


def _endpoints(shard: int, shards: int) -> Iterator[Watched]:
    columns = ("status", "since", "last_checked", "consecutive_failures")
    states = {row[0]: row[1:] for row in EndpointState.objects.values_list("pk", *columns)}
    for row in Endpoint.objects.watched().values_list(*_ENDPOINT_COLUMNS).order_by():
        pk, interval, down_after, up_after, slow_ms, changed_at, base, environment, path, method, statuses, *rest = row
        if shard_of(f"{ENDPOINT}:{pk}", shards) != shard:
            continue
        one = Watched(ENDPOINT, pk, interval, down_after, up_after, slow_ms, changed_at, None)
        one.facts = {
            "environment": environment,
            "endpoint_path": path,
            "http_method": method,
            "expected_status": statuses,
        }
        try:
            one.probe = _asked(pk, base, path, method, Expectation(read_statuses(statuses), slow_ms), rest)
        except (PulsewatchError, ValueError) as error:
            one.fault = str(error)
        _place(one, states.get(pk))
        yield one


def _asked(pk: int, base: str, path: str, method: str, expected: Expectation, rest: list[Any]) -> endpoints.Target:
    contains, condition, sealed, body, timeout, follow, verify, keep_alive = rest
    if contains or condition:
        read = read_json_condition(condition) if condition else None
        expected = Expectation(expected.statuses, expected.slow_ms, contains, read)
    return endpoints.Target(
        url=URL(base.rstrip("/") + path),
        expected=expected,
        method=method,
        headers=headers_of(Endpoint(pk=pk, headers_sealed=sealed, workload=Workload(base_url=base))) if sealed else {},
        body=body.encode() if body else None,
        timeout=timeout,
        follow=follow,
        verify=verify,
        keep_alive=keep_alive,
    )


def endpoint_target(row: Endpoint) -> endpoints.Target:
    """How one endpoint is asked. Raises PulsewatchError or ValueError when it cannot be."""
    expected = Expectation(read_statuses(row.expected_status), row.slow_ms)
    rest = [getattr(row, name) for name in _ENDPOINT_COLUMNS[_ENDPOINT_COLUMNS.index("body_contains") :]]
    return _asked(row.pk, row.workload.base_url, row.endpoint_path, row.http_method, expected, rest)


def _databases(shard: int, shards: int) -> Iterator[Watched]:
    columns = ("status", "since", "last_tested", "consecutive_failures")
    states = {row[0]: row[1:] for row in DatabaseState.objects.values_list("pk", *columns)}
    for row in Database.objects.watched():
        if shard_of(f"{DATABASE}:{row.pk}", shards) != shard:
            continue
        one = Watched(
            *(DATABASE, row.pk, row.interval_seconds, row.failures_before_down, row.successes_before_up),
            *(row.slow_query_ms, row.updated_at, None),
        )
        one.facts = {
            "environment": row.environment,
            "connection_name": row.name,
            "host": row.host,
            "database_name": row.database_name,
        }
        try:
            one.probe = databases.Target(address_of(row), row.timeout_seconds)
        except PulsewatchError as error:
            one.fault = str(error)
        _place(one, states.get(row.pk))
        yield one


def _place(one: Watched, state: tuple[Any, ...] | None) -> None:
    if state:
        one.status, one.since, one.last, failures = state
        one.failing = bool(failures) or one.status == UNKNOWN
