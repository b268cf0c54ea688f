"""The overview of 1,000 instances and 5,000 endpoints: its first look at the hours of the last day, and the next."""

import logging
import os
from datetime import datetime

from bench import tables
from bench.measure import Cost, Report, median

ENDPOINTS = 5_000
CALLS = 5

# Every 97th is down, every seventh was slow.
STATES = """
INSERT INTO api_health (endpoint_id, environment, status, since, error_message, consecutive_failures,
    consecutive_successes, endpoint_path, http_method, expected_status, response_time, last_checked)
SELECT id, 'production', IF(id MOD 97 = 0, 'failed', 'healthy'), %s, '', IF(id MOD 97 = 0, 9, 0),
    IF(id MOD 97 = 0, 0, 9), endpoint_path, http_method, expected_status, 20, %s
FROM endpoints WHERE workload_id = %s
"""
HOURS = """
INSERT INTO health_hourly (kind, subject, hour, checks, healthy, degraded, down, unknown, maintenance, uptime, measured,
    response_mean_ms, response_p95_ms, response_max_ms)
SELECT 'endpoint', id, %s - INTERVAL seq HOUR, 80, IF(id MOD 97 = 0, 0, IF((id + seq) MOD 7 = 0, 79, 80)),
    IF(id MOD 97 = 0, 0, (id + seq) MOD 7 = 0), IF(id MOD 97 = 0, 80, 0), 0, 0, id MOD 97 <> 0, 80, 90, 300, 420
FROM endpoints JOIN seq_1_to_24 WHERE workload_id = %s
"""
SEALS = """
INSERT INTO health_rolled_hours (kind, hour, checks, rolled_at)
SELECT 'endpoint', %s - INTERVAL seq HOUR, 1, NOW() FROM seq_1_to_24
"""


def run(report: Report, workload: int, end: datetime) -> None:
    """Needs the samples and the instances of `bench.rollups`; makes endpoints, their states and their last 24 hours."""
    from django.contrib.auth import get_user_model
    from django.core.cache import cache
    from django.test import Client, override_settings
    from django.urls import reverse

    from apps.inventory.models import Endpoint

    Endpoint.objects.bulk_create(
        Endpoint(workload_id=workload, name=f"overview-{n}", endpoint_path=f"/{n}") for n in range(ENDPOINTS)
    )
    tables.execute(STATES, end, end, workload)
    tables.execute(HOURS, end, workload)
    tables.execute(SEALS, end)
    tables.settle("endpoints", "api_health", "health_hourly", "health_checks")
    person, client = get_user_model().objects.create_superuser("bench-overview"), Client()

    def look(*, first: bool) -> Cost:
        if first:
            cache.clear()
        client.force_login(person, backend="django.contrib.auth.backends.ModelBackend")
        return tables.cost(lambda: client.get(reverse("admin:index"), secure=True).content)

    logging.disable(logging.INFO)  # of requests and logins
    with override_settings(ALLOWED_HOSTS=["testserver"]):
        look(first=True)  # compiles the templates
        found = {first: [look(first=first) for _ in range(CALLS)] for first in (True, False)}
    logging.disable(logging.NOTSET)
    report.note(f"load of the machine: {os.getloadavg()[0]:.1f}")
    for first, title in ((True, "hours read from the database"), (False, "hours in the cache")):
        cost = median(found[first])
        report.cost(f"overview of 1,000 instances and {ENDPOINTS:,} endpoints, {title}", cost)
        report.ratio(f"seconds for the overview, {title}", cost.seconds, at_most=1)
    Endpoint.objects.filter(workload=workload).delete()
    tables.execute("DELETE FROM health_hourly WHERE kind = 'endpoint'")
