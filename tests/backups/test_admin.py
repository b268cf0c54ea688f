"""The pages of databases, plans, backups and restores: what they show, to whom, and what they cost."""

import re
from datetime import UTC, datetime, timedelta

import pytest
from django.contrib.admin.utils import quote
from django.urls import reverse

from apps.backups.models import BackupJob, BackupPlan, Restore
from apps.core.models import AuditEntry
from tests.factories import BackupJobFactory, BackupPlanFactory, DatabaseFactory, RestoreFactory, UserFactory

pytestmark = pytest.mark.django_db

DATABASES = "admin:inventory_database_changelist"
PLANS = "admin:backups_backupplan_changelist"
JOBS = "admin:backups_backupjob_changelist"
RESTORES = "admin:backups_restore_changelist"
LISTS = [DATABASES, PLANS, JOBS, RESTORES]
HOSTILE = "<script>alert(1)</script>' OR 1=1; --"


def page_of(row) -> str:
    return reverse(f"admin:{row._meta.app_label}_{row._meta.model_name}_change", args=[quote(row.pk)])


def text_of(client, url: str, **query) -> str:
    reply = client.get(url, query)
    assert reply.status_code == 200, url
    return reply.content.decode()


@pytest.fixture
def drilled():
    """A drill, its backup, its database with a plan."""
    return RestoreFactory(backup=BackupJobFactory(database=BackupPlanFactory(database__name="shop").database))


@pytest.mark.parametrize("group", ["viewer", "operator", "admin"])
def test_every_group_may_look_at_every_page_of_backups(sign_in, drilled, group):
    client = sign_in(group)
    backup, database = drilled.backup, drilled.backup.database
    for url in [*map(reverse, LISTS), *map(page_of, (database, database.plan, backup, drilled))]:
        assert client.get(url).status_code == 200, url


@pytest.mark.parametrize("page", [DATABASES, JOBS, RESTORES])
def test_the_links_of_a_list_lead_to_its_rows_at_any_hour_of_the_day(sign_in, page):
    for hour in range(24):
        then = datetime(2026, 3, 2, hour, 22, 25, tzinfo=UTC)
        RestoreFactory(backup=BackupJobFactory(started_at=then), started_at=then)
    client = sign_in("viewer")

    links = re.findall(r'<th[^>]*>\s*<a href="([^"]+/change/)', text_of(client, reverse(page)))
    assert len(links) == 24
    assert {client.get(link).status_code for link in links} == {200}


def test_an_id_as_a_log_line_gives_it_leads_to_its_page_too(sign_in):
    job = BackupJobFactory(started_at=datetime(2026, 3, 2, 22, 5, tzinfo=UTC), id="backup_20260302_220500")

    assert sign_in("viewer").get(f"/admin/backups/backupjob/{job}/change/").status_code == 200


def test_a_person_without_a_group_sees_none_of_it(client, drilled):
    client.force_login(UserFactory(), backend="django.contrib.auth.backends.ModelBackend")
    backup = drilled.backup
    for url in [*map(reverse, LISTS), *map(page_of, (backup.database, backup, drilled))]:
        assert client.get(url).status_code == 403, url


def test_empty_lists_say_what_to_do_next(sign_in):
    client = sign_in("operator")

    assert "No database is registered yet" in text_of(client, reverse(DATABASES))
    assert "There are no backups yet" in text_of(client, reverse(JOBS))
    assert "Nothing was restored or drilled yet" in text_of(client, reverse(RESTORES))


def test_the_list_of_databases_tells_age_drill_restore_time_and_trouble(sign_in, drilled):
    backup = drilled.backup
    BackupJob.objects.filter(pk=backup.pk).update(started_at=datetime.now(UTC) - timedelta(minutes=42))
    DatabaseFactory(name="new")

    text = text_of(sign_in("viewer"), reverse(DATABASES))

    assert "42 min old" in text
    assert "1 min 2 s" in text  # the drill's restore time
    assert "never backed up" in text
    assert "proven" in text


def test_the_list_of_backups_shows_size_ratio_duration_proof_and_who_asked(sign_in):
    BackupJobFactory(
        restore_tested=True, is_monthly_archive=True, legal_hold=True, triggered_by="manual", requested_by="ana"
    )

    text = text_of(sign_in("viewer"), reverse(JOBS))

    for shown in ("2 MB, 500 kB (25 %)", "42 s", "verified", "drilled", "archive", "legal hold", "ana"):
        assert shown in text, shown


