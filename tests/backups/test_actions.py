"""What people do about backups in the console: who may, what the page says first, and that only a POST does it."""

import re
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from django.contrib.admin.utils import quote
from django.contrib.auth.models import Permission, User
from django.core.cache import cache
from django.urls import reverse

from apps.backups import restorer, runner
from apps.backups.engines import engine_for
from apps.backups.engines.address import parse_url
from apps.backups.models import BackupJob, Restore
from apps.core import vault
from apps.core.keys import new_keyset
from apps.core.models import AuditEntry
from apps.inventory.models import Database
from tests.backups.mysql_schemas import url_of, user_with
from tests.factories import BackupJobFactory, BackupPlanFactory, RestoreFactory, ServiceFactory

pytestmark = pytest.mark.django_db

ADD = "admin:inventory_database_add"


@pytest.fixture(autouse=True)
def kept_here(settings, tmp_path):
    settings.BACKUP_STORAGE = str(tmp_path / "backups")
    settings.BACKUP_KEYSET = new_keyset()


@pytest.fixture
def shop(tmp_path) -> str:
    """The URL of a SQLite file with two tables."""
    path = tmp_path / "shop.sqlite3"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE customers (id INTEGER PRIMARY KEY, name TEXT)")
        connection.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, sum INTEGER)")
        connection.executemany("INSERT INTO customers VALUES (?, ?)", [(n, f"customer {n}") for n in range(300)])
        connection.commit()
    return f"sqlite:///{path}"


def form(url: str, **changed) -> dict[str, str]:
    return {"name": "shop", "environment": "production", "service": "app", "url": url, **changed}


def action(row, name: str) -> str:
    return reverse(f"admin:{row._meta.app_label}_{row._meta.model_name}_{name}", args=[quote(row.pk)])


def do(client, row, name: str, **values) -> str:
    """Press the button on the page of an action; gives the text of the page it leads to."""
    asked = client.get(action(row, name))
    assert asked.status_code == 200, name
    reply = client.post(action(row, name), values, follow=True)
    assert reply.redirect_chain, re.findall(r'role="alert"[^>]*>([^<]*)', reply.content.decode())
    return reply.content.decode()


def work() -> None:
    """What the worker of queue `long` would do."""
    for job in BackupJob.objects.filter(status="queued"):
        runner.back_up(job.pk, owner="test")
    for row in Restore.objects.filter(status="queued"):
        restorer.restore(row.pk, owner="test")


def added(client, shop: str) -> Database:
    assert client.post(reverse(ADD), form(shop)).status_code == 302
    return Database.objects.get(name="shop")


def backed_up(client, shop: str) -> BackupJob:
    do(client, added(client, shop), "back_up")
    work()
    return BackupJob.objects.get()


def test_a_database_is_added_backed_up_drilled_and_restored_into_a_new_file(sign_in, shop, tmp_path):
    client = sign_in("operator")
    assert "2 tables" in client.post(reverse(ADD), form(shop), follow=True).content.decode()
    database = Database.objects.get()
    assert "is queued" in do(client, database, "back_up")
    assert "is under way: wait for its end" in client.get(action(database, "back_up")).content.decode()
    work()
    backup = BackupJob.objects.get()
    assert (backup.integrity_check_passed, backup.requested_by) == (True, "operator")

    do(client, backup, "drill")
    assert "of this backup is under way" in client.get(action(backup, "drill")).content.decode()
    work()
    drill = Restore.objects.get(kind="drill")
    page = reverse("admin:backups_restore_change", args=[drill.pk])
    assert "Restored: digests equal, 2 tables" in client.get(page).content.decode()

    copy = str(tmp_path / "copy.sqlite3")
    do(client, backup, "restore", server=database.pk, schema=copy)
    work()
    with closing(sqlite3.connect(copy)) as connection:
        assert connection.execute("SELECT COUNT(*) FROM customers").fetchone() == (300,)
    assert {"backup.request", "backup.drill", "backup.restore"} <= set(
        AuditEntry.objects.filter(subject="database:shop", actor="operator").values_list("action", flat=True)
    )


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("mysql://ana:open-sesame@127.0.0.1:9/shop", "127.0.0.1:9"),
        ("oracle://ana:open-sesame@db/shop", "begins with none of"),
        ("mysql://ana:open-sesame@db", "names no schema"),
        ("", "This field is required"),
    ],
)
def test_a_wrong_url_is_explained_beside_its_field_and_never_put_back(sign_in, url, told):
    reply = sign_in("operator").post(reverse(ADD), form(url))

    text = reply.content.decode()
    assert reply.status_code == 200
    assert told in text
    assert 'value="shop"' in text  # the rest of the form is kept
    assert "sesame" not in text
    assert not Database.objects.exists()


