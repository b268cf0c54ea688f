"""What a newcomer does: a clean clone, an empty home, `make run`. The packages come from the index.

One test, because all of it looks at one clone that is installed once, and the workers of pytest-xdist share no fixture.
Its parts are reported one by one.
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.pulsewatch.console import PROJECT, Console, until
from tests.servers import MariaDB, Redis, run_folder
from tests.servers.packages import program

FIRST_READY_SECONDS = 90  # packages from the index included
READY_SECONDS = 10  # when they are installed
SAMPLE_SECONDS = 75  # beat samples on the minute
GATE_SECONDS = 60  # three looks, ten seconds apart
PASSWORD = "newcomer-Pa55-phrase"


class Clone:
    """A clean clone of this working tree, with a home beside it."""

    def __init__(self, above: Path, home: Path) -> None:
        self.folder, self.home = above / "clone", home
        self.says = above / "says"
        self.folder.mkdir()
        files = subprocess.check_output(["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=PROJECT, text=True)
        for name in filter(None, files.split("\0")):
            if (PROJECT / name).exists():
                (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(PROJECT / name, self.folder / name)
        self.files = self.list_files()
        self.started: list[Console] = []

    def make_run(self, **variables: str) -> Console:
        """Type `make run`."""
        says = self.says / str(len(self.started))
        self.started.append(Console(["make", "run"], self.folder, says, HOME=str(self.home), **variables))
        return self.started[-1]

    def list_files(self) -> set[str]:
        """All files but those that git ignores."""
        found = (path.relative_to(self.folder) for path in self.folder.rglob("*") if not path.is_dir())
        return {str(path) for path in found if path.parts[0] not in (".venv", "var") and path.suffix != ".pyc"}

    def python(self, *arguments: str) -> str:
        """What the clone's Python prints, started in its folder by somebody who has set nothing."""
        environment = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "HOME": str(self.home)}
        command = [str(self.folder / ".venv" / "bin" / "python"), *arguments]
        ended = subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout


@contextmanager
def new_clone(home: Path) -> Iterator[Clone]:
    above = Path(tempfile.mkdtemp(prefix="clone-", dir=run_folder()))
    clone = Clone(above, home)
    try:
        yield clone
    finally:
        for console in clone.started:
            console.clear_away()
        shutil.rmtree(above)


@dataclass(frozen=True, slots=True)
class Scene:
    """A clone and the first `make run` in it, which every part leaves running."""

    clone: Clone
    console: Console
    mariadb: MariaDB
    redis: Redis


def the_probes_of_a_new_console_tell_the_truth(scene: Scene) -> None:
    web = scene.console.web
    assert {"status", "timestamp", "version"} <= web.get("/healthz").json().keys()
    ready = web.get("/ready")
    assert ready.status == 200
    assert ready.json()["status"] == "ready"
    assert {check["status"] for check in ready.json()["checks"].values()} <= {"healthy", "degraded"}
    assert web.get("/health").json()["database"] == "connected"
    assert b"\npulsewatch_app_start_time_seconds" in web.get("/metrics").body
    assert web.get("/").status == 302


def its_words_are_few_and_without_a_secret(scene: Scene) -> None:
    console = scene.console
    assert console.said.splitlines() == [
        f"pulsewatch: Installing {console.said.split()[2]} packages (requirements/base.txt) into .venv ...",
        f"pulsewatch: Ready: {console.web.base}/ (Ctrl-C stops it)",
    ]
    assert all(json.loads(line)["level"] in ("INFO", "WARNING") for line in console.out.read_text().splitlines())
    assert PASSWORD not in console.out.read_text()


