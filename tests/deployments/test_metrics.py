"""What Prometheus is told of deployments."""

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from apps.deployments import metrics
from tests.factories import DeploymentFactory, WorkloadFactory

pytestmark = pytest.mark.django_db


def test_outcomes_are_counted_for_all_time_from_an_index_alone():
    shop = WorkloadFactory(service__slug="shop", environment="production")
    for number, status in enumerate(("completed", "completed", "failed")):
        DeploymentFactory(
            workload=shop, service=shop.service, environment=shop.environment, status=status, archived=number == 0
        )

    with CaptureQueriesContext(connection) as asked:
        counted, *_ = metrics.read()

    assert {tuple(one.labels.values()): one.value for one in counted.samples} == {
        ("shop", "production", "completed"): 2,
        ("shop", "production", "failed"): 1,
    }
    assert len(asked) == 3
    (count,) = (query["sql"] for query in asked if "COUNT(" in query["sql"])
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN {count}")
        assert all("Using index" in (row[-1] or "") for row in cursor.fetchall())
