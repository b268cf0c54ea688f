"""What workers and beat are sent. All of it is short, so it belongs to queue `fast`."""

from celery import shared_task
from django.utils import timezone

from apps.core.wake import wake
from apps.deployments import alarms, runner


@shared_task(name="deployments.gate")
def gate(key: str) -> None:
    """One look of a gate, and the wake-up for the next one."""
    found = runner.look(key, now=timezone.now())
    if found is not None and found.verdict is None:
        wake("deployments.gate", key, seconds=max(0.0, (found.next_look_at - timezone.now()).total_seconds()))


@shared_task(name="deployments.roll_back")
def roll_back(key: str) -> None:
    """Run one queued rollback."""
    runner.roll_back(key, now=timezone.now())


@shared_task(name="deployments.alarms")
def settle_alarms(workload_id: str) -> None:
    """The alerts of a workload, right after a deployment of it has ended."""
    alarms.check(timezone.now(), workload_id=int(workload_id))


@shared_task(name="deployments.tick")
def tick() -> None:
    """Once a minute."""
    runner.tick(timezone.now())
    alarms.check(timezone.now())
