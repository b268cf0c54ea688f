"""A platform in memory, and workloads whose minutes are written by hand."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest

from apps.core.audit import Actor
from apps.core.keys import new_keyset
from apps.health.models import UtilisationMinute
from apps.inventory import platforms
from apps.inventory.models import Workload
from apps.inventory.platforms.base import Count, CountChanged, Found, PlatformUnavailable
from apps.scaling import runner
from apps.scaling.models import ScalingPolicy, policy_id
from tests.factories import ServiceFactory, WorkloadFactory

ME = Actor.automation("test")
NOW = datetime(2026, 3, 2, 12, 0, 20, tzinfo=UTC)  # the window that ended at 12:00 may be evaluated
BOUNDARY = NOW.replace(second=0)


@dataclass
class Twin:
    """The platform in memory: what it runs, what it was asked, and how it misbehaves."""

    desired: int = 2
    follows: bool = True  # whether its count becomes what it was asked for
    down: bool = False
    before_scaling: Callable[[], None] = lambda: None
    asked: list[int] = field(default_factory=list)
    unit: str = "replica"

    def made(self, settings, secret):
        return self

    def count(self) -> Count:
        if self.down:
            raise PlatformUnavailable("The platform in memory does not answer: wait for it.")
        return Count(self.desired, self.desired)

    def scale(self, to: int, *, seen: Count) -> None:
        self.before_scaling()
        if self.down:
            raise PlatformUnavailable("The platform in memory does not answer: wait for it.")
        if seen.desired != self.desired:
            raise CountChanged("Somebody else was faster.")
        self.asked.append(to)
        if self.follows:
            self.desired = to

    def instances(self) -> list[Found]:
        return []


@pytest.fixture(autouse=True)
def keyset(settings) -> None:
    settings.BACKUP_KEYSET = new_keyset()


@pytest.fixture
def twin(monkeypatch) -> Twin:
    made = Twin()
    monkeypatch.setitem(platforms.SCALERS, "docker", made)
    monkeypatch.setattr(runner, "CONFIRM_SECONDS", 0.2)
    monkeypatch.setattr(runner, "LOOK_SECONDS", 0.01)
    return made


@pytest.fixture
def policy(db) -> ScalingPolicy:
    return policy_for(WorkloadFactory(service=ServiceFactory(slug="shop"), environment="production", platform="docker"))


def policy_for(workload: Workload, **options: object) -> ScalingPolicy:
    defaults = {"min_instances": 1, "max_instances": 6}
    return ScalingPolicy.objects.create(
        id=policy_id(workload.service.slug, workload.environment),
        service=workload.service,
        environment=workload.environment,
        **{**defaults, **options},
    )


def workload_of(policy: ScalingPolicy) -> Workload:
    return Workload.objects.get(service=policy.service_id, environment=policy.environment)


def minutes(workload: Workload, cpu: float, memory: float = 50.0, *, count: int = 2, reported: int | None = None,
            until: datetime = BOUNDARY, length: int = 10) -> None:  # fmt: skip
    """So many minutes up to a boundary, in each of which every instance used this much."""
    seen = count if reported is None else reported
    UtilisationMinute.objects.bulk_create(
        UtilisationMinute(
            workload=workload,
            minute=until - timedelta(minutes=place),
            expected=count,
            reported=seen,
            warming=0,
            cpu_sum=cpu * seen,
            cpu_count=seen,
            memory_sum=memory * seen,
            memory_count=seen,
            warming_cpu_sum=0,
            warming_cpu_count=0,
            warming_memory_sum=0,
            warming_memory_count=0,
            samples=seen,
        )
        for place in range(1, length + 1)
    )
