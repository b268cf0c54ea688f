"""The history that the benchmarks fill by hand keeps up with the table's columns."""

from collections import Counter

import pytest
from django.utils import timezone

from apps.deployments.models import Deployment
from bench import history


@pytest.mark.django_db
def test_the_history_of_the_benchmarks_gives_every_column_a_value() -> None:
    history.fill(timezone.now(), rows=230)
    given = Counter(Deployment.objects.values_list("status", flat=True))
    assert given == {"completed": 187, "failed": 8, "cancelled": 3, "rolled_back": 2, "in_progress": history.OPEN}
    assert Deployment.objects.filter(kind="rollback").exclude(undoes=None).count() == 2
    assert not Deployment.objects.exclude(workload__service__slug__startswith=history.PREFIX).exists()
