"""Servers that only pretend: they speak as much of a protocol as an attack takes."""

import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

MYSQL_GREETING = (
    b"\x0a8.0.0\0" + struct.pack("<I", 7) + b"saltsalt\0" + struct.pack("<H", 0x8289) + b"\x21\x02\0"
    + struct.pack("<H", 0x0008) + b"\x15" + bytes(10) + b"saltsaltsalt\0" + b"mysql_native_password\0"
)  # fmt: skip
MYSQL_OK = b"\0\0\0\x02\0\0\0"


@contextmanager
def pretender(serve: Callable[[socket.socket], None]) -> Iterator[tuple[int, threading.Event]]:
    """One that serves each connection in turn; its port, and whether a connection has ended."""
    ended = threading.Event()
    listening = socket.create_server(("127.0.0.1", 0), backlog=300)

    def work() -> None:
        with suppress(OSError):
            while True:
                line, _ = listening.accept()
                line.settimeout(10)
                with line, suppress(OSError):
                    serve(line)
                ended.set()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield listening.getsockname()[1], ended
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join()


def packet(number: int, body: bytes) -> bytes:
    """One of MySQL's protocol."""
    return len(body).to_bytes(3, "little") + bytes([number]) + body


def mysql_login(line: socket.socket) -> None:
    """Let anybody in, and read the first statement."""
    line.sendall(packet(0, MYSQL_GREETING))
    line.recv(4096)
    line.sendall(packet(2, MYSQL_OK))
    line.recv(4096)


def certificate(folder: Path, *names: str) -> tuple[Path, Path]:
    """A certificate for these names that vouches for itself, and its key."""
    key, made = folder / "key.pem", folder / "certificate.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-days", "10", "-subj", "/CN=test", "-addext", f"subjectAltName={','.join(names)}"),
            *("-keyout", key, "-out", made),
        ],
        check=True,
        capture_output=True,
    )
    return made, key
