"""Lists: whole, in order and stable while rows are added; filters filter."""

from datetime import UTC, datetime, timedelta

import pytest

from apps.health.models import HealthCheck
from tests.factories import (
    BackupJobFactory,
    HealthCheckFactory,
    InstanceFactory,
    RestoreFactory,
    ServiceFactory,
    WorkloadFactory,
)

NOON = datetime.now(UTC).replace(microsecond=123456)
pytestmark = pytest.mark.engine


def walk(api, path, between=lambda: None):
    """All rows of a list, page by page; `between` runs after each page."""
    rows, mark = [], ""
    for _ in range(50):
        reply = api.get(f"{path}{mark}")
        assert reply.status_code == 200, reply.content
        page = reply.json()
        rows += page["items"]
        if page["next"] is None:
            return rows
        mark = f"&cursor={page['next']}"
        between()
    raise AssertionError("the list does not end")


def samples(count, **fields):
    instance = InstanceFactory()
    return [
        HealthCheckFactory(instance=instance, timestamp=NOON - timedelta(seconds=n // 3, microseconds=n % 3), **fields)
        for n in range(count)
    ]


def test_pages_give_every_row_once_in_order_while_rows_are_added(api):
    made = samples(10)
    # Two of the same moment: the identifier decides between them.
    made += [HealthCheckFactory(timestamp=made[4].timestamp), HealthCheckFactory(timestamp=made[4].timestamp)]
    expected = [row.pk for row in sorted(made, key=lambda row: (row.timestamp, row.pk), reverse=True)]

    def add():
        HealthCheckFactory(timestamp=NOON + timedelta(seconds=1 + HealthCheck.objects.count()))

    for limit in (1, 3, 12, 200):
        found = [row["id"] for row in walk(api, f"/health-checks?limit={limit}&until={stamp(NOON, 1)}", add)]
        assert found == expected


def stamp(moment, seconds=0):
    return (moment + timedelta(seconds=seconds)).isoformat().replace("+00:00", "Z")


def test_times_go_out_in_utc_with_all_their_digits_and_come_in_with_any_zone(api):
    (row,) = samples(1)

    assert walk(api, "/health-checks?limit=1")[0]["timestamp"] == stamp(row.timestamp)
    berlin = (row.timestamp + timedelta(hours=1)).isoformat().replace("+00:00", "%2B01:00")
    assert walk(api, f"/health-checks?since={berlin}") != []
    assert walk(api, f"/health-checks?since={berlin.replace('%2B', '+')}") != []  # as people forget to encode it
    later = (row.timestamp + timedelta(hours=1, microseconds=1)).isoformat().replace("+00:00", "%2B01:00")
    assert walk(api, f"/health-checks?since={later}") == []


@pytest.mark.parametrize("text", ["2026-03-01", "2026-03-01T12:00:00", "1772366400", "2026-02-30T00:00:00Z", "now",
                                  "0001-01-01T00:00:00%2B14:00", "9999-12-31T23:59:59-14:00"])  # fmt: skip
def test_a_time_without_its_zone_or_out_of_all_range_is_422(api, text):
    reply = api.get(f"/health-checks?since={text}")

    assert (reply.status_code, reply.json()["errors"][0]["field"]) == (422, "since")


def test_filters_leave_the_matching_rows(api):
    shop = WorkloadFactory(service=ServiceFactory(slug="shop"), environment="staging")
    mine = HealthCheckFactory(instance=InstanceFactory(workload=shop, active=False), overall_status="degraded")
    HealthCheckFactory()
    queued = BackupJobFactory(status="queued", completed_at=None)
    drill = RestoreFactory()

    for query in ("service=shop", "environment=staging", f"instance_id={mine.instance_id}", "status=degraded"):
        assert [row["id"] for row in walk(api, f"/health-checks?{query}")] == [mine.pk], query
    for query in ("service=shop", "environment=staging", "active=false"):
        assert [row["id"] for row in walk(api, f"/instances?{query}")] == [mine.instance_id], query
    assert [row["service"] for row in walk(api, "/workloads?environment=staging")] == ["shop"]
    for query in ("status=queued", f"database={queued.database.name}"):
        assert [row["id"] for row in walk(api, f"/backups?{query}")] == [queued.pk], query
    assert [row["id"] for row in walk(api, f"/restores?backup_id={drill.backup_id}&kind=drill")] == [drill.pk]
    assert walk(api, "/restores?status=failed") == []
    assert {"app", "shop"} <= {row["slug"] for row in walk(api, "/services?limit=1")}


def test_a_page_takes_two_queries_however_many_rows_it_has(api, django_assert_num_queries):
    samples(20)
    for path in ("/health-checks", "/instances", "/workloads", "/backups", "/restores", "/builds", "/diagnostics"):
        api.get(path)
        with django_assert_num_queries(2):
            api.get(path)


def test_a_cursor_of_another_list_is_422(api):
    samples(2)
    mark = api.get("/health-checks?limit=1").json()["next"]
    reply = api.get(f"/backups?cursor={mark}")

    assert (reply.status_code, reply.json()["errors"][0]["field"]) == (422, "cursor")
