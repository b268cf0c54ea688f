"""A backtest of ninety days, and the tick in which two hundred policies hold."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from bench.measure import Cost, Report, median

DAYS, INSTANCES = 90, 50  # of the backtest
POLICIES, THEIR_INSTANCES = 200, 5  # of the tick: the minutes of 1,000 instances
SECONDS = {300: 2, 60: 5}  # of a backtest, by the seconds of a window: two replays of 25,920 and of 129,600
TICK_SECONDS, STATEMENTS = 2, 10
RUNS = 3

# A wave a day with some noise on it: a policy has to move up and down, and rests in between.
MINUTES = """
INSERT INTO utilisation_minutes (workload_id, minute, expected, reported, warming, cpu_sum, cpu_count, memory_sum,
    memory_count, warming_cpu_sum, warming_cpu_count, warming_memory_sum, warming_memory_count, samples)
SELECT workloads.id, %s - INTERVAL seq MINUTE, {instances}, {instances} - (seq MOD 97 = 0), 0,
    ({instances} - (seq MOD 97 = 0)) * (50 + {swing} * SIN(seq * PI() / 720) + CRC32(seq) MOD 10),
    {instances} - (seq MOD 97 = 0), {instances} * 30, {instances} - (seq MOD 97 = 0), 0, 0, 0, 0, {instances}
FROM seq_1_to_{minutes} JOIN workloads JOIN services ON services.id = workloads.service_id
WHERE services.slug LIKE %s
"""


def run(report: Report) -> None:
    """Needs DATABASE_URL, a MariaDB of our own, and Django set up."""
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    now = datetime.now(UTC).replace(second=30, microsecond=0)
    _backtest(report, now)
    _tick(report, now)


def _backtest(report: Report, now: datetime) -> None:
    """Another threshold for scaling up, beside the policy in force: two replays of the same minutes."""
    from apps.inventory.models import Service, Workload
    from apps.scaling import backtest
    from apps.scaling.models import ScalingPolicy

    service = Service.objects.create(slug="replayed", name="Replayed")
    Workload.objects.create(service=service, environment="production")
    policy = ScalingPolicy(id="policy_replayed_production", service=service, environment="production",
                           min_instances=10, max_instances=80)  # fmt: skip
    policy.save(force_insert=True)
    _execute(MINUTES.format(instances=INSTANCES, swing=35, minutes=DAYS * 1440), now.replace(second=0), "replayed")
    for period, bound in SECONDS.items():
        ScalingPolicy.objects.update(evaluation_period_seconds=period)
        policy.refresh_from_db()
        tried = backtest.changed(policy, {"scale_up_threshold": 0.9})
        found = backtest.backtest(policy=tried, days=DAYS, now=now)
        report.note(
            f"{found.minutes:,} minutes, {len(found.tried.decisions):,} windows of {period} s, "
            f"{found.tried.figures.actions:,} and {found.present.figures.actions:,} actions"
        )
        del found
        runs = [_cost(partial(backtest.backtest, policy=tried, days=DAYS, now=now)) for _ in range(RUNS)]
        name = f"backtest of {DAYS} days by the minute over {INSTANCES} instances, windows of {period} s"
        report.cost(name, median(runs))
        report.ratio(f"{name}: seconds", median(runs).seconds, at_most=bound)


def _tick(report: Report, now: datetime) -> None:
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    from apps.inventory import platforms
    from apps.inventory.models import Service, Workload
    from apps.scaling import runner
    from apps.scaling.models import ScalingDecision, ScalingPolicy

    ScalingPolicy.objects.all().delete()
    platforms.SCALERS["docker"] = _Still(THEIR_INSTANCES)  # the time of platforms that answer is theirs
    Service.objects.bulk_create(Service(slug=f"still-{number}", name="Still") for number in range(POLICIES))
    services = list(Service.objects.filter(slug__startswith="still-"))
    Workload.objects.bulk_create(Workload(service=one, environment="production", platform="docker") for one in services)
    ScalingPolicy.objects.bulk_create(
        ScalingPolicy(id=f"policy_{one.slug}_production", service=one, environment="production", max_instances=9)
        for one in services
    )
    _execute(MINUTES.format(instances=THEIR_INSTANCES, swing=5, minutes=1440), now.replace(second=0), "still-%")
    boundary = now - timedelta(seconds=now.timestamp() % 300 - 20)
    taken, statements = [], []
    for _ in range(RUNS):
        ScalingDecision.objects.all().delete()
        with CaptureQueriesContext(connection) as seen:
            started = time.perf_counter()
            runner.tick(boundary)
            taken.append(time.perf_counter() - started)
        # Beside the BEGIN and the COMMIT around the one that writes.
        statements.append(sum(query["sql"] not in ("BEGIN", "COMMIT") for query in seen.captured_queries))
        if ScalingDecision.objects.filter(action="hold").count() != POLICIES:
            raise RuntimeError("not every policy held")
    name = f"tick in which {POLICIES} policies hold, over the minutes of {POLICIES * THEIR_INSTANCES:,} instances"
    report.ratio(f"{name}: seconds", statistics.median(taken), at_most=TICK_SECONDS)
    report.ratio(f"{name}: statements", max(statements), at_most=STATEMENTS)


@dataclass(frozen=True)
class _Still:
    """A platform in memory that always runs the same number."""

    running: int

    def made(self, settings: Any, secret: str) -> "_Still":
        return self

    def count(self) -> Any:
        from apps.inventory.platforms.base import Count

        return Count(self.running, self.running)


def _execute(statement: str, *values: object) -> None:
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute(statement, values)


def _cost(work: Callable[[], object]) -> Cost:
    started, used = time.perf_counter(), time.process_time()
    work()
    return Cost(time.perf_counter() - started, time.process_time() - used)
