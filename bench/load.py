"""`make load`: with `make run` up, bounded load on Pulsewatch itself until it adds a web worker, then none until it
removes the worker again.

Registers workload `pulsewatch/staging` on this console's own gunicorn, with a policy that decides every minute, prints
what is measured, decided and done, and removes what it registered (`--keep` leaves it). Takes five to ten minutes:
samples are a minute apart.
"""

import argparse
import signal
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

import django
import psutil

from pulsewatch.env import require_settings_module

LOAD_CORES = 0.3  # what the requests make the web server use
LIMIT_CORES = 0.4  # what counts as all it may use: the load is three quarters of it, whatever the machine
CLIENTS = 4  # on a busy machine each waits for its answers, and they use less
LOOK_SECONDS = 1.0
MOST_MINUTES = 10  # of load, and again of waiting for the worker to go
SETTINGS = {
    "scale_up_threshold": 0.4,
    "scale_down_threshold": 0.2,
    "scale_up_cooldown_seconds": 60,
    "scale_down_cooldown_seconds": 60,
    "evaluation_period_seconds": 60,
    "datapoints_to_trigger": 1,
    "target_cpu_percent": 30,
    "target_memory_percent": 30,
    "metrics": "cpu",
}
TRIED = "scale_up_threshold=0.9"  # of the backtest at the end


def main() -> int:
    parser = argparse.ArgumentParser(prog="make load", description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--keep", action="store_true", help="leave workload, policy and history for a look at them")
    parser.add_argument(
        "--minutes", type=float, default=MOST_MINUTES, help=f"of load at most (default: {MOST_MINUTES})"
    )
    chosen = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    require_settings_module()
    django.setup()
    from django.conf import settings

    try:
        return show(settings.LOCAL_URL, Path(settings.VAR_DIR) / "web.pid", minutes=chosen.minutes, keep=chosen.keep)
    except KeyboardInterrupt:
        return 1


def show(url: str, pid_file: Path, *, minutes: float = MOST_MINUTES, keep: bool = False) -> int:
    """All of it; 0 when a worker process came and went again."""
    from django.core.management import call_command

    from apps.core.errors import PulsewatchError
    from apps.inventory.platforms.gunicorn import Gunicorn

    server = Gunicorn(pid_file)
    try:
        before = server.count().desired
        workload = register(url, pid_file, before)
    except PulsewatchError as error:
        _stop(f"{error} (`make run` has to be up in this folder, with the same PORT and VAR_DIR.)")
    say(
        f"{url} has {before} web worker{'s' * (before != 1)}; the policy of {workload} allows {before} to {before + 1}."
    )
    watch = Watch(workload.pk, server)
    try:
        with Load(url, int(pid_file.read_text())):
            say(f"Sending requests worth {LOAD_CORES:g} cores; {LIMIT_CORES:g} count as 100 %.")
            came = watch.until(lambda: watch.workers > before, minutes)
        say("No more requests.")
        went = came and watch.until(lambda: watch.workers == before, MOST_MINUTES)
        watch.settled()
        if watch.minutes_seen:
            print(flush=True)
            call_command("scaling", "backtest", str(workload), "--days", "1", "--set", TRIED)
    finally:
        if keep:
            say(f"{workload} and its policy stay. Change its platform to advisory when you have seen enough.")
        else:
            remove(workload, server, before)
    say("A web worker was added under load and removed after it." if came and went else _failure(came, minutes))
    return 0 if came and went else 1


def _failure(came: bool, minutes: float) -> str:
    if came:
        return "The worker was added and not removed: the decisions above say why."
    return f"No worker was added within {minutes:g} minutes: the decisions above say why."


# --- What is registered -----------------------------------------------------------------------------------------------


def register(url: str, pid_file: Path, workers: int) -> Any:
    """The workload, its instance and its policy, made or as an earlier run left them. Raises a PulsewatchError."""
    from apps.core.errors import Conflict
    from apps.inventory import services as inventory
    from apps.inventory.choices import Platform
    from apps.inventory.models import OWN_SERVICE, Instance
    from apps.scaling import services
    from apps.scaling.models import ScalingPolicy

    workload = inventory.ensure_workload(service=OWN_SERVICE, environment="staging", actor=_actor())
    ours = {"pid_file": str(pid_file)}
    if workload.platform != Platform.ADVISORY and workload.platform_settings != ours:
        raise Conflict(f"{workload} is somebody's already, on platform {workload.get_platform_display()}.")
    if workload.instances.filter(active=True).exclude(url=url).exists():
        raise Conflict(f"{workload} has instances of its own already: it is no workload to play with.")
    workload.platform, workload.platform_settings = Platform.GUNICORN, ours
    inventory.save(workload, actor=_actor())
    if not Instance.objects.filter(workload=workload, active=True).exists():
        inventory.register_instance(
            name="make-load", workload=workload, url=url, cpu_limit_cores=LIMIT_CORES, actor=_actor()
        )
    policy = ScalingPolicy.objects.filter(service=workload.service, environment="staging").first()
    policy = policy or ScalingPolicy(service=workload.service, environment="staging")
    for name, value in {**SETTINGS, "min_instances": workers, "max_instances": workers + 1, "enabled": True}.items():
        setattr(policy, name, value)
    services.save_policy(policy, actor=_actor())
    return workload


def remove(workload: Any, server: Any, workers: int) -> None:
    """Everything of the workload, its history too; the web server gets back to the workers it had."""
    from django.db import IntegrityError, transaction

    from apps.core import audit
    from apps.core.errors import PulsewatchError
    from apps.inventory.services import subject
    from apps.scaling.models import ScalingEvent, ScalingPolicy

    try:
        with transaction.atomic():
            ScalingPolicy.objects.filter(service=workload.service_id, environment=workload.environment).delete()
            ScalingEvent.objects.filter(workload=workload).delete()
            workload.instances.all().delete()
            workload.delete()
            audit.record(actor=_actor(), action="workload.delete", subject=subject(workload), before={}, after={})
        say(f"Removed {workload} with its policy and history.")
    except IntegrityError as error:  # a deployment of it, say, or a sample that was just being stored
        say(f"{workload} could not be removed ({error.__class__.__name__}): run `make load` once more.")
    try:
        seen = server.count()
        if seen.desired != workers:
            server.scale(workers, seen=seen)
    except PulsewatchError as error:
        say(str(error))


def _actor() -> Any:
    from apps.core.audit import Actor

    return Actor.automation("make load")


# --- Load -------------------------------------------------------------------------------------------------------------


class Load:
    """Requests for the sign-in page, as many as make the web server use LOAD_CORES, from entering to leaving."""

    def __init__(self, url: str, master: int) -> None:
        self._page, self._master = f"{url}/admin/login/", psutil.Process(master)
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._send, daemon=True) for _ in range(CLIENTS)]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(10)

    def _send(self) -> None:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        began, used = time.monotonic(), self._used()
        while not self._over.is_set():
            elapsed = time.monotonic() - began
            if elapsed > LOOK_SECONDS:  # what a busy machine did not get done is not made up for
                began, used, elapsed = time.monotonic(), self._used(), 0.0
            if self._used() - used > LOAD_CORES * elapsed:
                self._over.wait(0.02)
                continue
            try:
                with opener.open(self._page, timeout=10) as answer:
                    answer.read()
            except OSError:
                self._over.wait(0.5)  # a worker was replaced, or the console is going down

    def _used(self) -> float:
        """CPU seconds of the whole web server so far."""
        seconds = 0.0
        for process in (self._master, *self._master.children()):
            try:
                times = process.cpu_times()
            except psutil.NoSuchProcess:
                continue
            seconds += times.user + times.system + times.children_user + times.children_system
        return seconds