def the_readme_starts_and_ends_a_deployment(scene: Scene) -> None:
    (recipe,) = re.findall(r"```sh\n(.*?)```", (PROJECT / "README.md").read_text(), re.DOTALL)
    own = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "HOME": str(scene.clone.home)}
    program("curl", "curl")
    command = ["sh", "-eu", "-c", recipe.replace("8000", str(scene.console.port))]
    done = subprocess.run(command, cwd=scene.clone.folder, env=own, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    *_, last = done.stdout.splitlines()
    assert json.loads(last)["status"] == "in_progress"


def a_second_clone_runs_beside_it_on_mysql_and_redis(scene: Scene) -> None:
    with new_clone(scene.clone.home) as second:
        other = second.make_run(DATABASE_URL=scene.mariadb.url, REDIS_URL=scene.redis.url)
        other.until_ready(FIRST_READY_SECONDS)
        assert "(requirements/mysql.txt)" in other.said
        assert "(requirements/mysql.txt)" not in scene.console.said
        assert not [line for line in other.look().values() if "valkey" in line]
        assert not (second.folder / "var" / "pulsewatch.sqlite3").exists()
        other.end()
    assert scene.console.web.get("/ready").status == 200


def a_fault_is_one_sentence_and_ends_make_too(scene: Scene) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused = scene.clone.make_run(PORT=str(port), VAR_DIR=str(scene.clone.folder / "var" / "refused"))
        assert refused.process.wait(timeout=20) == 2  # what make answers when a command ends with 1
    sentence, farewell = refused.said.splitlines()
    assert sentence.startswith(f"pulsewatch: Port {port} is taken")
    assert farewell.endswith("Error 1")


def term_and_ctrl_c_end_it_and_a_later_start_is_quick(scene: Scene) -> None:
    var = str(scene.clone.folder / "var" / "other")  # beside the first one, in the same clone
    first = scene.clone.make_run(VAR_DIR=var)
    first.until_ready()
    first.process.send_signal(signal.SIGTERM)  # make alone: it passes the signal on
    first.until_gone()

    second = scene.clone.make_run(VAR_DIR=var)
    assert second.until_ready() < READY_SECONDS
    second.end(signal.SIGINT)
    assert "***" not in first.said + second.said


def manage_py_uses_the_same_database_keys_and_broker(scene: Scene) -> None:
    code = (
        "import json; from django.conf import settings; from django.contrib.auth.models import User; "
        "from pulsewatch.celery import app; "
        f"print(json.dumps([User.objects.get().check_password('{PASSWORD}'), settings.SECRET_KEY, "
        "sorted(name for reply in app.control.ping(timeout=3, limit=2) for name in reply)]))"
    )
    user, key, workers = json.loads(scene.clone.python("manage.py", "shell", "--verbosity", "0", "-c", code))
    assert user is True
    assert key == (scene.clone.folder / "var" / "secret_key").read_text()
    port = scene.console.port
    assert [name.partition("@")[0] for name in workers] == [f"fast-{port}", f"long-{port}"]


def its_own_health_is_sampled_over_http_and_stored(scene: Scene) -> None:
    code = (
        "import json; from apps.health.models import HealthCheck; "
        "print(json.dumps(list(HealthCheck.objects.filter(overall_status='healthy').values("
        "'response_time_ms', 'memory_usage_mb', 'uptime_seconds'))))"
    )

    def samples() -> Any:
        return json.loads(scene.clone.python("manage.py", "shell", "--verbosity", "0", "-c", code))

    until(samples, SAMPLE_SECONDS)
    sample = samples()[0]
    assert sample["memory_usage_mb"] > 50
    assert sample["uptime_seconds"] > 0
    assert sample["response_time_ms"] > 0


def its_gate_has_passed_on_real_samples(scene: Scene) -> None:
    code = (
        "import json; from apps.deployments.models import Gate; gate = Gate.objects.get(); "
        "print(json.dumps([gate.deployment.status, gate.verdict, gate.evidence]))"
    )

    def found() -> Any:
        return json.loads(scene.clone.python("manage.py", "shell", "--verbosity", "0", "-c", code))

    until(lambda: found()[0] != "in_progress", GATE_SECONDS)
    status, verdict, evidence = found()
    assert (status, verdict, evidence["chosen_by"]) == ("completed", "passed", "version")
    assert [row["healthy_in_a_row"] >= 3 for row in evidence["instances"]] == [True]


def nothing_is_written_outside_the_ignored_folders(scene: Scene) -> None:
    assert scene.clone.list_files() == scene.clone.files
    # What is at home now is pip's (its cache, and what it wakes by asking for versions), not gunicorn's or Celery's.
    assert not [path for path in scene.clone.home.rglob("*") if "gunicorn" in path.name or "celery" in path.name]


# Those that take a while come before the one that waits for the minute.
PARTS: tuple[Callable[[Scene], None], ...] = (
    the_probes_of_a_new_console_tell_the_truth,
    the_readme_starts_and_ends_a_deployment,
    its_words_are_few_and_without_a_secret,
    a_second_clone_runs_beside_it_on_mysql_and_redis,
    a_fault_is_one_sentence_and_ends_make_too,
    term_and_ctrl_c_end_it_and_a_later_start_is_quick,
    manage_py_uses_the_same_database_keys_and_broker,
    its_own_health_is_sampled_over_http_and_stored,
    its_gate_has_passed_on_real_samples,
    nothing_is_written_outside_the_ignored_folders,
)


@pytest.mark.timeout(400)
def test_a_newcomer_has_a_console_that_watches_itself_within_two_minutes(
    subtests: pytest.Subtests, tmp_path: Path, mariadb: MariaDB, redis_server: Redis
) -> None:
    (tmp_path / "home").mkdir()
    with new_clone(tmp_path / "home") as clone:
        console = clone.make_run(PULSEWATCH_ADMIN_PASSWORD=PASSWORD)
        console.until_ready(FIRST_READY_SECONDS)
        for part in PARTS:
            with subtests.test(part.__name__.replace("_", " ")):
                part(Scene(clone, console, mariadb, redis_server))
        console.end()
