"""Worker processes of a real gunicorn on this host."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from apps.core.errors import Conflict, Transient
from apps.inventory.platforms import scaler_for
from apps.inventory.platforms.base import Count, CountChanged, PlatformError, PlatformUnavailable, SettingsInvalid
from tests.servers import free_port

APP = "def app(environ, start):\n    start('200 OK', [])\n    return [b'']\n"


@pytest.fixture(scope="module")
def pid_file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The pid file of a running gunicorn with two workers."""
    folder = tmp_path_factory.mktemp("gunicorn")
    (folder / "tiny.py").write_text(APP)
    file = folder / "web.pid"
    command = [
        sys.executable,
        "-m",
        "gunicorn",
        "tiny:app",
        "--workers",
        "2",
        "--pid",
        str(file),
        "--no-control-socket",
    ]
    with subprocess.Popen([*command, "--bind", f"127.0.0.1:{free_port()}"], cwd=folder) as process:
        try:
            deadline = time.monotonic() + 20
            while not file.exists() or len(psutil.Process(process.pid).children()) < 2:
                assert time.monotonic() < deadline
                time.sleep(0.02)
            yield file
        finally:
            process.terminate()


def scaler(file: Path):
    made = scaler_for("gunicorn", {"pid_file": str(file)}, "")
    assert made is not None
    return made


def test_workers_are_added_and_removed_and_the_process_tree_is_the_truth(pid_file: Path):
    gunicorn = scaler(pid_file)
    seen = gunicorn.count()
    assert (seen.desired, gunicorn.unit) == (2, "worker process")

    gunicorn.scale(4, seen=seen)
    assert gunicorn.count().desired == 4
    gunicorn.scale(4, seen=seen)  # once more is the same as once
    assert gunicorn.count().desired == 4

    gunicorn.scale(2, seen=gunicorn.count())
    assert gunicorn.count().desired == 2
    assert list(gunicorn.instances()) == []


def test_a_count_that_somebody_else_changed_is_left_alone(pid_file: Path):
    gunicorn = scaler(pid_file)
    with pytest.raises(CountChanged, match="Somebody else changed the worker processes from 5 to 2") as caught:
        gunicorn.scale(6, seen=Count(5))
    assert isinstance(caught.value, Conflict)
    with pytest.raises(PlatformError, match="at least one"):
        gunicorn.scale(0, seen=Count(2))
    assert gunicorn.count().desired == 2


def test_a_gunicorn_that_does_not_follow_is_said_so(pid_file: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("apps.inventory.platforms.gunicorn.FOLLOWS_SECONDS", 0.3)
    master = int(pid_file.read_text())
    os.kill(master, signal.SIGSTOP)
    try:
        with pytest.raises(PlatformUnavailable, match="asked for 3 worker processes and still has 2") as caught:
            scaler(pid_file).scale(3, seen=Count(2))
    finally:
        os.kill(master, signal.SIGCONT)
    assert isinstance(caught.value, Transient)
    # Waking a process up discards its pending SIGTTIN: nothing was done, and another try does it.
    scaler(pid_file).scale(3, seen=Count(2))
    scaler(pid_file).scale(2, seen=Count(3))
    assert scaler(pid_file).count().desired == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "There is no pid file .*: start gunicorn with --pid"),
        (b"", "does not run: start it"),
        (b"not a number", "does not run: start it"),
        (b"99999999", "does not run: start it"),
        (b"-1", "does not run: start it"),
        (b"%d" % os.getppid(), "is no gunicorn"),
    ],
)
def test_a_pid_file_that_leads_nowhere_is_said_so(tmp_path: Path, content: bytes | None, message: str):
    file = tmp_path / "web.pid"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(PlatformError, match=message):
        scaler(file).count()


@pytest.mark.parametrize("given", [{}, {"pid_file": "relative.pid"}, {"pid_file": "/a.pid", "workers": 3}])
def test_wrong_settings_are_named(given: dict[str, object]):
    with pytest.raises(SettingsInvalid, match="Platform gunicorn"):
        scaler_for("gunicorn", given, "")
