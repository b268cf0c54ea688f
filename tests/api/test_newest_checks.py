"""The newest checks of one target are read from the end of its index, however many there are behind them."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from apps.health.models import EndpointCheck, HealthCheck
from tests.api.conftest import ApiClient, rows_read
from tests.factories import EndpointFactory, HealthCheckFactory, InstanceFactory

NOW = datetime.now(UTC).replace(second=0, microsecond=0)
MINUTE, MINUTES = timedelta(minutes=1), 400
pytestmark = pytest.mark.django_db


@pytest.fixture
def many() -> tuple[Any, Any]:
    """An instance and an endpoint of several that have been looked at for hours."""
    instances, endpoints = InstanceFactory.create_batch(6), EndpointFactory.create_batch(6)
    HealthCheck.objects.bulk_create(
        HealthCheckFactory.build(
            id=f"health_{number:06}", instance=instance, environment="production", timestamp=NOW - minute * MINUTE,
        )
        for number, (minute, instance) in enumerate((m, i) for m in range(MINUTES) for i in instances)
    )  # fmt: skip
    EndpointCheck.objects.bulk_create(
        EndpointCheck(endpoint=endpoint, at=NOW - minute * MINUTE, status="healthy")
        for minute in range(MINUTES)
        for endpoint in endpoints
    )
    return instances[3], endpoints[3]


def cost(work: Callable[[], Any]) -> int:
    """Rows read by the second of two calls: the first fills what is kept in memory."""
    work()
    before = rows_read()
    work()
    return rows_read() - before


def test_neither_a_page_nor_the_overview_reads_all_samples_of_an_instance(api: ApiClient, client, many):
    instance, endpoint = many
    client.force_login(User.objects.create_superuser("root"), backend="django.contrib.auth.backends.ModelBackend")

    assert cost(lambda: list(HealthCheck.objects.of(instance)[:1])) < 5
    assert cost(lambda: api.get(f"/health-checks?instance_id={instance.pk}&limit=20")) < 100
    assert cost(lambda: api.get(f"/endpoints/{endpoint.pk}/checks?limit=20")) < 100
    assert cost(lambda: client.get(reverse("admin:index"))) < MINUTES
    with CaptureQueriesContext(connection) as asked:
        client.get(reverse("admin:health_healthcheck_changelist"), {"q": instance.pk})
    [page] = [query["sql"] for query in asked if "FROM `health_checks`" in query["sql"]]
    assert "ORDER BY `health_checks`.`timestamp` DESC, `health_checks`.`instance_id` DESC" in page


def test_pages_of_one_target_follow_each_other_without_a_gap(api: ApiClient, many):
    instance, endpoint = many
    for path, at in (
        (f"/health-checks?instance_id={instance.pk}", "timestamp"),
        (f"/endpoints/{endpoint.pk}/checks?", "at"),
    ):
        found, cursor = [], ""
        while cursor is not None:
            reply = api.get(f"{path}&limit=150{cursor and '&cursor='}{cursor}").json()
            found += [datetime.fromisoformat(row[at]) for row in reply["items"]]
            cursor = reply["next"]

        assert found == [NOW - minute * MINUTE for minute in range(MINUTES)]