@pytest.mark.parametrize(
    ("changed", "told"), [({"name": "a b"}, "valid"), ({"service": "no"}, "valid choice"), ({"max_rate_mb": "0"}, "1")]
)
def test_other_wrong_fields_are_explained_before_a_server_is_asked(sign_in, shop, changed, told):
    reply = sign_in("operator").post(reverse(ADD), form(shop, **changed))

    assert reply.status_code == 200
    assert told in reply.content.decode()
    assert not Database.objects.exists()


def test_no_page_ever_carries_a_url_or_a_password(sign_in, mariadb):
    client = sign_in("operator")
    client.post(reverse(ADD), form(mariadb.url, replica_url=mariadb.url, scratch_url=mariadb.url))
    database = Database.objects.get()
    do(client, database, "back_up")
    work()
    backup = BackupJob.objects.get()
    password = mariadb.url.split(":")[2].split("@")[0]

    pages = [action(database, name) for name in ("change", "back_up", "check", "edit", "live")]
    pages += [action(backup, name) for name in ("change", "drill", "restore", "live")]
    pages += [reverse(name) for name in ("admin:inventory_database_changelist", "admin:core_auditentry_changelist")]
    for page in pages:
        text = client.get(page).content.decode()
        assert password not in text, page
        assert "mysql://" not in text.replace("mysql://user:password@host", ""), page


def test_the_check_names_each_missing_privilege_with_its_grant(sign_in, mariadb):
    client = sign_in("operator")
    poor = user_with(engine_for(parse_url(mariadb.url)), "SELECT ON `{schema}`.*")
    client.post(reverse(ADD), form(mariadb.url))
    database = Database.objects.get()
    assert "Everything a backup needs is there" in client.get(action(database, "check")).content.decode()

    database.url_sealed = vault.seal(url_of(poor), purpose="database:shop:url")
    database.save(update_fields=["url_sealed"])
    text = client.get(action(database, "check")).content.decode()
    assert "A backup would fail" in text
    assert "GRANT " in text
    assert "SHOW VIEW" in text


def test_a_database_that_is_gone_is_told_on_its_check_page(sign_in, shop, tmp_path):
    client = sign_in("operator")
    database = added(client, shop)
    (tmp_path / "shop.sqlite3").unlink()

    text = client.get(action(database, "check")).content.decode()

    assert 'role="alert"' in text
    assert "Everything a backup needs" not in text


def states_of_the_world() -> tuple[int, int, int]:
    return BackupJob.objects.count(), Restore.objects.count(), AuditEntry.objects.filter(actor_kind="user").count()


