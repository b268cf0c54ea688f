"""Backups on the metrics page: true figures of each database, and a page that answers while the database does not."""

import os
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector, CollectorRegistry

from apps.backups import metrics
from apps.backups.models import BackupJob
from tests.factories import BackupJobFactory, BackupPlanFactory, DatabaseFactory, RestoreFactory
from tests.serving import served


class _Reading(Collector):
    def collect(self):
        return metrics.read()


def figures(text: str | None = None) -> dict[tuple[str, ...], float]:
    """Each figure under its name and label values; read now, or from a page."""
    if text is None:
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Reading())
        text = generate_latest(registry).decode()
    return {
        (sample.name.removeprefix("pulsewatch_backup_"), *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.mark.django_db
def test_each_database_tells_its_age_size_duration_drill_and_outcomes():
    shop = DatabaseFactory(name="shop")
    BackupJobFactory(database=shop, status="failed", integrity_check_passed=None)
    backup = BackupJobFactory(database=shop, started_at=datetime.now(UTC) - timedelta(hours=3))
    RestoreFactory(backup=backup)
    RestoreFactory(backup=backup, equal=False, status="failed", restore_seconds=9, started_at=datetime.now(UTC))
    DatabaseFactory(name="new")

    found = figures()

    assert found["last_verified_age_seconds", "shop"] == pytest.approx(3 * 3600, abs=60)
    assert ("last_verified_age_seconds", "new") not in found
    assert (found["never_verified", "shop"], found["never_verified", "new"]) == (0, 1)
    assert (found["size_bytes", "shop"], found["stored_bytes", "shop"]) == (2_000_000, 500_000)
    assert found["duration_seconds", "shop"] == 42
    assert found["restore_seconds", "shop"] == 61.5
    assert found["last_drill_age_seconds", "shop"] == pytest.approx(236, abs=60)
    outcomes = {key[1:]: value for key, value in found.items() if key[0] == "pulsewatch_backups_total"}
    assert outcomes[("shop", "completed")] == outcomes[("shop", "failed")] == 1
    assert outcomes[("new", "failed")] == outcomes[("shop", "missed")] == 0


@pytest.mark.django_db
def test_a_missing_scheduled_backup_counts_as_overdue_an_hour_later():
    plan = BackupPlanFactory(cron="* * * * *")
    BackupJobFactory(database=plan.database, started_at=datetime.now(UTC) - timedelta(minutes=30))
    assert figures()["overdue", plan.database.name] == 0

    BackupJob.objects.update(started_at=datetime.now(UTC) - timedelta(minutes=90))
    assert figures()["overdue", plan.database.name] == 1


@pytest.mark.django_db
def test_removing_an_expired_object_takes_nothing_from_the_counters():
    backup = BackupJobFactory()
    key = ("pulsewatch_backups_total", backup.database.name, "completed")
    assert figures()[key] == 1

    BackupJob.objects.update(object_deleted_at=datetime.now(UTC))

    assert figures()[key] == 1
    assert figures()["never_verified", backup.database.name] == 1


@pytest.mark.django_db
def test_thirty_databases_take_as_many_queries_as_one(django_assert_num_queries):
    for _ in range(30):
        RestoreFactory(backup=BackupJobFactory(database=BackupPlanFactory().database))

    with django_assert_num_queries(5):
        figures()


SETUP = """
from tests.factories import RestoreFactory, BackupJobFactory, DatabaseFactory
RestoreFactory(backup=BackupJobFactory(database=DatabaseFactory(name="shop")))
"""


def test_the_page_answers_while_the_database_is_frozen_or_gone_and_recovers(migrated_database, redis_server):
    mariadb = migrated_database
    environment = {"DATABASE_URL": mariadb.url, "REDIS_URL": redis_server.url}
    setup = [sys.executable, "manage.py", "shell", "-v", "0", "-c", SETUP]
    subprocess.run(setup, check=True, env={**os.environ, **environment})
    with served("tests.fast_metrics", WEB_CONCURRENCY="1", **environment) as web:

        def scrape() -> dict[tuple[str, ...], float]:
            reply = web.get("/metrics")
            assert (reply.status, reply.seconds < 2) == (200, True)
            return figures(reply.body.decode())

        def until(up: int) -> dict[tuple[str, ...], float]:
            deadline = time.monotonic() + 20
            while (found := scrape())["pulsewatch_stored_metrics_up", "backups"] != up:
                assert time.monotonic() < deadline
                time.sleep(0.1)
            return found

        assert until(1)["never_verified", "shop"] == 0
        mariadb.freeze()
        frozen = until(0)
        assert ("never_verified", "shop") not in frozen
        assert ("process_resident_memory_bytes",) in frozen
        mariadb.thaw()
        assert until(1)["restore_seconds", "shop"] == 61.5
        mariadb.kill()
        until(0)
        mariadb.restart()
        assert until(1)["never_verified", "shop"] == 0
