"""Changing plans, databases and legal holds: each change is validated, whole or not at all, and audited."""

import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest

from apps.backups import schedule, services
from apps.backups.models import BackupJob, BackupPlan
from apps.core import vault
from apps.core.audit import Actor
from apps.core.errors import Conflict, Invalid
from apps.core.keys import new_keyset
from apps.core.models import AuditEntry
from apps.inventory.models import Database
from tests.factories import BackupJobFactory, BackupPlanFactory, DatabaseFactory

pytestmark = pytest.mark.django_db

ANA = Actor.automation("ana")


@pytest.fixture
def shop(settings, tmp_path):
    """A registered SQLite database."""
    settings.BACKUP_KEYSET = new_keyset()
    for name in ("shop", "moved", "replica"):
        with closing(sqlite3.connect(tmp_path / name)) as connection:
            connection.execute("CREATE TABLE customers (id INTEGER PRIMARY KEY)")
    return services.add_database(name="shop", url=f"sqlite:///{tmp_path}/shop", environment="production", actor=ANA)[0]


def test_a_changed_plan_counts_its_slots_from_now():
    now = datetime.now(UTC)
    plan = BackupPlanFactory(cron="0 2 * * *", last_slot=now - timedelta(days=3))

    services.change_plan(plan=plan, actor=ANA, cron="*/5 * * * *", retention_days=7)

    plan.refresh_from_db()
    assert (plan.cron, plan.retention_days) == ("*/5 * * * *", 7)
    assert plan.last_slot >= now
    assert schedule.open_due_plans(now) == 0
    assert not BackupJob.objects.exists()
    entry = AuditEntry.objects.get(action="backup_plan.update")
    assert entry.before == {"cron": "0 2 * * *", "retention_days": 30}
    assert entry.after == {"cron": "*/5 * * * *", "retention_days": 7}


def test_a_longer_retention_alone_leaves_the_slots_as_they_are():
    plan = BackupPlanFactory(last_slot=datetime.now(UTC) - timedelta(days=3))

    assert services.change_plan(plan=plan, actor=ANA, retention_days=60).last_slot == plan.last_slot
    assert services.change_plan(plan=plan, actor=ANA, retention_days=60).retention_days == 60
    assert AuditEntry.objects.count() == 1  # the second time nothing changed


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"cron": "every day"}, "cron"),
        ({"time_zone": "Mars/Olympus"}, "time_zone"),
        ({"retention_days": 0}, "retention_days"),
        ({"archive_months": None}, "archive_months"),
        ({"last_slot": None}, ""),
    ],
)
def test_a_wrong_plan_is_refused_with_its_field_and_changes_nothing(changes, field):
    plan = BackupPlanFactory()

    with pytest.raises(Invalid) as caught:
        services.change_plan(plan=plan, actor=ANA, enabled=False, **changes)

    assert caught.value.field == field
    assert BackupPlan.objects.get().enabled
    assert not AuditEntry.objects.exists()


def test_a_database_moves_and_its_url_is_in_no_audit_entry(shop, tmp_path):
    moved = f"sqlite:///{tmp_path}/moved"

    row = services.change_database(database=shop, actor=ANA, url=moved, replica_url=f"sqlite:///{tmp_path}/replica")

    assert vault.unseal(row.url_sealed, purpose="database:shop:url") == moved
    assert (row.database_name, row.max_rate_mb) == (f"{tmp_path}/moved", None)
    assert row.replica_url_sealed
    entry = AuditEntry.objects.get(action="database.update")
    assert entry.after == {"database_name": f"{tmp_path}/moved", "changed": ["replica_url", "url"]}
    assert "sqlite://" not in str(entry.after) + str(entry.before)

    row = services.change_database(database=row, actor=ANA, replica_url="", max_rate_mb=5)
    assert (row.replica_url_sealed, row.max_rate_mb) == (None, 5)
    assert services.change_database(database=row, actor=ANA).max_rate_mb is None


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"url": "sqlite:////no/such/file"}, "url"),
        ({"url": "mysql://ana:open-sesame@127.0.0.1:9/shop"}, "url"),
        ({"replica_url": "sqlite:////no/such/file"}, "replica_url"),
        ({"scratch_url": "oracle://db"}, "scratch_url"),
        ({"max_rate_mb": 0}, "max_rate_mb"),
    ],
)
def test_a_database_that_cannot_be_moved_there_stays_where_it_is(shop, changes, field):
    before = bytes(shop.url_sealed)

    with pytest.raises(Invalid) as caught:
        services.change_database(**{"database": shop, "actor": ANA, "max_rate_mb": 3, **changes})

    assert caught.value.field == field
    assert "sesame" not in str(caught.value)
    shop.refresh_from_db()
    assert (bytes(shop.url_sealed), shop.replica_url_sealed, shop.max_rate_mb) == (before, None, None)
    assert not AuditEntry.objects.filter(action="database.update").exists()


@pytest.mark.parametrize(
    ("which", "url"),
    [
        ("replica_url", "sqlite:////no/such/file"),
        ("replica_url", "mysql://ana:open-sesame@127.0.0.1:9/shop"),
        ("scratch_url", "postgresql://ana:open-sesame@127.0.0.1:9/shop"),
    ],
)
def test_a_database_with_a_replica_or_scratch_server_of_no_use_is_not_registered(shop, which, url):
    with pytest.raises(Invalid) as caught:
        services.add_database(
            name="other", url=f"sqlite:///{shop.database_name}", environment="staging", actor=ANA, **{which: url}
        )

    assert caught.value.field == which
    assert "sesame" not in str(caught.value)
    assert Database.objects.count() == 1


def test_a_held_backup_outlives_its_date_until_the_hold_is_lifted(settings, tmp_path):
    settings.BACKUP_STORAGE = str(tmp_path)
    now = datetime.now(UTC)
    database = DatabaseFactory()
    expired = now - timedelta(days=1)
    held = BackupJobFactory(database=database, retention_expires_at=expired, storage_location=str(tmp_path))
    BackupJobFactory(database=database)  # the newest one is kept anyway

    services.set_legal_hold(backup=held, on=True, reason="case 4711", actor=ANA)
    assert schedule.clean_up(now) == 0
    services.set_legal_hold(backup=held, on=False, reason="closed", actor=ANA)
    assert schedule.clean_up(now) == 1

    entries = AuditEntry.objects.filter(subject=f"backup:{held}").order_by("pk")
    assert [(entry.action, entry.reason) for entry in entries] == [
        ("backup.hold", "case 4711"),
        ("backup.release", "closed"),
    ]
    held.refresh_from_db()
    with pytest.raises(Conflict, match="nothing to hold"):
        services.set_legal_hold(backup=held, on=True, reason="too late", actor=ANA)


@pytest.mark.parametrize("reason", ["", "  ", "x" * 501])
def test_a_hold_without_a_reason_is_refused(reason):
    with pytest.raises(Invalid, match="Say why"):
        services.set_legal_hold(backup=BackupJobFactory(), on=True, reason=reason, actor=ANA)
