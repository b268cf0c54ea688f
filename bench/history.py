"""A million deployments: what an installation of many services has gathered in three years."""

from datetime import UTC, datetime, timedelta

from django.db import connection

from apps.core import ids
from apps.core.choices import Environment
from apps.inventory.models import Service, Workload

EVERY = timedelta(seconds=94)  # which makes three years of them
SERVICES = 400
PREFIX = "history-"  # of their slugs
ENVIRONMENTS = tuple(Environment.values)
OPEN = 30  # at the end
PORTION = 50_000  # rows of one statement

# The busiest service has a twentieth of all, the quietest a thousandth. Every 25th failed, every 100th is a rollback,
# every 90th was cancelled; what is older than 90 days is archived.
_FILL = """
INSERT INTO deployments (
    id, service_id, environment, workload_id, kind, version, status, triggered_by, started_at, completed_at,
    duration_seconds, open_until, github_run_id, commit_sha, commit_message, migration_applied, health_check_passed,
    rollback_reason, error_message, instances_deployed, deployment_platform, domain, undoes_id, override_reason,
    observed, conflict, timed_out, archived, created_at, updated_at
)
SELECT
    DATE_FORMAT(at, 'deploy_%%Y%%m%%d_%%H%%i%%s'), %(service)s + service, ELT(1 + place, {environments}),
    %(workload)s + {count} * service + place, IF(status = 'rolled_back', 'rollback', 'deployment'),
    CONCAT('v', seq DIV 100000, '.', seq DIV 500 %% 200, '.', seq %% 3), status,
    IF(seq %% 5 < 3, 'automated', CONCAT('person-', seq DIV 7 %% 40)),
    at, IF(status = 'in_progress', NULL, at + INTERVAL 4 MINUTE), 240, at + INTERVAL 1 HOUR, seq,
    SHA1(seq), 'Mend what was broken', 0, status = 'completed',
    IF(status = 'rolled_back', 'slow', NULL), IF(status = 'failed', 'It did not answer.', NULL), 2, 'webhook', '',
    IF(status = 'rolled_back', %(undone)s, NULL), '', 0, '', 0, at < UTC_TIMESTAMP() - INTERVAL 90 DAY, at, at
FROM (
    SELECT
        seq, %(start)s + INTERVAL seq * %(every)s SECOND AS at,
        IF(seq > %(closed)s, seq - %(closed)s,
           FLOOR(%(services)s * POW(CONV(LEFT(MD5(seq), 7), 16, 10) / 268435456, 2))) AS service,
        seq DIV 3 %% {count} AS place,
        CASE WHEN seq > %(closed)s THEN 'in_progress' WHEN seq %% 100 = 99 THEN 'rolled_back'
             WHEN seq %% 25 = 1 THEN 'failed' WHEN seq %% 90 = 2 THEN 'cancelled' ELSE 'completed' END AS status
    FROM seq_{first}_to_{last}
) AS made
"""


def fill(now: datetime, *, rows: int) -> None:
    """Write them, by statements of MariaDB's own: a sequence and a hash take the place of chance."""
    Service.objects.bulk_create(
        Service(slug=f"{PREFIX}{number}", name=f"History {number}") for number in range(SERVICES)
    )
    services = list(Service.objects.filter(slug__startswith=PREFIX).order_by("pk"))
    Workload.objects.bulk_create(
        Workload(service=service, environment=environment) for service in services for environment in ENVIRONMENTS
    )
    workloads = Workload.objects.filter(service__in=services).order_by("pk").values_list("pk", flat=True)
    start = now.astimezone(UTC).replace(microsecond=0) - (rows + 1) * EVERY
    given = {
        "start": start.replace(tzinfo=None),
        "every": EVERY.seconds,
        "service": services[0].pk,
        "services": SERVICES,
        "workload": workloads[0],
        "closed": max(rows - OPEN, 0),
        "undone": ids.timestamped("deploy", start + EVERY),
    }
    with connection.cursor() as cursor:
        for first in range(1, rows + 1, PORTION):
            statement = _FILL.format(
                environments=", ".join(f"'{name}'" for name in ENVIRONMENTS),
                count=len(ENVIRONMENTS),
                first=first,
                last=min(first + PORTION - 1, rows),
            )
            cursor.execute(statement, given)
