"""Deployments through the API on MariaDB: how fast they begin, and how fast pages of a million are read."""

import itertools
import json
import random
import statistics
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from functools import partial
from urllib.parse import urlencode

from bench.measure import Report, interleaved
from bench.peers.models import Deployed
from bench.serving import posts_per_second
from tests.serving import Served, served

# A creation takes its workload's change lock, so each goes to another workload.
WORKLOADS = 30_000
ROOM = 4_000  # of them for one run: more than it can make use of
BODY = {
    "service": "bench-@",
    "environment": "production",
    "version": "v1.2.3",
    "commit_sha": "a1b2c3d4e5f60718293a4b5c6d7e8f9012345678",
    "commit_message": "Count every attempt",
    "triggered_by": "octocat",
    "github_run_id": "7123456789",
}


def creations(report: Report, token: str) -> None:
    """Deployments of distinct workloads against rows of a bare endpoint: one insert, in one transaction."""
    _prepare()
    body, runs = json.dumps(BODY), itertools.count()
    with ExitStack() as stack:
        ours = stack.enter_context(served(API_RATE_LIMIT="10000000"))
        contenders = {
            "ours": lambda: posts_per_second(_url(ours), body, token=token, first=next(runs) * ROOM),
            **{
                name: partial(posts_per_second, _url(_peer(stack, module)), body, token=token)
                for name, module in (("bare", "bench.peers.settings"), ("barest", "bench.peers.bare_settings"))
            },
        }
        speed = interleaved(contenders)
    report.figure("deployments created", speed["ours"], "/s")
    report.figure("rows inserted by a bare django-ninja endpoint in an ordinary project", speed["bare"], "/s")
    report.figure("the same in a project without any middleware", speed["barest"], "/s")
    report.ratio("creating a deployment ÷ a bare endpoint's insert", speed["ours"] / speed["bare"], at_least=0.3)
    report.figure("the same against the one without middleware", speed["ours"] / speed["barest"] * 100, "%")


def _peer(stack: ExitStack, module: str) -> Served:
    return stack.enter_context(served("bench.peers.wsgi", path="/", DJANGO_SETTINGS_MODULE=module))


def _url(server: Served) -> str:
    return f"{server.base}/api/v1/deployments"


def _prepare() -> None:
    """The peers' table, and the workloads."""
    from django.db import connection

    from apps.core.choices import Environment
    from apps.inventory.models import Service, Workload

    with connection.schema_editor() as editor:
        editor.create_model(Deployed)
    Service.objects.bulk_create(
        (Service(slug=f"bench-{number}", name=f"Bench {number}") for number in range(WORKLOADS)), batch_size=5000
    )
    Workload.objects.bulk_create(
        (
            Workload(service=service, environment=Environment.PRODUCTION, base_url="https://app.example.com")
            for service in Service.objects.filter(slug__startswith="bench-")
        ),
        batch_size=5000,
    )


# A page may be filtered by any of these together: 25,920 combinations.
FILTERS: dict[str, tuple[str, ...]] = {
    "service": ("history-0", "history-7", "history-390"),
    "environment": ("staging",),
    "status": ("completed", "failed", "queued", "in_progress"),
    "kind": ("deployment", "rollback"),
    "version": ("v3.44.1",),
    "commit_sha": ("356a192b7913b04c54574d18c28d46e6395428ab",),  # of the first row
    "triggered_by": ("automated", "person-3"),
    "archived": ("true", "false"),
    "since": ("-600",),  # days from now
    "until": ("-60", "-400"),
}
PAGES = 2_000  # that are asked for; the same ones every time
MILLISECONDS, ROWS = 50, 1_000


def pages(report: Report, token: str, *, deployments: int) -> None:
    """Pages of fifty: the 95th percentile of their time, and the rows the database reads for any of them."""
    from django.db import connection

    from bench import history

    now = datetime.now(UTC)
    history.fill(now, rows=deployments)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE TABLE deployments")
    seconds: list[float] = []
    rows: list[tuple[int, str]] = []
    with served(API_RATE_LIMIT="0", WEB_CONCURRENCY="1") as web:
        for query in ("", *_queries(now)):  # the first one opens the connections
            before = _rows_read()
            reply = web.get(f"/api/v1/deployments?limit=50&{query}", Authorization=f"Bearer {token}")
            rows.append((_rows_read() - before, query))
            seconds.append(reply.seconds)
            if reply.status != 200:
                raise RuntimeError(f"{query} was answered with {reply.status}: {reply.body!r}")
    name = f"page of 50 of {deployments:,} deployments, {PAGES:,} combinations of filters"
    report.figure(f"{name}: median", statistics.median(seconds[1:]) * 1000, "ms")
    report.ratio(
        f"{name}: 95th percentile in ms", statistics.quantiles(seconds[1:], n=20)[-1] * 1000, at_most=MILLISECONDS
    )
    most, query = max(rows[1:])
    report.ratio(f"{name}: most rows read for one", most, at_most=ROWS)
    print(f"     it was {query or 'the one without filters'}", flush=True)


def _queries(now: datetime) -> Iterator[str]:
    every = [
        dict(zip(names, values, strict=True))
        for number in range(len(FILTERS) + 1)
        for names in itertools.combinations(FILTERS, number)
        for values in itertools.product(*(FILTERS[name] for name in names))
    ]
    for given in random.Random(4).sample(every, PAGES):
        for name in {"since", "until"} & set(given):
            given[name] = (now + timedelta(days=int(given[name]))).isoformat(timespec="seconds")
        yield urlencode(given)


def _rows_read() -> int:
    """Rows the server has read so far, by any way and for anybody."""
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("SHOW GLOBAL STATUS LIKE 'Handler_read%'")
        return sum(int(value) for name, value in cursor.fetchall() if name != "Handler_read_rnd_deleted")