@pytest.mark.parametrize("group", ["viewer", "operator", "admin"])
def test_each_group_may_do_what_its_role_says_and_sees_no_other_button(sign_in, group):
    backup = BackupJobFactory(database=BackupPlanFactory().database)
    running = BackupJobFactory(database=BackupPlanFactory().database, status="queued", completed_at=None)
    drill = RestoreFactory(backup=backup, status="queued", completed_at=None, equal=None)
    database = backup.database
    may = {
        "viewer": set(),
        "operator": {"back_up", "check", "edit", "verify", "drill", "restore", "table", "hold", "cancel"},
    }
    may["admin"] = may["operator"] | {"overwrite"}
    client = sign_in(group)
    before = states_of_the_world()

    for row, names in (
        (database, ("back_up", "check", "edit")),
        (backup, ("verify", "drill", "restore", "table", "overwrite", "hold")),
        (running, ("cancel",)),
        (drill, ("cancel",)),
    ):
        shown = client.get(action(row, "change")).content.decode()
        for name in names:
            allowed = name in may[group]
            assert (action(row, name) in shown) == allowed, (group, name)
            if name != "check":
                assert client.get(action(row, name)).status_code == (200 if allowed else 403), (group, name)
            if not allowed:
                assert client.post(action(row, name), {"typed": str(database)}).status_code == 403, (group, name)
    assert states_of_the_world() == before  # looking does nothing


def test_an_operator_may_be_given_the_right_to_overwrite_by_name(sign_in):
    backup = BackupJobFactory(database=BackupPlanFactory().database)
    client = sign_in("operator")
    User.objects.get(username="operator").user_permissions.add(Permission.objects.get(codename="overwrite_database"))
    cache.clear()

    assert client.get(action(backup, "overwrite")).status_code == 200


def test_what_runs_is_cancelled_after_a_page_and_what_has_ended_says_so(sign_in):
    job = BackupJobFactory(status="queued", completed_at=None)
    client = sign_in("operator")

    assert "is being cancelled" in do(client, job, "cancel")

    job.refresh_from_db()
    assert job.status == "cancelled"
    assert "It has ended already" in client.get(action(job, "cancel")).content.decode()
    assert AuditEntry.objects.filter(action="backup.cancel", actor="operator").exists()


@pytest.mark.parametrize("name", ["drill", "restore", "table", "overwrite"])
@pytest.mark.parametrize(
    ("facts", "told"),
    [
        ({"status": "failed", "integrity_check_passed": None}, "It is not a verified backup (status Failed)"),
        ({"object_deleted_at": datetime(2026, 3, 2, 3, 0, tzinfo=UTC)}, "removed by retention 2026-03-02 03:00 UTC"),
    ],
)
def test_a_backup_that_cannot_be_used_says_why_and_has_no_button(sign_in, name, facts, told):
    backup = BackupJobFactory(database=BackupPlanFactory().database, **facts)
    client = sign_in("admin")

    text = client.get(action(backup, name)).content.decode()
    assert told in text
    assert 'type="submit"' not in text.partition('id="content-main"')[2]
    client.post(action(backup, name), {"typed": backup.database.name})
    assert not Restore.objects.exists()


def test_confirmation_pages_name_schema_size_duration_and_what_is_lost(sign_in):
    other = BackupJobFactory(database=BackupPlanFactory(database__name="crm").database).database
    backup = BackupJobFactory(database=BackupPlanFactory(database__name="shop").database)
    RestoreFactory(backup=backup)
    client = sign_in("admin")

    text = client.get(action(backup, "drill")).content.decode()
    for told in ("shop on db.internal:3306", "2 MB in 2 tables", "1 min 2 s", "scratch schema is dropped"):
        assert told in text, told

    text = client.get(action(backup, "overwrite")).content.decode()
    taken = f"{backup.started_at:%Y-%m-%d %H:%M} UTC"
    for told in ("Type shop to confirm", f"everything written since {taken}", "a new backup of what is there now"):
        assert told in text, told
    text = client.get(action(backup, "overwrite"), {"target": other.name}).content.decode()
    assert "Type crm to confirm" in text
    assert "Overwrite crm" in text
    assert "everything that is in it" in text


def test_the_add_form_offers_the_services_there_are(sign_in):
    ServiceFactory(slug="billing")

    assert 'value="billing"' in sign_in("operator").get(reverse(ADD)).content.decode()
    assert sign_in("viewer").get(reverse(ADD)).status_code == 403


