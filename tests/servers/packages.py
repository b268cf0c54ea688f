"""Programs the suite needs, and the Debian packages that bring them."""

import fcntl
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

# Every package here brings programs or headers and no service that the system would start by itself. That is why
# `mariadb-server` and `redis-server` are not among them: what they add to these is exactly the service.
MARIADB_PACKAGES = ("mariadb-server-core", "mariadb-client-core", "mariadb-client")
REDIS_PACKAGES = ("redis-tools",)
BROWSER_PACKAGES = ("chromium",)
COMPILER_PACKAGES = ("gcc", "libmariadb-dev", "pkg-config")  # mysqlclient has no wheel

APT_SECONDS = 900  # one run of apt: Chromium on a slow line
COMMAND_SECONDS = 60  # any other command, most of which end within a second
TAIL_LINES = 25  # of what a failed program said, shown to the person


class ServerError(Exception):
    """A server or a program of the suite cannot be had; the message says why and what to do."""


def program(name: str, *packages: str) -> str:
    """The path of a program. Where it is missing, the Debian packages that carry it are installed first."""
    search_path = os.environ.get("PATH", os.defpath) + ":/usr/local/sbin:/usr/sbin:/sbin"
    path = shutil.which(name, path=search_path)
    if path is None:
        ensure_installed(*packages)
        path = shutil.which(name, path=search_path)
    if path is None:
        raise ServerError(f"{name} is not on this machine, although {', '.join(packages)} is installed.")
    return path


def chromium_path() -> str:
    """The Chromium that browser tests drive, installed when it is missing."""
    return shutil.which("chromium-browser") or program("chromium", *BROWSER_PACKAGES)


def suite_packages() -> tuple[str, ...]:
    """All Debian packages that the suite and the compilation of mysqlclient need, for the running Python."""
    headers = Path(sysconfig.get_path("include"), "Python.h")
    python = () if headers.exists() else (f"python3.{sys.version_info.minor}-dev",)
    return (*MARIADB_PACKAGES, *REDIS_PACKAGES, *BROWSER_PACKAGES, *COMPILER_PACKAGES, *python)


def ensure_installed(*packages: str) -> None:
    """Install the Debian packages that are missing: with apt, as root or through a password-less sudo.

    Processes that ask at the same time wait for each other. Where this user may not install packages, ServerError
    carries the command to type.
    """
    if not _missing(packages):
        return
    with locked(cache_folder() / "apt.lock"):
        if missing := _missing(packages):
            _apt_install(missing)


def _missing(packages: Sequence[str]) -> list[str]:
    if shutil.which("dpkg-query") is None:
        return list(packages)
    status = run(["dpkg-query", "--show", "--showformat=${Package} ${db:Status-Status}\n", *packages])
    installed = {line.split()[0] for line in status.stdout.splitlines() if line.endswith(" installed")}
    return [package for package in packages if package not in installed]


def _apt_install(packages: Sequence[str]) -> None:
    # --no-remove: where a package of the system stands in the way, a person decides.
    install = ["apt-get", "install", "--yes", "--quiet", "--no-install-recommends", "--no-remove", *packages]
    advice = f"The tests need Debian packages that are missing. Install them with: sudo {' '.join(install)}"
    if shutil.which("apt-get") is None:
        raise ServerError(f"This system has no apt-get. The tests need what Debian calls {', '.join(packages)}.")
    as_root = ["env", "DEBIAN_FRONTEND=noninteractive"]
    if os.geteuid() != 0:
        if shutil.which("sudo") is None or run(["sudo", "-n", "true"]).returncode != 0:
            raise ServerError(advice)
        as_root = ["sudo", "-n", *as_root]
    print(f"Installing with apt: {', '.join(packages)}", file=sys.stderr, flush=True)
    done = run([*as_root, *install], seconds=APT_SECONDS)
    if done.returncode != 0:  # the package lists are missing or too old
        run([*as_root, "apt-get", "update", "--quiet"], seconds=APT_SECONDS)
        done = run([*as_root, *install], seconds=APT_SECONDS)
    if done.returncode != 0:
        raise ServerError(f"{advice}\napt said:\n{tail(done.stdout)}")


def run(command: Sequence[str | Path], *, seconds: float = COMMAND_SECONDS) -> subprocess.CompletedProcess[str]:
    """Run a command that can ask nothing; its standard output and standard error come back together as `stdout`."""
    try:
        return subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ServerError(f"{Path(command[0]).name} did not end within {seconds:g} s.") from error


def tail(text: str) -> str:
    """The last lines of what a program said."""
    return "\n".join(text.splitlines()[-TAIL_LINES:])


def checked(command: Sequence[str | Path], *, seconds: float = COMMAND_SECONDS) -> None:
    """Run a command; ServerError with the end of what it said when it fails."""
    done = run(command, seconds=seconds)
    if done.returncode != 0:
        raise ServerError(f"{Path(command[0]).name} failed with status {done.returncode}:\n{tail(done.stdout)}")


def cache_folder() -> Path:
    """What stays from run to run: the unpacked MySQL and Docker, and locks."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base, "pulsewatch-tests")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock between processes; closing the file frees it, whatever happens."""
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
