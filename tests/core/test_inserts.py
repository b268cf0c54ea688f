"""Cheap inserts store what Django's own would."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from django.db import DataError, IntegrityError, connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone as now_of

from apps.core import inserts
from apps.core.models import AuditEntry
from tests.factories import DeploymentFactory

pytestmark = [pytest.mark.django_db, pytest.mark.engine]


def test_an_object_is_stored_as_save_would_in_one_statement():
    pattern = DeploymentFactory()
    row = type(pattern)(
        **{
            field.attname: getattr(pattern, field.attname)
            for field in pattern._meta.concrete_fields
            if not field.generated
        }
    )
    row.pk, row.status, row.completed_at = "deploy_20250101_000000", "failed", now_of.now()

    with CaptureQueriesContext(connection) as asked:
        inserts.insert([row])

    assert len(asked) == 1
    assert not row._state.adding
    stored = type(pattern).objects.get(pk=row.pk)
    different = {
        field.attname
        for field in pattern._meta.concrete_fields
        if not field.generated and getattr(stored, field.attname) != getattr(row, field.attname)
    }
    assert different == set()
    assert stored.open_workload is None
    assert stored.updated_at >= pattern.updated_at


def test_many_objects_go_into_few_statements_and_none_into_no_statement(monkeypatch):
    monkeypatch.setattr(inserts, "SLICE", 10)
    entries = [
        AuditEntry(at=now_of.now(), actor_kind="user", actor="ana", action="test.run", subject=f"test:{number}")
        for number in range(25)
    ]
    with CaptureQueriesContext(connection) as asked:
        inserts.insert(entries)
        inserts.insert([])

    assert len(asked) == 3
    assert AuditEntry.objects.count() == 25


def test_a_row_that_violates_a_constraint_is_refused():
    entry = AuditEntry(at=now_of.now(), actor_kind="nobody", actor="ana", action="test.run", subject="test:1")
    with pytest.raises(IntegrityError), transaction.atomic():
        inserts.insert([entry])
    assert not AuditEntry.objects.exists()


def test_a_time_of_any_zone_is_stored_as_the_moment_it_is():
    at = datetime(2026, 3, 1, 12, tzinfo=timezone(timedelta(hours=5)))
    inserts.insert([AuditEntry(at=at, actor_kind="user", actor="ana", action="test.run", subject="test:1")])
    assert AuditEntry.objects.get().at == datetime(2026, 3, 1, 7, tzinfo=UTC)


def entry(number: int, actor: str = "ana", kind: str = "user") -> AuditEntry:
    return AuditEntry(at=now_of.now(), actor_kind=kind, actor=actor, action="test.run", subject=f"test:{number}")


def together(*entries: AuditEntry) -> None:
    with transaction.atomic(), inserts.together():
        for one in entries:
            inserts.insert([one])


def test_what_is_inserted_together_is_written_at_the_end_in_its_order():
    with CaptureQueriesContext(connection) as asked:
        with inserts.together():
            inserts.insert([entry(1), entry(2)])
            inserts.insert([entry(3, actor="100 % \\'; DROP")])
            assert not asked.captured_queries
        with inserts.together():
            pass
    assert len(asked) == (1 if connection.vendor == "mysql" else 2)
    assert list(AuditEntry.objects.order_by("pk").values_list("subject", flat=True)) == ["test:1", "test:2", "test:3"]
    assert AuditEntry.objects.get(subject="test:3").actor == "100 % \\'; DROP"


@pytest.mark.parametrize("wrong", [0, 1, 2])
def test_whichever_of_them_is_refused_all_are(wrong):
    with pytest.raises(IntegrityError):
        together(*(entry(number, kind="nobody" if number == wrong else "user") for number in range(3)))
    assert not AuditEntry.objects.exists()
    inserts.insert([entry(4)])  # the connection is none the worse, and nothing waits
    assert AuditEntry.objects.get().subject == "test:4"


def test_what_is_no_constraint_keeps_its_own_name():
    with pytest.raises(DataError if connection.vendor == "mysql" else IntegrityError):
        together(entry(1), entry(2, actor="a" * 151 if connection.vendor == "mysql" else None))


def test_an_error_inside_writes_nothing_of_them():
    with pytest.raises(AttributeError):
        together(entry(1), None)
    assert not AuditEntry.objects.exists()
