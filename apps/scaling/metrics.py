"""What Prometheus is told of scaling, read from rows. The labels are services, environments and words."""

from collections import Counter
from collections.abc import Iterator

from django.db.models import Count, OuterRef, Subquery
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from apps.inventory.models import Workload
from apps.scaling.choices import Outcome
from apps.scaling.models import ScalingDecision, ScalingEvent, ScalingPolicy, ScalingTotal
from apps.scaling.runner import UNREACHED

PLACE = ["service", "environment"]


def read() -> Iterator[Metric]:
    """Counts, bounds and targets of each policy, and how many decisions and changes there were. Six queries."""
    policies = list(_policies())
    yield from _gauges(policies)
    workloads = {row.pk: row for row in Workload.objects.select_related("service")}
    decided: Counter[tuple[str, ...]] = Counter()
    changed: Counter[tuple[str, ...]] = Counter()
    # By columns that one index holds each; what was forgotten stands in the totals.
    by_policy = {row.pk: row for row in policies}
    rows = ScalingDecision.objects.order_by().values_list("policy", "action").annotate(Count("pk"))
    for policy_id, action, count in rows:
        if policy_id in by_policy:
            decided[*_place(by_policy[policy_id]), action] += count
    ended = ScalingEvent.objects.exclude(success=None).order_by()
    for workload_id, action, success, count in ended.values_list("workload", "action", "success").annotate(Count("pk")):
        if workload_id in workloads:
            outcome = Outcome.SUCCESS if success else Outcome.FAILED
            changed[*_place(workloads[workload_id]), action, outcome.value] += count
    for total in ScalingTotal.objects.select_related("service"):
        if total.outcome == Outcome.DECIDED:
            decided[*_place(total), total.action] += total.count
        else:
            changed[*_place(total), total.action, total.outcome] += total.count
    yield _family("pulsewatch_scaling_decisions", "Evaluations of policies by what they decided", ["action"], decided)
    meaning = "Changes of the number of instances by how they ended"
    yield _family("pulsewatch_scaling_events", meaning, ["action", "outcome"], changed)


def _policies() -> Iterator[ScalingPolicy]:
    newest = ScalingDecision.objects.filter(policy=OuterRef("pk")).exclude(rule=UNREACHED).order_by("-boundary")
    workload = Workload.objects.filter(service=OuterRef("service"), environment=OuterRef("environment")).values("pk")
    rows = ScalingPolicy.objects.select_related("service").annotate(
        ran=Subquery(newest.values("instances_before")[:1]),
        known_at=Subquery(newest.values("boundary")[:1]),
        scaled=Subquery(workload[:1]),
    )
    done = ScalingEvent.objects.successful().filter(workload=OuterRef("scaled")).newest_first()
    return rows.annotate(
        scaled_to=Subquery(done.values("instances_after")[:1]), scaled_at=Subquery(done.values("timestamp")[:1])
    ).iterator()


def _gauges(policies: list[ScalingPolicy]) -> Iterator[Metric]:
    for name, meaning, values in (
        ("instances", "How many instances run, as far as is known", [_count(row) for row in policies]),
        ("min_instances", "The fewest instances of the policy", [row.min_instances for row in policies]),
        ("max_instances", "The most instances of the policy", [row.max_instances for row in policies]),
        ("enabled", "1 while the policy is evaluated, 0 while it is off", [row.enabled for row in policies]),
    ):
        family = GaugeMetricFamily(f"pulsewatch_scaling_{name}", meaning, labels=PLACE)
        for row, value in zip(policies, values, strict=True):
            if value is not None:
                family.add_metric(_place(row), value)
        yield family
    targets = GaugeMetricFamily(
        "pulsewatch_scaling_target_average_utilization",
        "Target of the policy in percent, as a HorizontalPodAutoscaler's averageUtilization",
        labels=[*PLACE, "resource"],
    )
    for row in policies:
        named = {"cpu": row.target_cpu_percent, "memory": row.target_memory_percent}
        for metric in row.rule().metrics:
            targets.add_metric([*_place(row), metric], named[metric])
    yield targets


def _count(row: ScalingPolicy) -> int | None:
    """What the newest evaluation saw, or what has been confirmed since."""
    if row.scaled_at is not None and (row.known_at is None or row.scaled_at >= row.known_at):
        return row.scaled_to
    return row.ran


def _place(row: ScalingPolicy | ScalingTotal | Workload) -> list[str]:
    return [row.service.slug, row.environment]


def _family(name: str, meaning: str, labels: list[str], counted: Counter[tuple[str, ...]]) -> Metric:
    family = CounterMetricFamily(name, meaning, labels=[*PLACE, *labels])
    for values, count in counted.items():
        family.add_metric(values, count)
    return family