def test_one_table_is_restored_beside_the_database(sign_in, shop, tmp_path):
    client = sign_in("operator")
    backup = backed_up(client, shop)
    copy = str(tmp_path / "table.sqlite3")

    wrong = client.post(action(backup, "table"), {"table": "no", "server": backup.database_id, "schema": copy})
    assert "Select a valid choice" in wrong.content.decode()
    do(client, backup, "table", table="customers", server=backup.database_id, schema=copy)
    work()

    assert Restore.objects.get(kind="table").status == "completed"
    with closing(sqlite3.connect(copy)) as connection:
        assert connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall() == [("customers",)]


def test_a_backup_is_verified_again_and_a_damaged_one_is_found(sign_in, shop, settings):
    client = sign_in("operator")
    backup = backed_up(client, shop)
    do(client, backup, "verify")
    work()
    assert Restore.objects.get(kind="verify").status == "completed"

    stored = Path(settings.BACKUP_STORAGE) / backup.object_path
    data = bytearray(stored.read_bytes())
    data[len(data) // 2] ^= 1
    stored.write_bytes(data)
    do(client, backup, "verify")
    work()

    row = Restore.objects.get(kind="verify", status="failed")
    text = client.get(action(row, "change")).content.decode()
    assert "egment" in text
    assert "damaged" in client.get(action(backup, "change")).content.decode()


def test_a_database_is_overwritten_only_after_its_name_was_typed_and_a_safety_backup_taken(sign_in, shop, tmp_path):
    client = sign_in("admin")
    backup = backed_up(client, shop)
    with closing(sqlite3.connect(tmp_path / "shop.sqlite3")) as connection:
        connection.execute("DELETE FROM customers")
        connection.commit()

    for typed in ("", "Shop", "shop ; drop", "crm"):
        reply = client.post(action(backup, "overwrite"), {"typed": typed})
        assert "Nothing was overwritten: this is not the name" in reply.content.decode()
    assert not Restore.objects.exists()
    do(client, backup, "overwrite", typed="shop")
    work()

    row = Restore.objects.get()
    assert (row.status, row.error_message) == ("completed", None)
    assert row.safety_backup is not None
    assert row.safety_backup.integrity_check_passed
    assert str(row.safety_backup) in client.get(action(row, "change")).content.decode()
    with closing(sqlite3.connect(tmp_path / "shop.sqlite3")) as connection:
        assert connection.execute("SELECT COUNT(*) FROM customers").fetchone() == (300,)


def test_a_legal_hold_needs_a_reason_and_lifting_it_more_rights_than_setting_it(sign_in):
    backup = BackupJobFactory()
    client = sign_in("operator")
    assert "This field is required" in client.post(action(backup, "hold"), {"reason": ""}).content.decode()
    do(client, backup, "hold", reason="case 4711")

    backup.refresh_from_db()
    assert backup.legal_hold
    assert AuditEntry.objects.get(actor="operator", subject__contains=backup.pk).reason == "case 4711"
    assert client.get(action(backup, "hold")).status_code == 403

    client = sign_in("admin")
    assert "It may then be deleted by retention on" in client.get(action(backup, "hold")).content.decode()
    do(client, backup, "hold", reason="case closed")
    backup.refresh_from_db()
    assert not backup.legal_hold


def test_a_database_keeps_what_its_form_leaves_empty(sign_in, shop, tmp_path):
    client = sign_in("operator")
    database = added(client, shop)
    before = bytes(database.url_sealed)

    do(client, database, "edit", max_rate_mb="5", url="", replica_url="", scratch_url="")
    database.refresh_from_db()
    assert (bytes(database.url_sealed), database.max_rate_mb) == (before, 5)

    wrong = client.post(action(database, "edit"), {"url": f"sqlite:///{tmp_path}/nowhere.sqlite3"})
    assert wrong.status_code == 200
    assert "sqlite:///" not in wrong.content.decode()
    database.refresh_from_db()
    assert bytes(database.url_sealed) == before
