"""Stores samples as the sampler does, until standard input is closed; then says how long each time took.

`python -m bench.sampler_process`, in the environment of `bench.rollups`.
"""

import json
import os
import select
import sys
import time
from datetime import UTC, datetime, timedelta

import django

PAUSE = 0.5  # seconds between the starts of two batches: 120 times the pace of a real one


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "pulsewatch.settings")
    django.setup()
    from apps.core import ids
    from apps.health import runner
    from apps.health.models import HealthCheck
    from apps.inventory.models import Instance

    instances = list(Instance.objects.all())
    now = datetime.now(UTC)
    newest = HealthCheck.objects.newest_first().values_list("timestamp", flat=True).first()
    slot = max(newest or now, now)
    taken = []
    print("ready", flush=True)
    while not select.select([sys.stdin], [], [], max(0.0, PAUSE - (taken[-1] if taken else PAUSE)))[0]:
        slot += timedelta(seconds=1)
        rows = [
            HealthCheck(
                id=f"{ids.timestamped('health', slot)}_{ids.suffix()}", instance=instance, environment="production",
                timestamp=slot, measured_at=slot, overall_status="healthy", response_time_ms=45,
                database_status="connected", redis_status="connected", cpu_usage_percent=50, memory_usage_percent=40,
            )
            for instance in instances
        ]  # fmt: skip
        started = time.perf_counter()
        runner.store(rows)
        taken.append(time.perf_counter() - started)
    json.dump(taken, sys.stdout)


if __name__ == "__main__":
    main()
