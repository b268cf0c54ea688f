"""Running a database's client program: credentials over an anonymous pipe, its data through ours, its own exit status.

A dump is read from `fileno()`, a restore is fed by `write()`; `finish()` says whether the program itself was content.
What it writes on standard error is kept in memory: it may quote rows.
"""

import fcntl
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from apps.backups.engines.base import EngineError
from apps.core.redaction import redact

CREDENTIALS = "{credentials}"  # in a command line or an environment: the path under which the client reads them
PIPE_BYTES = 1 << 20  # of a pipe, the most Linux lends an ordinary user; 64 KiB would cost a switch each
STDERR_BYTES = 16 << 10  # of the end of standard error that is looked at
TAIL_LINES = 3  # of it that a person is shown
WAIT_SECONDS = 1.0  # a restore that takes nothing for longer says so, again and again
PAUSE_SECONDS = 0.005  # for a full pipe to drain: of its mebibyte even a fast restore takes a part
END_SECONDS = 60  # for a client that has written everything to end
VERSION_SECONDS = 20  # for a client to say its version; a fraction of a second, but not on a machine that swaps

# How clients begin a line of their own, and which lines of theirs quote rows. Other lines are statements they echo.
_OWN_LINE = re.compile(r"(?!(?:DETAIL|CONTEXT|LINE|STATEMENT)\b)(?:ERROR\b|[\w./-]+: )")
# How a client says in words what it does not say in its status.
_COMPLAINT = re.compile(r"(?!.*\[warning\]).*(?:\berror\b|failed|couldn't|could not|insufficient privileges)", re.I)


def neutral_environment() -> dict[str, str]:
    """What a client sees of ours: no locale, no home folder with settings or logins, no password variable."""
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "TMPDIR") if name in os.environ}
    return kept | {"HOME": "/nonexistent", "LC_ALL": "C.UTF-8", "TZ": "UTC"}


def programs(*names: str) -> Iterator[Path]:
    """Every program of these names on PATH, by name and then by folder; two names of one file come once."""
    seen: set[Path] = set()
    for name in names:
        for folder in os.environ.get("PATH", os.defpath).split(os.pathsep):
            if (found := shutil.which(name, path=folder)) and (real := Path(found).resolve()) not in seen:
                seen.add(real)
                yield Path(found)


