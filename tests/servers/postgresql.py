"""A private PostgreSQL."""

import os
import pwd
import secrets
import shutil
import signal
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from tests.servers.packages import COMMAND_SECONDS, ServerError, checked, ensure_installed, run, tail
from tests.servers.process import ANSWER_SECONDS, POLL_SECONDS, STOP_SECONDS, Server

# The server's package makes a cluster of the system and starts it; `_no_system_cluster` keeps it from that.
POSTGRESQL_PACKAGES = ("postgresql", "postgresql-client")
DEBIAN_VERSIONS = Path("/usr/lib/postgresql")  # a folder for each major version; its programs are in none of PATH
NO_CLUSTER_FILE = Path("/etc/postgresql-common/createcluster.d/pulsewatch-tests.conf")
PROTOCOL = 3 << 16  # version 3.0 of the protocol between client and server


@cache
def postgresql_programs() -> Path:
    """The folder of the newest PostgreSQL's own programs, installed when they are missing."""
    if not _versions():
        with _no_system_cluster():
            ensure_installed(*POSTGRESQL_PACKAGES)
    if not _versions():
        raise ServerError(f"{DEBIAN_VERSIONS} holds no server, although {POSTGRESQL_PACKAGES[0]} is installed.")
    return max(_versions(), key=lambda folder: int(folder.parent.name))


def _versions() -> list[Path]:
    return [program.parent for program in DEBIAN_VERSIONS.glob("[0-9]*/bin/initdb")]


@contextmanager
def _no_system_cluster() -> Iterator[None]:
    """Inside, installing the package brings programs and starts nothing."""
    as_root = [] if os.geteuid() == 0 else ["sudo", "-n"]
    if as_root and shutil.which(as_root[0]) is None:  # installing will say what a person has to type
        yield
        return
    run([*as_root, "mkdir", "--parents", NO_CLUSTER_FILE.parent])
    line = "create_main_cluster = false"
    run([*as_root, "sh", "-c", 'echo "$0" > "$1"', line, str(NO_CLUSTER_FILE)])
    try:
        yield
    finally:
        run([*as_root, "rm", "--force", NO_CLUSTER_FILE])