# --- What is seen -----------------------------------------------------------------------------------------------------


@dataclass
class Watch:
    """Prints what is new about the workload, each thing once."""

    workload_id: int
    server: Any
    workers: int = 0
    minutes_seen: set[datetime] = field(default_factory=set)
    _printed: set[str] = field(default_factory=set)

    def until(self, condition: Callable[[], bool], minutes: float) -> bool:
        """Look and print until the condition holds; False when it did not within so many minutes."""
        deadline = time.monotonic() + 60 * minutes
        while True:
            self._look()
            if condition():
                return True
            if time.monotonic() > deadline:
                return False
            time.sleep(LOOK_SECONDS)

    def settled(self) -> None:
        """Wait, not for long, until the last change is confirmed."""
        from apps.scaling.models import ScalingEvent

        unsettled = ScalingEvent.objects.unsettled().filter(workload=self.workload_id)
        self.until(lambda: not unsettled.exists(), 1)

    def _look(self) -> None:
        from apps.core.errors import PulsewatchError

        try:
            workers = self.server.count().desired
            if workers != self.workers:
                say(f"web workers: {workers}")
            self.workers = workers
        except PulsewatchError as error:
            self._once(str(error))
        for line in self._news():
            self._once(line)

    def _news(self) -> Iterator[str]:
        from apps.health.models import UtilisationMinute
        from apps.inventory.models import OWN_SERVICE
        from apps.scaling.models import ScalingDecision, ScalingEvent

        for minute in UtilisationMinute.objects.filter(workload=self.workload_id).order_by("minute"):
            if count := minute.cpu_count + minute.warming_cpu_count:
                self.minutes_seen.add(minute.minute)
                cpu = (minute.cpu_sum + minute.warming_cpu_sum) / count
                warming = ", still warming up: does not count on the way up" if minute.warming else ""
                yield f"utilisation {minute.minute:%H:%M}: CPU {cpu:.0f} %{warming}"
        decided = ScalingDecision.objects.filter(policy__service__slug=OWN_SERVICE, policy__environment="staging")
        for one in decided.order_by("boundary"):
            change = "" if one.action == "hold" else f"{one.instances_before} → {one.instances_after}: "
            yield f"decision {one.boundary:%H:%M}: {change}{one.reason}"
        ended = ScalingEvent.objects.filter(workload=self.workload_id).exclude(success=None)
        for event in ended.order_by("settled_at"):
            change = f"{event.instances_before} → {event.instances_after}"
            went = "done" if event.success else f"failed: {event.error_message}"
            yield f"event {event.pk}: {change}, {went}. {event.trigger_reason}"

    def _once(self, line: str) -> None:
        if line not in self._printed:
            self._printed.add(line)
            say(line)


def say(text: str) -> None:
    """A line with the time, in UTC as in the console."""
    print(f"{time.strftime('%H:%M:%S', time.gmtime())}  {text}", flush=True)


def _stop(text: str) -> NoReturn:
    sys.exit(f"pulsewatch: {text}")


if __name__ == "__main__":
    sys.exit(main())