def version_text(program: Path) -> str:
    """What a program answers to `--version`; empty when it does not run."""
    try:
        done = subprocess.run(
            [program, "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=VERSION_SECONDS,
            env=neutral_environment(),
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode(errors="replace").strip() if done.returncode == 0 else ""


class _Client:
    """A client program that runs. Leaving the `with` block ends it at once if it still does."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        credentials: str,
        password: str,
        explain: Callable[[str], str],
        environment: Mapping[str, str],
        stdin: int,
        stdout: int,
    ) -> None:
        self._name = Path(command[0]).name
        self._password = password
        self._explain = explain
        self._stderr = _memory_file()
        try:
            with _anonymous(credentials) as (path, descriptor):
                self._process = subprocess.Popen(
                    [part.replace(CREDENTIALS, path) for part in command],
                    stdin=stdin,
                    stdout=stdout,
                    stderr=self._stderr,
                    env=neutral_environment()
                    | {name: value.replace(CREDENTIALS, path) for name, value in environment.items()},
                    pass_fds=(descriptor,),
                    start_new_session=True,  # Ctrl-C is for us, who then end it
                )
        except BaseException as error:
            self._stderr.close()
            if isinstance(error, OSError):
                raise EngineError(f"{self._name} cannot be started: {error.strerror}.") from error
            raise

    @property
    def pid(self) -> int:
        """The process id of the client."""
        return self._process.pid

    def _ended(self, seconds: float) -> bool:
        """Whether the client ends within so many seconds."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def _end(self, seconds: float) -> None:
        """Wait for the client; EngineError with its own words unless it ended well."""
        if not self._ended(seconds):
            self._kill()
            raise EngineError(f"{self._name} did not end within {seconds:g} s of its last byte.")
        status, said = self._process.returncode, self._said()
        if status < 0:
            raise EngineError(f"{self._name} was ended by signal {-status}.{_quoted(said)}")
        if status > 0:
            raise EngineError(f"{self._name} ended with status {status}.{_quoted(said)}{_advice(self._explain(said))}")
        if _COMPLAINT.match(said):  # some losses are reported with status 0
            raise EngineError(f"{self._name} ended with status 0, yet complained.{_quoted(said)}")

    def _said(self) -> str:
        """The end of standard error: without statements it echoes, for they hold rows, and without secrets."""
        size = self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(0, size - STDERR_BYTES))
        text = self._stderr.read().decode("utf-8", "replace")
        if self._password:
            text = text.replace(self._password, "[redacted]")
        lines = [line.strip() for line in text.splitlines() if _OWN_LINE.match(line)]
        errors = [line for line in lines if _COMPLAINT.match(line)]
        return redact(" ".join((errors or lines)[-TAIL_LINES:]))

    def _kill(self) -> None:
        with suppress(ProcessLookupError):
            self._process.kill()
        self._process.wait()

    def _close(self) -> None:
        if self._process.poll() is None:
            self._kill()
        self._stderr.close()


class DumpClient(_Client):
    """A client that writes a dump into a pipe of ours."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        credentials: str = "",
        password: str = "",
        explain: Callable[[str], str] = lambda said: "",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """`credentials` is the text the client finds at CREDENTIALS; `explain` turns its complaint into a remedy."""
        self._reading, writing = os.pipe()
        _enlarge(self._reading)
        try:
            super().__init__(
                command,
                credentials=credentials,
                password=password,
                explain=explain,
                environment=environment or {},
                stdin=subprocess.DEVNULL,
                stdout=writing,
            )
        except BaseException:
            os.close(self._reading)
            raise
        finally:
            os.close(writing)

    def fileno(self) -> int:
        """The reading end, blocking; it ends when the client does."""
        return self._reading

    def finish(self) -> None:
        """After the last byte: wait for the client; EngineError unless it ended with status 0 and no complaint."""
        self._end(END_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()
        os.close(self._reading)


class RestoreClient(_Client):
    """A client that is fed a dump."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        credentials: str = "",
        password: str = "",
        explain: Callable[[str], str] = lambda said: "",
        environment: Mapping[str, str] | None = None,
        on_wait: Callable[[], None] | None = None,
    ) -> None:
        """As for DumpClient. `on_wait` is called once a second while the client keeps us waiting; it may raise."""
        reading, self._writing = os.pipe()
        self._open = True
        self._on_wait = on_wait or (lambda: None)
        _enlarge(self._writing)
        os.set_blocking(self._writing, False)
        try:
            super().__init__(
                command,
                credentials=credentials,
                password=password,
                explain=explain,
                environment=environment or {},
                stdin=reading,
                stdout=subprocess.DEVNULL,
            )
        except BaseException:
            os.close(self._writing)
            raise
        finally:
            os.close(reading)

    def write(self, block: memoryview) -> None:
        """Hand the client a block, as fast as it takes it. EngineError with its own words when it has died."""
        heard = time.monotonic()
        try:
            while block:
                try:
                    block = block[os.write(self._writing, block) :]
                    heard = time.monotonic()
                except BlockingIOError:
                    time.sleep(PAUSE_SECONDS)
                    if time.monotonic() > heard + WAIT_SECONDS:
                        heard = time.monotonic()
                        self._on_wait()
        except BrokenPipeError as error:
            self._stop_writing()
            self._end(END_SECONDS)
            raise EngineError(f"{self._name} ended before it had read everything.") from error

    def finish(self) -> None:
        """After the last block: wait as long as the client works on it; EngineError unless it ended well."""
        self._stop_writing()
        while not self._ended(WAIT_SECONDS):
            self._on_wait()
        self._end(END_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Killed before its input closes: a client that saw the end would take half a dump for a whole one.
        self._close()
        self._stop_writing()

    def _stop_writing(self) -> None:
        if self._open:
            self._open = False
            os.close(self._writing)


@contextmanager
def _anonymous(text: str) -> Iterator[tuple[str, int]]:
    """A pipe that holds the text, as the path a child opens and the descriptor it must inherit."""
    reading, writing = os.pipe()
    try:
        try:
            os.set_blocking(writing, False)  # a text longer than the pipe must fail, not wait for ever
            if os.write(writing, text.encode()) < len(text.encode()):
                raise EngineError("The credentials are too long for a pipe.")
        finally:
            os.close(writing)
        yield f"/dev/fd/{reading}", reading
    finally:
        os.close(reading)


def _memory_file() -> BinaryIO:
    """A file that is never on a disk, where the system has such files."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("stderr"), "w+b")
    return tempfile.TemporaryFile()  # already without a name


def _enlarge(pipe: int) -> None:
    if hasattr(fcntl, "F_SETPIPE_SZ"):
        with suppress(OSError):  # the user's quota of pipe memory is spent: slower, not wrong
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_BYTES)


def _quoted(said: str) -> str:
    return f" It said: {said}" if said else ""


def _advice(remedy: str) -> str:
    return f" {remedy}" if remedy else ""
