"""What the embedded default keeps in `var/`: secrets made on first need, and the socket of its own broker."""

import os
import secrets
import sys
import tempfile
from pathlib import Path

# Bytes of a Unix socket's path, the closing zero included: macOS' limit, the smallest; Linux allows 108 (sys/un.h).
SOCKET_PATH_LIMIT = 104


def private_folder(var: Path) -> None:
    """Make the folder that only its owner may enter. Ends the process with a sentence where that cannot be."""
    try:
        var.mkdir(mode=0o700, parents=True, exist_ok=True)
        var.chmod(0o700)
        with tempfile.TemporaryFile(dir=var):
            pass
    except OSError as error:
        sys.exit(
            f"pulsewatch: cannot write into the folder {var} ({error.strerror}). Pulsewatch keeps its data there: give "
            "yourself the right to write, or name another folder with VAR_DIR."
        )


def embedded_secret(var: Path, name: str) -> str:
    """The secret kept in `var/<name>` (mode 0600), made when it is missing.

    Two processes that start together agree: whoever links its file first wins, the other one reads it.
    """
    path = var / name
    if not path.is_file():
        private_folder(var)
        handle, draft = tempfile.mkstemp(dir=var)  # mode 0600
        with os.fdopen(handle, "w") as file:
            file.write(secrets.token_urlsafe(50))
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(draft, path)
        except FileExistsError:
            pass
        finally:
            Path(draft).unlink()
    return path.read_text().strip()


def embedded_socket(var: Path) -> Path:
    """Where the embedded Valkey listens."""
    return var / "valkey.sock"
