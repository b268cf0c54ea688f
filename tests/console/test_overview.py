"""The overview: what is wrong, and the last 24 hours of each environment on one axis."""

from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from apps.alerts.models import Alert, MaintenanceWindow
from apps.console.models import Note
from apps.console.roles import ensure_groups
from apps.console.timeline import Timeline
from apps.core import ids
from apps.core.charts import BAD, GOOD, WARNING
from apps.health.models import DatabaseState, HealthHourly, RolledHour
from apps.health.rules import hour_of
from apps.inventory.models import Database, Instance
from tests.console.test_endpoints import state
from tests.factories import (
    BackupJobFactory,
    DatabaseFactory,
    DeploymentFactory,
    EndpointFactory,
    HealthCheckFactory,
    InstanceFactory,
    UserFactory,
    WorkloadFactory,
)

pytestmark = pytest.mark.django_db

HOUR = timedelta(hours=1)


@pytest.fixture
def viewer(client):
    ensure_groups()
    client.force_login(
        UserFactory(username="viewer", group="viewer"), backend="django.contrib.auth.backends.ModelBackend"
    )
    return client


def alert(now, **given: object) -> Alert:
    facts = {"kind": "endpoint_down", "severity": "critical", "environment": "production", "service": "shop"}
    return Alert.objects.create(**{"opened_at": now - timedelta(minutes=17), **facts, **given})


def broken(now) -> None:
    """Something of each kind that there may be on one axis."""
    shop = WorkloadFactory(base_url="https://shop.example")
    state(EndpointFactory(workload=shop, endpoint_path="/fine"), "healthy")
    down = EndpointFactory(workload=shop, endpoint_path="/down")
    state(down, "failed", since=now - timedelta(minutes=20), error_message="refused the connection")
    database = DatabaseFactory(name="shop", service=shop.service)
    DatabaseState.objects.create(
        database=database, environment="production", status="degraded", since=now - HOUR, connection_name="shop"
    )
    HealthCheckFactory(instance=InstanceFactory(workload=shop), timestamp=now - timedelta(minutes=1))
    began = now - timedelta(minutes=21)
    DeploymentFactory(pk=f"{ids.timestamped('deploy', began)}_a", workload=shop, version="v7.7.7", started_at=began)
    Note.objects.create(at=now - HOUR, text="DNS changed", environment="production", by="ana")
    alert(now, pk="alert_1", subject="endpoint:1", title="GET /down is down")
    BackupJobFactory(database=database)
    BackupJobFactory(database=database, status="failed", started_at=now - 3 * HOUR, error_message="no room")
    window = now - timedelta(hours=5)
    MaintenanceWindow.objects.create(
        name="patching", first_day=window.date(), start_time=window.time().replace(microsecond=0), minutes=30
    )


def test_what_is_wrong_stands_on_top_and_what_happened_before_on_one_axis(viewer):
    broken(timezone.now())

    text = viewer.get(reverse("admin:index")).content.decode()

    order = [text.index(words) for words in ("GET /down is down", "data-timeline", "data-endpoints")]
    assert order == sorted(order)
    timeline = text[text.index("data-timeline") : text.index("data-endpoints")]
    for words in (
        "Instances",
        "Endpoints",
        "Databases",
        "Alerts",
        "Backups",
        "v7.7.7",
        "DNS changed (ana)",
        "patching",
    ):
        assert words in timeline, words
    assert "backup of shop failed" in timeline
    assert "refused the connection" in text
    assert "1 failed" in text.lower()
    assert "Add a note" not in text  # a viewer writes none


