"""The plugin that gives a run its servers, seen from outside: each test starts a pytest of its own."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.plugin import WORKER_VARIABLE
from tests.servers.process import RUN_FOLDER_VARIABLE
from tests.test_servers import is_gone, wait_until

PROJECT = Path(__file__).parent.parent
PROBE = """
import json, os, pathlib, time

FACTS = pathlib.Path(__file__).parent

def note(name):
    draft = FACTS / f"{name}.draft"
    draft.write_text(json.dumps(dict(os.environ)))
    draft.rename(FACTS / f"{name}.json")

def test_notes_its_environment():
    note(os.environ.get("PYTEST_XDIST_WORKER", "alone"))

def test_waits(redis_server, mariadb):
    note("waiting")
    time.sleep(60)
"""


@pytest.fixture
def run(tmp_path: Path) -> "Iterator[Run]":
    """Starts a pytest on the probe, with the environment of a plain shell; ends it when the test forgot."""
    (tmp_path / "test_probe.py").write_text(PROBE)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    started = Run(tmp_path)
    yield started
    started.end()


class Run:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process: subprocess.Popen[str] | None = None

    def start(self, *options: str, **variables: str) -> subprocess.Popen[str]:
        """Start pytest in a process group of its own, as a terminal would."""
        unwanted = (WORKER_VARIABLE, RUN_FOLDER_VARIABLE, "DATABASE_URL", "REDIS_URL", "VAR_DIR")
        environment = {name: value for name, value in os.environ.items() if name not in unwanted}
        base = ("-p", "no:django", "-p", "no:cacheprovider", "-p", "tests.plugin", f"--rootdir={self.folder}")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "pytest", *base, *options, str(self.folder / "test_probe.py")],
            cwd=PROJECT,
            env=environment | variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        return self.process

    def finish(self, *options: str, **variables: str) -> tuple[int, str]:
        """The exit status and the output of a whole run."""
        process = self.start(*options, **variables)
        output, _ = process.communicate(timeout=60)
        return process.returncode, output

    def environment(self, name: str) -> dict[str, str]:
        """The environment that a test of the probe has noted under this name."""
        noted: dict[str, str] = json.loads((self.folder / f"{name}.json").read_text())
        return noted

    def end(self) -> None:
        if self.process and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.communicate()


def test_workers_share_a_database_server_and_have_a_redis_database_each(run: Run) -> None:
    status, output = run.finish("-n2", "-k", "notes", "--dist=each")
    assert status == 0, output
    first, second = run.environment("gw0"), run.environment("gw1")
    assert first["DATABASE_URL"] == second["DATABASE_URL"]
    assert (first["REDIS_URL"][-2:], second["REDIS_URL"][-2:]) == ("/1", "/2")
    assert first["REDIS_URL"][:-2] == second["REDIS_URL"][:-2]
    assert not Path(first["VAR_DIR"]).parent.exists()


def test_a_run_has_a_fixed_development_environment_whatever_the_shell_holds(run: Run, tmp_path: Path) -> None:
    foreign = {
        "DATABASE_URL": "mysql://somebody:else@db.example.com/production",
        "CELERY_BROKER_URL": "redis://redis.example.com/0",
        "SECRET_KEY_FILE": "/run/secrets/key",
        "ENVIRONMENT": "production",
        "DEBUG": "perhaps",
    }
    status, output = run.finish("-k", "notes", **foreign)
    assert status == 0, output
    found = run.environment("alone")
    assert re.fullmatch(r"mysql://pulsewatch:[\w-]{32}@127\.0\.0\.1:\d+/pulsewatch", found["DATABASE_URL"])
    assert re.fullmatch(r"redis://127\.0\.0\.1:\d+/0", found["REDIS_URL"])
    assert (found["ENVIRONMENT"], found["ENV_FILE"], len(found["SECRET_KEY"])) == ("development", "", 60)
    assert not {"CELERY_BROKER_URL", "SECRET_KEY_FILE", "DEBUG"} & set(found)


def test_a_run_can_use_a_file_or_a_given_database(run: Run) -> None:
    assert run.finish("--db=sqlite", "-k", "notes")[0] == 0
    environment = run.environment("alone")
    assert environment["DATABASE_URL"] == f"sqlite:///{environment['VAR_DIR']}/pulsewatch.sqlite3"
    given = "mysql://ci:ci@127.0.0.1:3306/ci"
    assert run.finish("--db=given", "-k", "notes", DATABASE_URL=given)[0] == 0
    assert run.environment("alone")["DATABASE_URL"] == given


def test_a_run_on_a_given_database_needs_to_be_given_one(run: Run) -> None:
    status, output = run.finish("--db=given", "-k", "notes")
    assert status == pytest.ExitCode.USAGE_ERROR
    assert "DATABASE_URL is not set" in output


@pytest.mark.parametrize("option", ["--help", "--collect-only"])
def test_a_run_without_tests_starts_no_server(run: Run, option: str) -> None:
    process = run.start(option, "--db=mariadb")
    seen: set[str] = set()

    def ended() -> bool:
        try:
            seen.update(child.name() for child in psutil.Process(process.pid).children(recursive=True))
        except psutil.NoSuchProcess:
            return True
        return is_gone(process.pid)

    wait_until(ended)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    assert seen == set()


@pytest.mark.parametrize(("sent", "workers"), [(signal.SIGINT, "-n1"), (signal.SIGINT, "-n0"), (signal.SIGTERM, "-n0")])
def test_an_interrupted_run_leaves_neither_server_nor_folder(run: Run, sent: signal.Signals, workers: str) -> None:
    process = run.start(workers, "-k", "waits")
    wait_until(lambda: process.poll() is not None or (run.folder / "waiting.json").exists())
    folder = Path(run.environment("waiting")[RUN_FOLDER_VARIABLE])
    servers = [child.pid for child in psutil.Process(process.pid).children(recursive=True)]
    assert len(servers) >= 4  # a shared and a private one of each kind
    if sent == signal.SIGINT:
        os.killpg(process.pid, sent)  # Ctrl-C reaches the whole group
    else:
        process.send_signal(sent)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == pytest.ExitCode.INTERRUPTED, output
    wait_until(lambda: all(is_gone(pid) for pid in servers))
    assert not folder.exists()


def test_a_run_on_a_mysql_that_cannot_be_had_says_so_in_one_line_and_succeeds(run: Run, tmp_path: Path) -> None:
    offline = tmp_path / "apt-get"
    offline.write_text("#!/bin/sh\necho E: the mirror cannot be reached\nexit 100\n")
    offline.chmod(0o755)
    status, output = run.finish(
        "--db=mysql", PATH=f"{tmp_path}:{os.environ['PATH']}", XDG_CACHE_HOME=str(tmp_path / "cache")
    )
    assert status == 0
    assert output.count("\n") == 1
    assert output.startswith("MySQL cannot be had here: ")


def test_servers_that_cannot_be_had_end_a_run_with_the_reason(run: Run, tmp_path: Path) -> None:
    broken = tmp_path / "mariadbd"
    broken.write_text("#!/bin/sh\necho this machine is too small\nexit 1\n")
    broken.chmod(0o755)
    status, output = run.finish(PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert status == pytest.ExitCode.USAGE_ERROR
    assert "ERROR: MariaDB ended with status 1 when it was started" in output
    assert "this machine is too small" in output
    assert "Traceback" not in output
