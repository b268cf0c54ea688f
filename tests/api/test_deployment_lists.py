"""Lists of deployments read few rows, whatever they are filtered by."""

import itertools
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode

import pytest
from django.db import connection

from apps.api.v1.deployments import INDEXES
from apps.core import ids, inserts
from apps.deployments.models import Deployment
from tests.api.conftest import rows_read
from tests.factories import ServiceFactory, UserFactory, WorkloadFactory

pytestmark = pytest.mark.django_db(transaction=True)  # statistics are gathered of what was committed
ROWS = 12_000
START = datetime.now(UTC) - timedelta(days=ROWS / 32)  # 32 a day
COMMIT = "a1b2c3d4e5f60718293a4b5c6d7e8f9012345678"


@pytest.fixture
def many() -> None:
    """A year of them, one every 45 minutes: of three services in three environments; few failed or are rollbacks."""
    workloads = [
        WorkloadFactory(service=service, environment=environment)
        for service in (ServiceFactory(slug=slug) for slug in ("shop", "mail", "maps"))
        for environment in ("production", "staging", "development")
    ]
    inserts.insert(_row(number, workloads[number % 9]) for number in range(ROWS))
    undone = Deployment.objects.filter(status="failed").earliest("id")
    Deployment.objects.filter(kind="deployment", id__gt=undone.pk, instances_deployed=2).update(
        kind="rollback", status="rolled_back", undoes=undone, rollback_reason="slow"
    )
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE TABLE deployments PERSISTENT FOR ALL")


def _row(number: int, workload) -> Deployment:
    at = START + timedelta(minutes=45 * number)
    return Deployment(
        id=ids.timestamped("deploy", at),
        service=workload.service,
        environment=workload.environment,
        workload=workload,
        version=f"v1.{number // 50}.{number % 50}",
        status="failed" if number % 31 == 0 else "completed",
        triggered_by=("ana", "ben", "automated")[number % 3],
        started_at=at,
        completed_at=at + timedelta(minutes=4),
        open_until=at + timedelta(hours=1),
        created_at=at,
        commit_sha=f"{number:040x}",
        commit_message="m",
        deployment_platform="webhook",
        archived=at < datetime.now(UTC) - timedelta(days=90),
        instances_deployed=2 if number % 101 == 0 else 1,
    )


def _day(number: int) -> str:
    return (START + timedelta(days=number)).strftime("%Y-%m-%dT00:00:00Z")


FILTERS = {
    "service": ("shop",),
    "environment": ("staging",),
    "status": ("completed", "failed", "queued"),
    "kind": ("rollback", "deployment"),
    "version": ("v1.7.3",),
    "commit_sha": (f"{7:040x}",),
    "triggered_by": ("ana",),
    "archived": ("true", "false"),
    "since": (_day(200),),
    "until": (_day(230),),
}


# The same list in the console, which shows the last 90 days unless it is asked for more.
FILTERS_OF_THE_CONSOLE = (
    *("", "environment__exact=staging", "status__exact=failed", "status__exact=queued", "age=archived", "p=3"),
    *("service__id__exact=2&environment__exact=staging&status__exact=failed", "age=archived&status__exact=failed"),
    *("age=all&status__exact=queued", "q=v1.7.3", f"q={7:040x}&age=all", "q=nobody&age=all"),
)


def test_a_page_of_fifty_reads_at_most_a_thousand_rows_whatever_it_is_filtered_by(api, many, client):
    some = [*_combinations(2), *random.Random(4).sample(list(_combinations(5)), 60)]
    deep = api.get("/deployments?limit=200").json()["next"]
    read = {}
    for query in (*some, *({**given, "cursor": deep} for given in some[::4])):
        before = rows_read()
        answer = api.get(f"/deployments?limit=50&{urlencode(query)}")
        read[urlencode(query)] = rows_read() - before
        assert answer.status_code == 200, answer.content
    client.force_login(UserFactory(is_superuser=True))
    for filters in FILTERS_OF_THE_CONSOLE:
        before = rows_read()
        answer = client.get(f"/admin/deployments/deployment/?{filters}")
        read[filters] = rows_read() - before
        assert answer.status_code == 200
    assert {query: count for query, count in read.items() if count > 1000} == {}

    # Pages may be short; together they are all there is.
    for query in (
        {"triggered_by": "ana", "status": "failed"},
        {"service": "shop", "kind": "rollback", "archived": "true"},
        {"environment": "staging", "archived": "false"},
        {"kind": "deployment", "status": "failed", "since": _day(100), "until": _day(230)},
        {"service": "shop", "environment": "production", "triggered_by": "ana", "kind": "rollback"},
    ):
        wanted = Deployment.objects.newest_first()
        for name, value in query.items():
            lookup = {"service": "service__slug", "since": "created_at__gte", "until": "created_at__lt"}.get(name, name)
            wanted = wanted.filter(**{lookup: {"true": True, "false": False}.get(value, value)})
        assert (query, list(_follow(api, query))) == (query, list(wanted.values_list("pk", flat=True)))
        assert wanted.exists(), query


def test_nothing_is_archived_when_nothing_is(api):
    for answer in ("true", "false"):
        assert api.get(f"/deployments?archived={answer}").json() == {"items": [], "next": None}


def _follow(api, query: dict[str, str]) -> Iterator[str]:
    """The identifiers on all pages."""
    cursor: str | None = ""
    while cursor is not None:
        asked = {**query, "limit": 200, **({"cursor": cursor} if cursor else {})}
        reply = api.get(f"/deployments?{urlencode(asked)}").json()
        yield from (row["id"] for row in reply["items"])
        cursor = reply["next"]


def test_each_way_to_search_is_an_index_of_the_table():
    indexed = {tuple(index.fields) for index in Deployment._meta.indexes}
    assert {tuple(name.removesuffix("_id") for name in columns) for columns in INDEXES.columns} <= indexed


def _combinations(most: int) -> Iterator[dict[str, str]]:
    """Of at most so many filters, with each of their values."""
    for number in range(most + 1):
        for names in itertools.combinations(FILTERS, number):
            for values in itertools.product(*(FILTERS[name] for name in names)):
                yield dict(zip(names, values, strict=True))
