"""Cheap reads give what Django's own would."""

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from apps.core.reads import Reader
from apps.deployments.models import Deployment
from apps.inventory.models import Workload
from tests.factories import DeploymentFactory, WorkloadFactory

pytestmark = [pytest.mark.django_db, pytest.mark.engine]


@pytest.mark.parametrize("factory", [DeploymentFactory, WorkloadFactory])
def test_a_row_is_read_as_by_a_queryset_in_one_statement(factory):
    pattern = type(factory()).objects.get()
    if isinstance(pattern, Workload):
        pattern.platform_settings, pattern.platform_secret_sealed = {"one": [1, None]}, b"\x00\xff"
        pattern.change_lock, pattern.change_lock_since = "somebody", timezone.now()
        pattern.save()
    reader = Reader(type(pattern), "WHERE id = %s", extra=("1 + 1", "id"))
    with CaptureQueriesContext(connection) as asked:
        row, extra = reader.first([pattern.pk])

    assert len(asked) == 1
    assert (row, extra) == (pattern, (2, pattern.pk))
    expected = type(pattern).objects.get()
    for field in pattern._meta.concrete_fields:
        given = getattr(row, field.attname)
        assert (type(given), given) == (type(getattr(expected, field.attname)), getattr(expected, field.attname))
    assert not row._state.adding
    row.save()  # as one that Django has read


def test_no_row_is_none():
    assert Reader(Deployment, "WHERE id = %s").first(["deploy_20250101_000000"]) is None
