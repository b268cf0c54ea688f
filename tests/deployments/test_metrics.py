"""What Prometheus is told of deployments."""

from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from apps.core import ids
from apps.deployments import metrics
from tests.factories import DeploymentFactory, WorkloadFactory

pytestmark = pytest.mark.django_db


def counted() -> dict[tuple[str, ...], float]:
    outcomes, *_ = metrics.read()
    return {tuple(one.labels.values()): one.value for one in outcomes.samples}


def sums_of_the_settled(asked: CaptureQueriesContext) -> list[str]:
    return [query["sql"] for query in asked if "COUNT(" in query["sql"] and "`id` < " in query["sql"]]


def test_outcomes_are_counted_for_all_time_and_what_is_settled_once_a_day():
    shop = WorkloadFactory(service__slug="shop", environment="production")
    place = {"workload": shop, "service": shop.service, "environment": shop.environment}
    for number, status in enumerate(("completed", "completed", "failed")):
        old = timezone.now() - timedelta(days=40 if number else 10)
        pk = f"{ids.timestamped('deploy', old)}_{ids.suffix()}"
        DeploymentFactory(**place, pk=pk, status=status, started_at=old, archived=number == 0)
    DeploymentFactory(**place, pk=ids.timestamped("deploy", timezone.now()), status="failed")
    expected = {("shop", "production", "completed"): 2, ("shop", "production", "failed"): 2}

    with CaptureQueriesContext(connection) as asked:
        assert counted() == expected
    assert len(sums_of_the_settled(asked)) == 2, "one for each month"

    with CaptureQueriesContext(connection) as asked:
        assert counted() == expected
    assert sums_of_the_settled(asked) == [], "counted again within a day"
