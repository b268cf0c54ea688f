"""Pulsewatch's Celery app in a hurry: a sample and a tick each second, windows evaluated at their end, no warm-up.

Platform `docker` is a folder here: what it runs is a number in the file `count`, each request adds a line to `asked`,
and takes until there is no file `slow`.
"""

import os
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from celery import signals

from pulsewatch.celery import app

SECOND = timedelta(seconds=1)
app.conf.beat_schedule = {
    "sample every instance": {"task": "health.sample", "schedule": SECOND, "options": {"expires": 1}},
    "evaluate scaling policies": {"task": "scaling.tick", "schedule": SECOND, "options": {"expires": 5}},
}


@signals.worker_process_init.connect
def _hurry(**_: Any) -> None:
    """Once Django is set up, in the process that does the work."""
    from apps.health import rules, utilisation
    from apps.inventory import platforms
    from apps.scaling import runner
    from apps.scaling.rules import usage

    rules.SLOT = SECOND
    utilisation.WARM_UP = timedelta(0)
    usage.DELAY = 0
    runner.LEASE = timedelta(seconds=3)
    platforms.SCALERS["docker"] = Folder(Path(os.environ["VAR_DIR"]))


class Folder:
    """A platform that outlives the workers which ask it."""

    unit = "replica"

    def __init__(self, place: Path) -> None:
        self.place = place

    def made(self, settings: Any, secret: str) -> "Folder":
        return self

    def count(self) -> Any:
        from apps.inventory.platforms.base import Count

        running = int((self.place / "count").read_text())
        return Count(running, running)

    def scale(self, to: int, *, seen: Any) -> None:
        with (self.place / "asked").open("a") as file:
            file.write(f"{to}\n")
        while (self.place / "slow").exists():
            time.sleep(0.05)
        (self.place / "count").write_text(str(to))

    def instances(self) -> list[Any]:
        return []
