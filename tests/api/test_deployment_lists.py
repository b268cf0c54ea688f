"""Lists of deployments read few rows, whatever they are filtered by."""

from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection

from apps.core import ids
from apps.deployments.models import Deployment
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
    Deployment.objects.bulk_create((_row(number, workloads[number % 9]) for number in range(ROWS)), batch_size=2000)
    undone = Deployment.objects.filter(status="failed").first()
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


FILTERS = (
    *("", "service=shop", "environment=staging", "status=failed", "status=queued", "kind=rollback", "archived=true"),
    *("version=v1.7.3", "triggered_by=ana", f"commit_sha={7:040x}", "service=shop&environment=production"),
    *("service=shop&status=failed", "environment=production&status=failed", "environment=staging&kind=rollback"),
    *("service=mail&environment=staging&status=failed", "service=mail&environment=staging&kind=rollback"),
    *("status=failed&archived=true", "triggered_by=ana&status=failed"),
    *("kind=rollback&status=rolled_back", "environment=production&archived=true&status=completed"),
    *(f"since={_day(200)}&until={_day(230)}", f"status=failed&until={_day(230)}"),
)


# The same list in the console, which shows the last 90 days unless it is asked for more.
FILTERS_OF_THE_CONSOLE = (
    *("", "environment__exact=staging", "status__exact=failed", "status__exact=queued", "age=archived", "p=3"),
    *("service__id__exact=2&environment__exact=staging&status__exact=failed", "age=archived&status__exact=failed"),
    *("age=all&status__exact=queued", "q=v1.7.3", f"q={7:040x}&age=all", "q=nobody&age=all"),
)


def test_the_first_page_of_fifty_reads_at_most_a_thousand_rows(api, many, client):
    assert api.get("/deployments?limit=50").status_code == 200
    read = {}
    for filters in FILTERS:
        before = _reads()
        answer = api.get(f"/deployments?limit=50&{filters}")
        read[filters] = _reads() - before
        assert answer.status_code == 200, answer.content
    client.force_login(UserFactory(is_superuser=True))
    for filters in FILTERS_OF_THE_CONSOLE:
        before = _reads()
        answer = client.get(f"/admin/deployments/deployment/?{filters}")
        read[filters] = _reads() - before
        assert answer.status_code == 200
    assert {filters: count for filters, count in read.items() if count > 1000} == {}


def _reads() -> int:
    """Rows this connection has read so far, by any way."""
    with connection.cursor() as cursor:
        cursor.execute("SHOW SESSION STATUS LIKE 'Handler_read%%'")
        return sum(int(value) for name, value in cursor.fetchall() if name != "Handler_read_rnd_deleted")