def test_a_failed_backup_shows_its_whole_error_and_what_to_do(sign_in):
    error = "Access denied for the dump.\nGRANT SHOW VIEW ON `shop`.* TO 'backup'@'%'; " + "x" * 500
    job = BackupJobFactory(status="failed", integrity_check_passed=None, error_message=error, object_path="")

    text = text_of(sign_in("viewer"), page_of(job))

    assert "GRANT SHOW VIEW ON `shop`.* TO &#x27;backup&#x27;@&#x27;%&#x27;; " + "x" * 500 in text
    assert "then back up again" in text


def test_a_drill_names_the_first_table_that_differs(sign_in):
    backup = BackupJobFactory()
    row = RestoreFactory(
        backup=backup,
        status="failed",
        equal=False,
        first_difference="orders",
        error_message="orders differs from the backup.",
        tables={"customers": "c0ffee", "orders": "dead"},
    )
    client = sign_in("viewer")

    assert ">orders<" in text_of(client, reverse(RESTORES))
    text = text_of(client, page_of(row))
    assert "orders differs from the backup." in text
    assert text.index("equal</td>") < text.index("differs</td>")


def test_hostile_text_is_escaped_wherever_it_shows(sign_in):
    database = DatabaseFactory(host=HOSTILE, database_name=HOSTILE)
    job = BackupJobFactory(
        database=database,
        database_name=HOSTILE,
        requested_by=HOSTILE,
        triggered_by="manual",
        status="failed",
        error_message=HOSTILE,
        notes=[HOSTILE],
        tables={HOSTILE: HOSTILE},
        storage_url=HOSTILE,
        engine=HOSTILE[:60],
    )
    row = RestoreFactory(
        backup=job, target=HOSTILE, table=HOSTILE, first_difference=HOSTILE, error_message=HOSTILE,
        status="failed", equal=False, tables={HOSTILE: HOSTILE}, requested_by=HOSTILE,
    )  # fmt: skip
    client = sign_in("admin")
    stems = {database: ("back-up", "edit"), job: ("table", "restore", "overwrite", "drill", "hold"), row: ("cancel",)}
    actions = [page_of(subject).replace("/change/", f"/{name}/") for subject, names in stems.items() for name in names]

    for url in [*map(reverse, [*LISTS, "admin:index"]), *map(page_of, (database, job, row)), *actions]:
        text = text_of(client, url)
        assert "<script>alert" not in text, url
        if url in map(page_of, (database, job, row)):
            assert "&lt;script&gt;alert(1)" in text, url


@pytest.mark.parametrize("model", ["inventory_database", "backups_backupjob", "backups_restore"])
def test_history_cannot_be_changed_or_deleted_even_by_a_superuser(client, drilled, model):
    client.force_login(UserFactory(is_superuser=True), backend="django.contrib.auth.backends.ModelBackend")
    rows = {"inventory_database": drilled.backup.database, "backups_backupjob": drilled.backup}
    row = rows.get(model, drilled)

    for action in ("change", "delete"):
        reply = client.post(reverse(f"admin:{model}_{action}", args=[row.pk]), {"post": "yes"})
        assert reply.status_code == 403, action
    assert type(row)._default_manager.filter(pk=row.pk).exists()


@pytest.mark.parametrize("key", ["nothing", "9" * 40, "a/b", "a\x00b", "%F0%9F%98%80"])
@pytest.mark.parametrize("model", ["inventory_database", "backups_backupjob", "backups_restore"])
def test_a_page_of_no_row_leads_back_with_a_message(sign_in, model, key):
    reply = sign_in("operator").get(reverse(f"admin:{model}_change", args=[key]))

    assert (reply.status_code, reply.url) == (302, reverse("admin:index"))


@pytest.mark.parametrize(
    ("page", "queries"), [("admin:index", 30), (DATABASES, 13), (PLANS, 8), (JOBS, 8), (RESTORES, 7)]
)
def test_lists_take_as_many_queries_for_thirty_rows_as_for_one(sign_in, django_assert_num_queries, page, queries):
    client = sign_in("viewer")
    for count in (1, 29):
        for _ in range(count):
            RestoreFactory(backup=BackupJobFactory(database=BackupPlanFactory().database))
        with django_assert_num_queries(queries) as captured:
            text_of(client, reverse(page))

    counted = [query["sql"] for query in captured.captured_queries if "COUNT(" in query["sql"].upper()]
    assert not [sql for sql in counted if "backup_jobs" in sql or "restores" in sql]


