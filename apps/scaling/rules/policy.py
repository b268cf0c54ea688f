"""The settings of a scaling policy, and what is wrong with them."""

from collections.abc import Iterator
from dataclasses import dataclass

MINUTE = 60  # seconds
# The words are those of apps.scaling.choices; plain strings here keep the rules free of Django.
CPU, MEMORY = "cpu", "memory"
NAMES = {CPU: "CPU", MEMORY: "memory"}


@dataclass(frozen=True, slots=True)
class Policy:
    """One policy. Thresholds are shares of 1, targets percentages, times seconds."""

    min_instances: int = 1
    max_instances: int = 3
    scale_up_threshold: float = 0.8
    scale_down_threshold: float = 0.4
    scale_up_cooldown_seconds: int = 300
    scale_down_cooldown_seconds: int = 600
    evaluation_period_seconds: int = 300
    datapoints_to_trigger: int = 2
    target_cpu_percent: float = 70.0
    target_memory_percent: float = 75.0
    metrics: tuple[str, ...] = (CPU, MEMORY)

    @property
    def lookback(self) -> int:
        """Seconds that one evaluation looks back on."""
        return self.evaluation_period_seconds * self.datapoints_to_trigger


def faults(policy: Policy) -> dict[str, str]:
    """What is wrong with the settings, by field; empty when all is well."""
    return dict([*_of_bounds(policy), *_of_thresholds(policy), *_of_times(policy)])


def _of_bounds(policy: Policy) -> Iterator[tuple[str, str]]:
    if policy.min_instances < 1:
        yield "min_instances", "Keep at least one instance."
    if policy.max_instances < policy.min_instances:
        yield "max_instances", f"The maximum must not be below the minimum of {policy.min_instances}."


def _of_thresholds(policy: Policy) -> Iterator[tuple[str, str]]:
    low, high = policy.scale_down_threshold, policy.scale_up_threshold
    for name, share in (("scale_up_threshold", high), ("scale_down_threshold", low)):
        if not 0 < share <= 1:
            yield name, "Give a share above 0 and up to 1: 0.8 means 80 %."
            return
    if low >= high:
        yield (
            "scale_down_threshold",
            f"It must lie below the threshold for scaling up, which is {percent(high)}: else the count never rests.",
        )
        return
    for name in ("target_cpu_percent", "target_memory_percent"):
        if not low < getattr(policy, name) / 100 < high:
            yield name, f"The target must lie between the thresholds: above {percent(low)}, below {percent(high)}."


def _of_times(policy: Policy) -> Iterator[tuple[str, str]]:
    for name in ("scale_up_cooldown_seconds", "scale_down_cooldown_seconds"):
        if getattr(policy, name) < 0:
            yield name, "Give 0 seconds or more."
    if policy.evaluation_period_seconds < MINUTE or policy.evaluation_period_seconds % MINUTE:
        yield "evaluation_period_seconds", "Give whole minutes in seconds, such as 300: figures are kept by the minute."
    if policy.datapoints_to_trigger < 1:
        yield "datapoints_to_trigger", "At least one window must speak for a change."
    if not policy.metrics or set(policy.metrics) - {CPU, MEMORY}:
        yield "metrics", "Choose CPU, memory or both."


def percent(share: float) -> str:
    """A share of 1 for people."""
    return f"{f'{100 * share:.1f}'.removesuffix('.0')} %"