def test_the_overview_costs_the_same_queries_however_many_rows_there_are(viewer):
    now = timezone.now()
    broken(now)
    RolledHour.objects.create(kind="endpoint", hour=hour_of(now) - 2 * HOUR, checks=1, rolled_at=now)
    viewer.get(reverse("admin:index"))  # reads what is kept from then on
    counts = []
    for turn in range(2):
        with CaptureQueriesContext(connection) as asked:
            assert viewer.get(reverse("admin:index")).status_code == 200
        counts.append(len(asked))
        for number in range(30):
            endpoint = EndpointFactory()
            state(endpoint, "failed", since=now - timedelta(minutes=number))
            alert(now, pk=f"alert_{turn}_{number}_more", subject=f"endpoint:{endpoint.pk}", title="down")
            HealthCheckFactory(instance=InstanceFactory(), overall_status="unhealthy")
            BackupJobFactory()
            Note.objects.create(at=now, text="x", environment="staging", by="ana")

    assert counts[0] == counts[1]
    assert counts[0] <= 36
    assert "more that are not healthy" in viewer.get(reverse("admin:index")).content.decode()


def lanes(now) -> dict[str, list[tuple[str, float, float]]]:
    instances = list(Instance.objects.select_related("workload"))
    timeline = Timeline(now, instances=instances, databases=list(Database.objects.select_related("health")))
    timeline.health()
    timeline.alerts()
    return {
        lane.name: [(run.state, run.x, run.x + run.width) for run in lane.runs]
        for lane in timeline.chart("production").lanes
    }


def test_a_strip_is_as_bad_as_its_hours_and_ends_as_it_is_now():
    now = timezone.now().replace(minute=30, second=0, microsecond=0)
    row = EndpointFactory()
    type(row).objects.update(created_at=now - 10 * HOUR)
    state(row, "failed", since=now - timedelta(minutes=20))
    full = now.replace(minute=0)
    for back in range(1, 6):
        RolledHour.objects.create(kind="endpoint", hour=full - back * HOUR, checks=60, rolled_at=now)
        worst = {4: {"down": 2}, 3: {"degraded": 2}}.get(back, {})
        counts = {
            "healthy": 60 - sum(worst.values()),
            "degraded": 0,
            "down": 0,
            "unknown": 0,
            "maintenance": 0,
            **worst,
        }
        HealthHourly.objects.create(
            kind="endpoint", subject=str(row.pk), hour=full - back * HOUR, checks=60, measured=0, uptime=1, **counts
        )

    per_hour = 720 / 24
    (strip,) = [lanes(now)["Endpoints"]]

    assert strip == [
        (GOOD, pytest.approx(720 - 5.5 * per_hour, abs=1), 720 - 4.5 * per_hour),
        (BAD, 720 - 4.5 * per_hour, 720 - 3.5 * per_hour),
        (WARNING, 720 - 3.5 * per_hour, 720 - 2.5 * per_hour),
        (GOOD, 720 - 2.5 * per_hour, 710),
        (BAD, 710, 720),
    ]


def test_hours_that_are_over_are_read_once_until_they_are_summed_up_anew():
    now = timezone.now()
    row, hour = EndpointFactory(), hour_of(now) - 2 * HOUR
    type(row).objects.update(created_at=now - 10 * HOUR)
    state(row, "healthy")
    seal = RolledHour.objects.create(kind="endpoint", hour=hour, checks=60, rolled_at=now - HOUR)
    found = HealthHourly.objects.create(
        kind="endpoint", subject=str(row.pk), hour=hour, checks=60, healthy=60, degraded=0, down=0, unknown=0,
        maintenance=0, measured=0, uptime=1,
    )  # fmt: skip

    def states() -> list[str]:
        return [name for name, _, _ in lanes(now)["Endpoints"]]

    assert BAD not in states()
    HealthHourly.objects.filter(pk=found.pk).update(healthy=50, down=10)
    assert BAD not in states()  # not read again
    RolledHour.objects.filter(pk=seal.pk).update(rolled_at=now)
    assert BAD in states()


def test_an_environment_nobody_looked_at_has_gaps_and_no_colour():
    now = timezone.now()
    EndpointFactory()  # never checked
    alert(now, pk="alert_1", subject="endpoint:1", title="x", closed_at=now - timedelta(minutes=7), severity="warning")

    found = lanes(now)

    assert "Endpoints" not in found
    ((state_, first, last),) = found["Alerts"]
    assert (state_, last - first) == (WARNING, 5)