def test_a_plan_is_changed_through_its_form_and_audited(sign_in):
    plan = BackupPlanFactory(database__name="shop")
    client = sign_in("operator")
    form = {
        "enabled": "on",
        "cron": "30 3 * * *",
        "time_zone": "Europe/Berlin",
        "retention_days": "14",
        "archive_months": "12",
        "drill": "on",
    }

    wrong = client.post(page_of(plan), form | {"cron": "every day"}).content.decode()
    assert "an example: 0 2 * * *" in wrong
    assert client.post(page_of(plan), form).status_code == 302

    plan = BackupPlan.objects.get(pk=plan.pk)
    assert (plan.cron, plan.time_zone, plan.retention_days) == ("30 3 * * *", "Europe/Berlin", 14)
    assert AuditEntry.objects.filter(subject="database:shop", actor="operator").exists()
    text = text_of(client, page_of(plan))
    assert text.count(" 03:30 CE") == 3  # in the plan's zone, summer or winter
    assert sign_in("viewer").post(page_of(plan), form).status_code == 403


def open_job(**facts) -> BackupJob:
    unknown = ("backup_bytes", "compressed_bytes", "integrity_check_passed", "completed_at", "duration_seconds")
    return BackupJobFactory(**{**dict.fromkeys(unknown), "status": "in_progress", "object_path": "", **facts})


def test_a_running_backup_shows_step_bytes_share_and_sign_of_life_and_asks_to_be_refreshed(sign_in):
    now = datetime.now(UTC)
    database = BackupJobFactory().database
    job = open_job(
        database=database,
        started_at=now - timedelta(seconds=20),
        progress_step="dump",
        progress_bytes=500_000,
        lease_until=now + timedelta(seconds=85),
    )
    client = sign_in("viewer")

    text = text_of(client, page_of(job))
    assert "Dumping (step 1 of 2): 25 %" in text
    assert "500 kB of about 2 MB" in text
    assert "last sign of life" in text
    assert "core/live.js" in text
    live = text_of(client, page_of(job).replace("/change/", "/live/"))
    assert "data-ended" not in live
    assert "<html" not in live

    BackupJob.objects.filter(pk=job.pk).update(lease_until=now + timedelta(seconds=40))
    assert "worker is silent" in text_of(client, page_of(job))

    BackupJob.objects.filter(pk=job.pk).update(status="completed")
    assert "data-ended" in text_of(client, page_of(job).replace("/change/", "/live/"))
    assert "core/live.js" not in text_of(client, page_of(job))


def test_a_backup_that_no_worker_takes_says_so_after_two_minutes(sign_in):
    now = datetime.now(UTC)
    job = open_job(status="queued", started_at=now)
    client = sign_in("viewer")
    assert "No worker" not in text_of(client, page_of(job))

    BackupJob.objects.filter(pk=job.pk).update(started_at=now - timedelta(minutes=5))
    assert "No worker of queue “long” has picked it up for 5 min" in text_of(client, page_of(job))

    running = open_job(lease_until=now + timedelta(seconds=80))
    assert f"Waits behind {running}" in text_of(client, page_of(job))


def test_a_backup_that_waits_to_be_tried_again_says_when_and_why(sign_in):
    job = open_job(
        status="queued",
        retry_count=1,
        next_attempt_at=datetime(2099, 1, 1, 2, 5, tzinfo=UTC),
        error_message="The server does not answer.",
    )

    text = text_of(sign_in("viewer"), page_of(job))

    assert "2099-01-01 02:05 UTC, attempt 2 of 4; before: The server does not answer." in text


def test_a_restore_knows_its_total_and_names_its_step(sign_in):
    row = RestoreFactory(
        kind="drill", status="in_progress", equal=None, completed_at=None, restore_seconds=None,
        progress_step="compare", progress_bytes=1_000_000, lease_until=datetime.now(UTC) + timedelta(seconds=90),
    )  # fmt: skip

    text = text_of(sign_in("viewer"), page_of(row))

    assert "Dumping the restored copy to compare it (step 3 of 3): 50 %" in text
    assert Restore.objects.get().status == "in_progress"


def test_the_overview_shows_each_database_with_trouble_first(sign_in, drilled):
    DatabaseFactory(name="aaa", environment="staging")
    DatabaseFactory(name="zzz")

    text = text_of(sign_in("viewer"), reverse("admin:index"))

    assert text.index(">zzz<") < text.index(">shop<") < text.index(">aaa<")
    assert "never backed up" in text
    assert "1 min 2 s" in text
