"""A private server: its folder, its port, its process."""

import atexit
import fcntl
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.servers.packages import ServerError, tail

START_SECONDS = 60  # from launch to the first answer; below 1 s on an idle machine
STOP_SECONDS = 20  # for a clean end, before the process is killed; about 1 s on an idle machine
ANSWER_SECONDS = 2  # for one answer of a starting server
POLL_SECONDS = 0.01  # between two looks at a starting server
ROOM_BYTES = 1 << 30  # free space wanted for all private servers together: 50 to 110 MB each
# Longest folder above ours: with our two names below it a Unix socket's path stays within its 107 bytes.
BASE_LENGTH = 60
RUN_FOLDER_VARIABLE = "PULSEWATCH_TEST_FOLDER"

# Not the shared generator: pytest-randomly seeds that one alike in every worker, and all would choose the same port.
_random = secrets.SystemRandom()
_running: set["Server"] = set()


@cache
def run_folder() -> Path:
    """The folder that holds the folders of all servers of a run, in memory where there is room.

    The process that makes it removes it; processes started with RUN_FOLDER_VARIABLE share it and leave it alone.
    """
    given = os.environ.get(RUN_FOLDER_VARIABLE)
    shared = given is not None and Path(given).is_dir()
    folder = Path(given) if given and shared else _make_run_folder()
    atexit.register(_leave_nothing, None if shared else folder, os.getpid())
    return folder


def _make_run_folder() -> Path:
    base = _base_folder()
    for owner in Path(base).glob("pulsewatch-*/owner"):
        with suppress(OSError), owner.open() as lock:  # BlockingIOError: its process lives
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(owner.parent, ignore_errors=True)  # the memory of a run that was killed
    folder = Path(tempfile.mkdtemp(prefix="pulsewatch-", dir=base))
    # Locked until this process ends, however it ends; it gets its name when it is locked.
    fcntl.flock(os.open(folder / "draft", os.O_CREAT | os.O_WRONLY), fcntl.LOCK_EX)
    (folder / "draft").rename(folder / "owner")
    return folder


def _base_folder() -> str:
    for base in ("/dev/shm", tempfile.gettempdir(), "/tmp"):
        usable = len(base) <= BASE_LENGTH and os.access(base, os.W_OK | os.X_OK)
        if usable and shutil.disk_usage(base).free >= ROOM_BYTES:
            return base
    raise ServerError(f"The test servers need {ROOM_BYTES >> 30} GiB free in /dev/shm or in the temporary folder.")


def _leave_nothing(folder: Path | None, owner: int) -> None:
    """At the end of the process: kill the servers that still run, remove the run's folder if it is ours."""
    if os.getpid() != owner:  # a forked child
        return
    for server in list(_running):
        server.kill()
    if folder:
        shutil.rmtree(folder, ignore_errors=True)


def free_port() -> int:
    """A port of 127.0.0.1 that nobody uses, from 10000 to 32767: the kernel lends those above to outgoing calls."""
    for _ in range(1000):
        port = _random.randrange(10_000, 32_768)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise ServerError("There is no free TCP port from 10000 to 32767 on 127.0.0.1.")


class Server(ABC):
    """A server process of our own. As a context manager it runs inside the block and leaves nothing behind."""

    name: str

    def __init__(self, *options: str) -> None:
        """`options` are added to the server's command line, such as `--log-bin=binlog`."""
        self.options = options
        self.port = free_port()
        self.folder = run_folder() / f"{self.name.lower()}-{secrets.token_hex(4)}"
        self.log = self.folder / "server.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        """Start the server, on the data that a kill left if there is some, and return when it answers.

        Raises ServerError with the end of the server's log.
        """
        if self.running:
            return self
        new = not self.folder.exists()
        try:
            if new:
                self.folder.mkdir(mode=0o700)
                self._prepare()
            self._launch()
            self._wait_for_answer()
        except BaseException:  # Ctrl-C too: a server that did not start leaves nothing behind
            self.kill()
            if new:
                self._remove()
            raise
        return self

    def stop(self, *, keep_data: bool = False) -> None:
        """End the server cleanly, frozen or not. Its folder goes too, unless a later `start()` is to find the data."""
        if self._process and self.running:
            self._process.terminate()
            self._process.send_signal(signal.SIGCONT)  # a frozen process would not notice
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self.kill()
        if not keep_data:
            self._remove()

    def kill(self) -> None:
        """End the server at once (SIGKILL), frozen or not. Its data stays for `start()` or `restart()`."""
        if self._process:
            self._process.kill()
            self._process.wait()
        _running.discard(self)

    def freeze(self) -> None:
        """Halt the process where it stands (SIGSTOP): connections stay open, nothing is answered."""
        os.kill(self.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def thaw(self) -> None:
        """Let a frozen process go on (SIGCONT)."""
        os.kill(self.pid, signal.SIGCONT)

    def restart(self) -> None:
        """Stop the server if it runs, then start it on the same port with the same data."""
        self.stop(keep_data=True)
        self.start()

    @property
    def running(self) -> bool:
        """Whether the process exists; a frozen one does."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The process id; RuntimeError when the server does not run."""
        if self._process is None or not self.running:
            raise RuntimeError(f"{self.name} is not running; call start() first.")
        return self._process.pid

    @property
    @abstractmethod
    def url(self) -> str:
        """Where a client connects, spelled as in DATABASE_URL or REDIS_URL. The same before and after a restart."""

    @abstractmethod
    def _prepare(self) -> None:
        """Fill the new folder."""

    @abstractmethod
    def _command(self) -> Sequence[str | Path]:
        """The command line; it carries no secret."""

    @abstractmethod
    def _answers(self) -> bool:
        """Whether our own process, and no stranger, answers a client. OSError stands for no."""

    def _launch(self) -> None:
        command = self._command()
        # With this the kernel ends the server when we are killed. It watches the thread that starts the server, so it
        # is for the main thread only, the one thread that lives as long as the process.
        if shutil.which("setpriv") and threading.current_thread() is threading.main_thread():
            command = ["setpriv", "--pdeathsig", "KILL", "--", *command]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                umask=0o077,
                start_new_session=True,  # Ctrl-C in a terminal is for the tests, not for their servers
            )
        _running.add(self)

    def _wait_for_answer(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not self._ready():
            status = self._process.poll() if self._process else None
            if status is None and time.monotonic() < deadline:
                time.sleep(POLL_SECONDS)
                continue
            problem = f"did not answer within {START_SECONDS} s" if status is None else f"ended with status {status}"
            log_end = tail(self.log.read_text(encoding="utf-8", errors="replace"))
            raise ServerError(f"{self.name} {problem} when it was started. Its log ends with:\n{log_end}")

    def _ready(self) -> bool:
        try:
            return self._answers()
        except OSError:
            return False

    def _remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.kill()
        self._remove()
