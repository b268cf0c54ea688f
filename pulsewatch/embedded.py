"""What the embedded default keeps in `var/`: secrets made on first need, and the socket of its own broker."""

import fcntl
import os
import secrets
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

# Bytes of a Unix socket's path, the closing zero included: macOS' limit, the smallest; Linux allows 108 (sys/un.h).
SOCKET_PATH_LIMIT = 104


def private_folder(var: Path) -> None:
    """Make the folder that only its owner may enter. Ends the process with a sentence where that cannot be.

    A folder of somebody else keeps its rights: closing /tmp, say, would break the machine.
    """
    try:
        if not var.is_dir():
            var.mkdir(mode=0o700, parents=True, exist_ok=True)
        elif var.stat().st_mode & 0o077:
            if not _is_ours(var):
                sys.exit(
                    f"pulsewatch: other users may enter the folder {var}, where Pulsewatch would keep its secrets: "
                    f"name another folder with VAR_DIR, or, when nothing else needs this one: chmod 700 {var}"
                )
            var.chmod(0o700)
        with tempfile.TemporaryFile(dir=var):
            pass
    except OSError as error:
        _cannot_write(var, error)


def _is_ours(var: Path) -> bool:
    """Whether this user made the folder for Pulsewatch: some file systems then forget that it is private."""
    key = var / "secret_key"
    return key.is_file() and {var.stat().st_uid, key.lstat().st_uid} == {os.geteuid()}


def _cannot_write(var: Path, error: OSError) -> NoReturn:
    sys.exit(
        f"pulsewatch: cannot write into the folder {var} ({error.strerror}). Pulsewatch keeps its data there: give "
        "yourself the right to write, or name another folder with VAR_DIR."
    )


def _token() -> str:
    return secrets.token_urlsafe(50)


def embedded_keyset() -> str:
    """A new keyset for backups. Imported late: only the first start spends the third of a second that takes."""
    from apps.core.keys import new_keyset

    return new_keyset()


def embedded_secret(var: Path, name: str, *, make: Callable[[], str] = _token) -> str:
    """The secret kept in `var/<name>` (mode 0600), made when it is missing or empty, as a full disk leaves it.

    Two processes that start together agree: whoever links its file first wins, the other one reads it.
    """
    path = var / name
    secret = _kept(path)
    if not secret:
        private_folder(var)
        try:
            _keep(path, make())
        except OSError as error:
            _cannot_write(var, error)
        secret = _kept(path)
    return secret


def _kept(path: Path) -> str:
    """What the file holds; empty when there is none. Ends the process with a sentence when it cannot be read."""
    try:
        return path.read_text(encoding="utf-8").strip()
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        sys.exit(
            f"pulsewatch: cannot read the secret in {path} ({reason}): correct the file's rights, or bring back "
            "a copy of it."
        )


def _keep(path: Path, secret: str) -> None:
    """Put the secret into the file, whole or not at all, unless another process was faster."""
    folder = os.open(path.parent, os.O_RDONLY)
    handle, draft = tempfile.mkstemp(dir=path.parent)  # mode 0600
    try:
        with os.fdopen(handle, "w") as file:
            file.write(secret)
            file.flush()
            os.fsync(file.fileno())
        # So that nobody takes the file of a faster process for the empty one. Some file systems have no locks.
        with suppress(OSError):
            fcntl.flock(folder, fcntl.LOCK_EX)
        if not _kept(path):
            path.unlink(missing_ok=True)
        with suppress(FileExistsError):
            os.link(draft, path)
    finally:
        Path(draft).unlink()
        os.close(folder)


def embedded_socket(var: Path) -> Path:
    """Where the embedded Valkey listens."""
    return var / "valkey.sock"
