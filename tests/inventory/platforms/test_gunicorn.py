"""Worker processes of a real gunicorn on this host."""

import os
import signal
import subprocess
from pathlib import Path

import psutil
import pytest

from apps.core.errors import Transient
from apps.inventory.platforms import scaler_for
from apps.inventory.platforms.base import Count, PlatformError, PlatformUnavailable, SettingsInvalid
from tests.inventory.platforms.stands import Stand


@pytest.fixture
def pid_file(gunicorn: Stand) -> Path:
    """The pid file of a running gunicorn with two workers."""
    gunicorn.play.starts_over()
    return Path(gunicorn.settings["pid_file"])


def scaler(file: Path):
    made = scaler_for("gunicorn", {"pid_file": str(file)}, "")
    assert made is not None
    return made


def test_the_last_worker_stays(pid_file: Path):
    gunicorn = scaler(pid_file)
    with pytest.raises(PlatformError, match="at least one"):
        gunicorn.scale(0, seen=Count(2))
    assert gunicorn.count().desired == 2
    assert list(gunicorn.instances()) == []


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


def test_a_master_that_dies_between_two_looks_is_said_so(pid_file: Path, monkeypatch: pytest.MonkeyPatch):
    ended = subprocess.Popen(["sleep", "60"])
    dying = psutil.Process(ended.pid)
    ended.kill()
    ended.wait()
    gunicorn = scaler(pid_file)

    def nobody(pid: int, number: int) -> None:
        raise ProcessLookupError

    with monkeypatch.context() as patch:
        patch.setattr(type(gunicorn), "_master", lambda _: dying)
        with pytest.raises(PlatformUnavailable, match="does not run: start it"):
            gunicorn.count()
        patch.setattr(type(gunicorn), "_workers", lambda _: [dying, dying])
        patch.setattr(os, "kill", nobody)
        with pytest.raises(PlatformUnavailable, match="does not run: start it"):
            gunicorn.scale(3, seen=Count(2))
    assert gunicorn.count().desired == 2


def test_a_worker_that_ends_while_it_is_counted_counts_no_more(pid_file: Path, monkeypatch: pytest.MonkeyPatch):
    def ends(worker: psutil.Process) -> str:
        raise psutil.NoSuchProcess(worker.pid)

    with monkeypatch.context() as patch:
        patch.setattr(psutil.Process, "status", ends)
        assert scaler(pid_file).count().desired == 0


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
