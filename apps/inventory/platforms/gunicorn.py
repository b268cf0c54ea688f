"""gunicorn on this host: worker processes are added with SIGTTIN and removed with SIGTTOU, sent to the master.

The master keeps the number to itself; its children are counted in the process tree.
"""

import os
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import psutil

from apps.inventory.platforms.base import Count, CountChanged, Found, PlatformError, PlatformUnavailable
from apps.inventory.platforms.fields import Fields

FOLLOWS_SECONDS = 15.0  # how long one worker may take to come, or to finish its requests and go
LOOK_SECONDS = 0.05
MAX_PID_FILE = 32  # bytes of it that are read


@dataclass(frozen=True, slots=True)
class Gunicorn:
    """One master, known by its pid file."""

    pid_file: Path
    unit: str = "worker process"

    @classmethod
    def made(cls, settings: Mapping[str, Any], secret: str) -> Self:
        fields = Fields("gunicorn", settings)
        path = fields.text("pid_file", r"/[^\x00]{1,299}", "the absolute path of gunicorn's pid file")
        fields.done()
        return cls(Path(path))

    def count(self) -> Count:
        workers = len(self._workers())
        return Count(desired=workers, ready=workers)

    def scale(self, to: int, *, seen: Count) -> None:
        """One signal at a time, each waited for: gunicorn drops signals that come faster than it takes them."""
        if to < 1:
            raise PlatformError("gunicorn keeps at least one worker process.")
        before = len(self._workers())
        if before != seen.desired and before != to:
            raise CountChanged(f"Somebody else changed the worker processes from {seen.desired} to {before} meanwhile.")
        while before != to:
            master = self._master()
            try:
                os.kill(master.pid, signal.SIGTTIN if to > before else signal.SIGTTOU)
            except ProcessLookupError as error:
                raise PlatformUnavailable(self._gone()) from error
            except OSError as error:
                raise PlatformError(self._no_right(master.pid)) from error
            before = self._followed(before, before + (1 if to > before else -1))

    def instances(self) -> Sequence[Found]:
        return ()  # one instance, the web server, reports for all its workers

    def _followed(self, before: int, wanted: int) -> int:
        deadline = time.monotonic() + FOLLOWS_SECONDS
        while (now := len(self._workers())) == before:
            if time.monotonic() > deadline:
                raise PlatformUnavailable(
                    f"gunicorn was asked for {wanted} worker processes and still has {before} after "
                    f"{FOLLOWS_SECONDS:g} s: look at its log."
                )
            time.sleep(LOOK_SECONDS)
        return now

    def _workers(self) -> list[psutil.Process]:
        master = self._master()
        try:
            return [child for child in master.children() if _lives(child)]
        except psutil.NoSuchProcess as error:
            raise PlatformUnavailable(self._gone()) from error
        except psutil.AccessDenied as error:
            raise PlatformError(self._no_right(master.pid)) from error

    def _master(self) -> psutil.Process:
        """The process the pid file names, if it is a gunicorn: after a crash the number may belong to anybody."""
        try:
            with self.pid_file.open("rb") as file:
                process = psutil.Process(int(file.read(MAX_PID_FILE)))
            words = process.cmdline()
        except FileNotFoundError as error:
            raise PlatformUnavailable(
                f"There is no pid file {self.pid_file}: start gunicorn with --pid {self.pid_file}, on this host."
            ) from error
        except (OSError, psutil.AccessDenied) as error:
            raise PlatformError(
                f"{self.pid_file} or its process cannot be read: run the worker as gunicorn's user."
            ) from error
        except (ValueError, psutil.NoSuchProcess) as error:
            raise PlatformUnavailable(self._gone()) from error
        # `python -m gunicorn`, `/usr/bin/python /usr/bin/gunicorn`, or the title it gives itself: `gunicorn: master`.
        if not any(Path(word).name.startswith("gunicorn") for word in words[:3]):
            raise PlatformError(
                f"The process that {self.pid_file} names is no gunicorn: remove the file, start gunicorn."
            )
        return process

    def _gone(self) -> str:
        return f"The gunicorn that {self.pid_file} names does not run: start it."

    @staticmethod
    def _no_right(pid: int) -> str:
        return f"Process {pid} belongs to another user: run the worker as gunicorn's user."


def _lives(worker: psutil.Process) -> bool:
    try:
        return bool(worker.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:  # it has ended since it was listed
        return False
