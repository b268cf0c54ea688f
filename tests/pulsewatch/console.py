"""A console started as a person starts it, watched from outside."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from tests.servers import free_port
from tests.serving import Served
from tests.test_servers import is_gone

PROJECT = Path(__file__).parent.parent.parent
START_SECONDS = 90  # a start takes 3 on an idle machine
END_SECONDS = 10  # for every process, after the request to end


def until(condition: Callable[[], object], seconds: float = START_SECONDS) -> None:
    """Wait for something that a start brings about."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"it did not happen within {seconds} s"
        time.sleep(0.05)


class Console:
    """A `make run` or a launcher, with what it says in two files."""

    def __init__(self, command: Sequence[str], folder: Path, says: Path, **variables: str) -> None:
        """Start it in `folder`, with nothing in its environment but PATH, a language, a free port and `variables`."""
        says.mkdir(parents=True, exist_ok=True)
        self.folder, self.out, self.err = folder, says / "out", says / "err"
        variables.setdefault("PORT", str(free_port()))
        self.port, self.variables = int(variables["PORT"]), variables
        measured = {name: value for name, value in os.environ.items() if name.startswith("COVERAGE_")}
        environment = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", **measured, **variables}
        self.started = time.monotonic()
        with self.out.open("wb") as out, self.err.open("wb") as err:
            self.process = subprocess.Popen(
                command,
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
        self.web = Served(f"http://127.0.0.1:{self.port}", self.process, self.err)
        self.seen: dict[int, str] = {}

    def until_ready(self, seconds: float = START_SECONDS) -> float:
        """Seconds from the start until the console has said that it is ready, which `/ready` must confirm.

        Returns when both workers are up too.
        """
        while "Ready: " not in self.said:
            assert self.process.poll() is None, self.said
            assert time.monotonic() < self.started + seconds, self.said
            time.sleep(0.02)
        took = time.monotonic() - self.started
        assert self.web.get("/ready").status == 200
        until(lambda: self.out.read_text().count(" ready.") == 2)
        self.look()
        return took

    @property
    def said(self) -> str:
        """Its words for people so far."""
        return self.err.read_text()

    def sentence(self, seconds: float = 20) -> str:
        """The one line with which it ended, with status 1."""
        self.process.wait(timeout=seconds)
        assert self.process.returncode == 1, self.said
        lines = self.said.splitlines()
        assert len(lines) == 1, self.said
        return lines[0]

    def look(self) -> dict[int, str]:
        """Every process of it by id, with its command line; they are remembered for `until_gone`."""
        with suppress(psutil.NoSuchProcess):
            for process in psutil.Process(self.process.pid).children(recursive=True):
                with suppress(psutil.NoSuchProcess):  # it has just ended
                    self.seen[process.pid] = " ".join(process.cmdline())
        return self.seen

    def main_process(self, words: str) -> int:
        """The process id of the part whose command line has these words; its forks are left out."""
        found = [pid for pid, line in self.look().items() if words in line and not is_gone(pid)]
        (pid,) = [pid for pid in found if psutil.Process(pid).ppid() not in found]
        return pid

    def until_gone(self) -> float:
        """Seconds until no process of it was left, at most 10; its port must be free then."""
        started = time.monotonic()
        self.process.wait(timeout=END_SECONDS)
        while left := [line for pid, line in self.seen.items() if not is_gone(pid)]:
            assert time.monotonic() < started + END_SECONDS, left
            time.sleep(0.02)
        with socket.socket() as port:
            port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            port.bind(("127.0.0.1", self.port))
        return time.monotonic() - started

    def end(self, number: signal.Signals = signal.SIGTERM) -> float:
        """Send a signal as a terminal does, to the whole group; seconds until nothing was left."""
        self.look()
        os.killpg(self.process.pid, number)
        return self.until_gone()

    def clear_away(self) -> None:
        """Kill whatever is left of it, for a test that failed."""
        if self.process.poll() is None:
            self.look()
            self.process.kill()
            self.process.wait()
        for pid in self.seen:
            if not is_gone(pid):
                os.kill(pid, signal.SIGKILL)