class PostgreSQL(Server):
    """The system's PostgreSQL. User and database are both called `pulsewatch`; the user is a superuser.

    It refuses to run as root. There it runs as another user, who may still enter the folders of the run.
    """

    name = "PostgreSQL"

    def __init__(self, *options: str) -> None:
        super().__init__(*options)
        self._password = secrets.token_urlsafe(24)

    @property
    def url(self) -> str:
        return f"postgresql://pulsewatch:{self._password}@127.0.0.1:{self.port}/pulsewatch"

    def stop(self, *, keep_data: bool = False) -> None:
        """End the server cleanly, frozen or not, and its clients with it."""
        if self.running:
            self.thaw()
            os.kill(self.pid, signal.SIGINT)  # "fast": SIGTERM would wait until the last client has gone
            with suppress(subprocess.TimeoutExpired):
                assert self._process
                self._process.wait(STOP_SECONDS)
        super().stop(keep_data=keep_data)

    def kill(self) -> None:
        """End the server with all its processes at once (SIGKILL)."""
        family = self._family()
        for pid in family:
            _signal(pid, signal.SIGKILL)
        super().kill()
        # A process of the dead server that still holds its memory would keep the next one from starting.
        deadline = time.monotonic() + STOP_SECONDS
        while any(_lives(pid) for pid in family) and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)

    def freeze(self) -> None:
        """Halt every process of the server: connections stay open, nothing is answered."""
        super().freeze()  # first the one that makes new ones
        for pid in self._family():
            _signal(pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let every process of a frozen server go on."""
        for pid in self._family():
            _signal(pid, signal.SIGCONT)
        super().thaw()

    def _family(self) -> list[int]:
        if not self.running:
            return []
        with suppress(OSError):
            children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
            return [int(pid) for pid in children.split()]
        return []

    def _prepare(self) -> None:
        if os.geteuid() == 0:
            self._give(self.folder)
        secret = self.folder / "password"  # the folder is the server's alone (0700)
        secret.write_text(self._password)
        if os.geteuid() == 0:
            self._give(secret)
        checked(
            [
                *_as_somebody(),
                postgresql_programs() / "initdb",
                f"--pgdata={self.folder / 'data'}",
                "--username=pulsewatch",
                f"--pwfile={secret}",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--locale=C.UTF-8",
                "--no-sync",
            ]
        )
        secret.unlink()
        self._create_database()

    def _create_database(self) -> None:
        """With the server's single-user mode, which needs neither port nor password."""
        done = subprocess.run(
            [*_as_somebody(), *self._server(), "--single", *self._settings(), "postgres"],
            input="CREATE DATABASE pulsewatch;\n",
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            timeout=COMMAND_SECONDS,
            check=False,
        )
        if done.returncode != 0 or "ERROR" in done.stdout:
            raise ServerError(f"PostgreSQL could not make its database:\n{tail(done.stdout)}")

    def _command(self) -> Sequence[str | Path]:
        # The kernel forgets an order to die with the parent when a process becomes somebody else, so it is given again.
        again = ["--pdeathsig", "KILL"] if threading.current_thread() is threading.main_thread() else []
        return [*_as_somebody(*again), *self._server(), *self._settings(), *self.options]

    def _server(self) -> list[str | Path]:
        return [postgresql_programs() / "postgres"]

    def _settings(self) -> list[str]:
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": self.folder,
            # A commit is written but not forced to disk: it survives the death of the server, not that of the machine.
            "fsync": "off",
            "full_page_writes": "off",
            "dynamic_shared_memory_type": "mmap",  # files of our folder, which go with it
            "shared_buffers": "32MB",
            "max_wal_size": "512MB",
            "log_checkpoints": "off",
            "lc_messages": "C",
            "timezone": "UTC",
        }
        data = ["-D", str(self.folder / "data")]
        return [*data, *(part for name, value in settings.items() for part in ("-c", f"{name}={value}"))]

    def _answers(self) -> bool:
        # The socket in our own folder proves that the server is ours.
        return _asks_password(socket.AF_UNIX, str(self.folder / f".s.PGSQL.{self.port}")) and _asks_password(
            socket.AF_INET, ("127.0.0.1", self.port)
        )

    def _give(self, path: Path) -> None:
        user = _somebody()
        os.chown(path, user.pw_uid, user.pw_gid)

    def _remove(self) -> None:
        # Two numbers of a server that was killed name the few bytes of System V memory that it could not give back.
        with suppress(OSError, IndexError, ValueError):
            facts = (self.folder / "data/postmaster.pid").read_text().splitlines()[6].split()
            run(["ipcrm", "--shmem-id", str(int(facts[1]))])
        shutil.rmtree(self.folder, ignore_errors=True)


@cache
def _somebody() -> pwd.struct_passwd:
    """Who runs the server where the tests run as root."""
    with suppress(KeyError):
        return pwd.getpwnam("postgres")
    return pwd.getpwnam("nobody")


def _as_somebody(*options: str) -> list[str | Path]:
    """Starts a program as a user who is not root, yet may pass through root's folders; nothing to do for others."""
    if os.geteuid() != 0:
        return []
    user = _somebody()
    return [
        "setpriv",
        *options,
        f"--reuid={user.pw_uid}",
        f"--regid={user.pw_gid}",
        "--clear-groups",
        "--inh-caps=+dac_override",
        "--ambient-caps=+dac_override",
        "--",
    ]


def _asks_password(family: socket.AddressFamily, address: "str | tuple[str, int]") -> bool:
    """Whether a server there asks who we are. One that still starts answers with an error instead."""
    words = b"user\0pulsewatch\0database\0pulsewatch\0\0"
    with socket.socket(family) as connection:
        connection.settimeout(ANSWER_SECONDS)
        connection.connect(address)
        connection.sendall(struct.pack("!ii", 8 + len(words), PROTOCOL) + words)
        return connection.recv(1) == b"R"


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _lives(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
