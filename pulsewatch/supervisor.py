"""Runs the processes of `make run` side by side until one ends by itself or a person ends them all.

honcho starts the processes, passes their lines on and notices their end. Decided here is what it leaves open: how long
an end may take, and that no process outlives the launcher, however that goes.
"""

import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress

from honcho.manager import SYSTEM_PRINTER_NAME, Manager
from honcho.printer import Message, Printer
from honcho.process import Popen

# Seconds after the request to end; after 10 all has to be over, the launcher itself included.
QUIT_AFTER = 5.0  # workers give up the tasks that still run and put their messages back into the queue
KILL_AFTER = 8.5  # a little more than gunicorn gives to running requests
LOOK_EVERY = 0.1  # seconds between two looks at the processes
LINES_WAITING = 1000  # while a terminal is paused; then the processes wait, as they would on a pipe


def leash(signal_name: str) -> list[str]:
    """Words before a command that end it with this signal when its parent dies. None where the system lacks them."""
    words = ["setpriv", "--pdeathsig", signal_name, "--"]
    known = shutil.which("setpriv") and subprocess.call([*words, "true"], stderr=subprocess.DEVNULL) == 0
    return words if known else []


class Lines(Printer):
    """Passes lines on as they are: JSON to standard output, the rest (warnings, farewells) to standard error."""

    def write(self, message: Message) -> None:
        """Print one line of a process. honcho's own remarks and empty lines are left out."""
        if message.name == SYSTEM_PRINTER_NAME or not message.data.strip():
            return
        output = sys.stdout if message.data.startswith(b"{") else sys.stderr
        try:
            output.buffer.write(message.data)
            output.buffer.flush()
        except OSError:
            # The reader has gone, as in `make run | head`, or the disk is full: for any program that is the end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), output.fileno())
            signal.raise_signal(signal.SIGTERM)


class Supervisor(Manager):
    """Runs what was added with `add` until `loop()` returns; then `fallen` names the process that ended by itself."""

    def __init__(self, foundation: subprocess.Popen[bytes] | None = None) -> None:
        """`foundation` is what the others stand on: its end is the end of all, but it is not ended with them."""
        super().__init__(Lines())
        self.events: queue.Queue[Message] = queue.Queue(LINES_WAITING)
        self.fallen = ""  # empty: a person, or the system, ended them all
        self._foundation = foundation
        self._ending_since: float | None = None  # time.monotonic()
        self._quits: set[str] = set()
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def add(self, name: str, *command: str, on_orphaned: str, quits: bool = False) -> None:
        """Add a process, started by `loop`. `on_orphaned` is the signal it gets when the launcher is killed; `quits`
        says that it takes QUIT as "end now, but in good order"."""
        self.add_process(name, [*leash(on_orphaned), *command])
        if quits:
            self._quits.add(name)

    def loop(self) -> None:
        """Start all processes and return when all have ended."""
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # that is nohup's wish
            signal.signal(signal.SIGHUP, lambda *_: self.terminate())
        try:
            super().loop()
        finally:
            self._kill_all()

    @property
    def ending(self) -> bool:
        """Whether the end has begun."""
        return self._ending_since is not None

    def terminate(self) -> None:
        """Begin the end: a signal asks for it, or honcho when a process has ended. Later requests change nothing."""
        if self._ending_since is None:
            self._ending_since = time.monotonic()
            ended = (name for name, process in self._processes.items() if "returncode" in process)
            self.fallen = self.fallen or next(ended, "")
            signal.signal(signal.SIGINT, lambda *_: self._kill_all())  # a second Ctrl-C waits for nobody

    def kill(self) -> None:
        """Nothing: honcho gives processes five seconds, `_watch` keeps the time here."""

    def _start(self) -> None:
        # honcho would start each process in a helper process, which can be lost; then it waits for its word for ever.
        for name, process in self._processes.items():
            runner = process["obj"]
            child = self._children[name] = Popen(runner.cmd, shell=False, env=runner.env, stdin=subprocess.DEVNULL)
            runner._child_ctor = lambda *_, child=child, **__: child
        for process in self._processes.values():
            threading.Thread(target=process["obj"].run, args=[self.events], daemon=True).start()
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        """What has to happen at its time, in a thread for as long as the launcher lives."""
        swept: set[str] = set()
        told: set[str] = set()
        while True:
            for name, child in self._children.items():
                if child.poll() is None:
                    self._hasten(name, child, told)
                elif name not in swept:
                    # What a killed process leaves behind would run on, and hold the pipe that honcho reads to its end.
                    swept.add(name)
                    _kill_group(child)
            if self._foundation and self._foundation.poll() is not None and self._ending_since is None:
                self.fallen = "valkey"
                os.kill(os.getpid(), signal.SIGTERM)  # only the main thread may begin the end
            time.sleep(LOOK_EVERY)

    def _hasten(self, name: str, child: subprocess.Popen[bytes], told: set[str]) -> None:
        """Tell a running process what the hour asks for: TERM, then QUIT, then KILL to its whole group."""
        if self._ending_since is None:
            return
        elapsed = time.monotonic() - self._ending_since
        if name not in told:
            told.add(name)
            child.terminate()  # its main process only: it knows best how to end its own
        elif elapsed > KILL_AFTER:
            _kill_group(child)
        elif elapsed > QUIT_AFTER and name in self._quits:
            self._quits.discard(name)
            child.send_signal(signal.SIGQUIT)

    def _kill_all(self) -> None:
        for child in self._children.values():
            if child.poll() is None:
                _kill_group(child)


def _kill_group(child: subprocess.Popen[bytes]) -> None:
    """Kill every process of a child's group, which is its own."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
