"""Databases in the console: how each answers, beside its backups; Redis servers, which have none."""

from datetime import timedelta

import pytest
from django.urls import reverse
from django.utils import timezone

from apps.console.roles import ensure_groups
from apps.core.models import AuditEntry
from apps.health.models import DatabaseCheck, DatabaseState
from apps.inventory.models import Database
from tests.factories import BackupPlanFactory, UserFactory

pytestmark = pytest.mark.django_db


@pytest.fixture
def operator(client):
    ensure_groups()
    client.force_login(
        UserFactory(username="operator", group="operator"), backend="django.contrib.auth.backends.ModelBackend"
    )
    return client


def state(database: Database, **given: object) -> DatabaseState:
    now = timezone.now()
    facts = {
        "status": "healthy",
        "since": now - timedelta(hours=2),
        "last_tested": now,
        "connection_status": "connected",
    }
    facts |= {"query_test_status": "success", "average_query_time": 1.4, "connect_ms": 3.1, "query_ms": 1.2}
    return DatabaseState.objects.create(
        database=database, environment="production", connection_name=database.name, **{**facts, **given}
    )


def test_a_page_tells_health_and_backups_of_a_database(operator):
    database = BackupPlanFactory(database__name="shop").database
    state(
        database, status="failed", error_message="refused the connection", connection_pool_size=41, connections_max=151
    )
    DatabaseCheck.objects.create(database=database, at=timezone.now() - timedelta(minutes=1), status="failed")

    text = operator.get(reverse("admin:inventory_database_change", args=[database.pk])).content.decode()

    for words in ("Failed, for 2 h now: refused the connection.", "41 of 151 (27%)", "Newest verified", "Check now"):
        assert words in text, words
    assert 'class="bad"' in text
    listed = operator.get(reverse("admin:inventory_database_changelist")).content.decode()
    assert "refused the connection" in listed


def test_how_closely_a_database_is_watched_is_changed_with_its_faults_explained(operator):
    database = BackupPlanFactory(database__name="shop").database
    page = reverse("admin:inventory_database_watch", args=[database.pk])
    sent = {"watch": "on", "interval_seconds": 30, "timeout_seconds": 40, "slow_query_ms": 50,
            "failures_before_down": 2, "successes_before_up": 1}  # fmt: skip
    assert "must not be longer than the interval" in operator.post(page, sent).content.decode()
    assert "greater than or equal to 10" in operator.post(page, sent | {"interval_seconds": 1}).content.decode()

    assert operator.post(page, sent | {"timeout_seconds": 4}).status_code == 302

    database.refresh_from_db()
    assert (database.interval_seconds, database.timeout_seconds, database.slow_query_ms) == (30, 4, 50)
    assert AuditEntry.objects.get(action="database.watch").actor == "operator"


def test_a_redis_server_is_watched_and_nobody_asks_for_its_backups(operator):
    page = reverse("admin:inventory_database_watch_only")
    sent = {"name": "cache", "environment": "staging", "service": "app", "url": "redis://:hunter2hunter2@cache/0"}
    wrong = operator.post(page, sent | {"url": "mysql://shop@db/shop"}).content.decode()
    assert "starts with redis://" in wrong

    assert operator.post(page, sent).status_code == 302

    database = Database.objects.get()
    text = operator.get(reverse("admin:inventory_database_change", args=[database.pk])).content.decode()
    assert "watched only" in text
    assert "hunter2" not in text
    assert "Back up now" not in text
    assert "watched only" in operator.get(reverse("admin:inventory_database_changelist")).content.decode()
    overview = operator.get(reverse("admin:index")).content.decode()
    assert "not backed up" in overview
