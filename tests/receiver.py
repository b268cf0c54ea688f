"""A local HTTP server that plays a platform: it keeps what it is sent and answers as the test has planned.

The plan is a list; each request takes the next entry, and the last one stays.
"""

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.servers import free_port


@dataclass
class Reply:
    """An answer."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


class Trouble:
    """What a server does instead of answering."""

    RESET = "reset"
    GARBAGE = "garbage"
    NEVER = "never"
    ENDLESS = "endless"


@dataclass
class Request:
    method: str
    path: str
    headers: dict[str, str]  # names in lower case
    body: bytes


@dataclass
class Receiver:
    port: int
    plan: list[Reply | str] = field(default_factory=lambda: [Reply()])
    requests: list[Request] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def next(self) -> Reply | str:
        return self.plan.pop(0) if len(self.plan) > 1 else self.plan[0]

    def starts_over(self, *plan: Reply | str) -> None:
        """Forget what was received; answer like this from now on."""
        self.requests.clear()
        self.plan[:] = plan


class Handler(BaseHTTPRequestHandler):
    platform: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.platform.requests.append(Request(self.command, self.path, headers, body))
        reply = self.platform.next()
        with suppress(OSError):  # the caller may have hung up, as some tests want it to
            if isinstance(reply, Reply):
                self._answer(reply)
            else:
                getattr(self, f"_{reply}")()

    def do_GET(self) -> None:
        self.do_POST()

    def _answer(self, reply: Reply) -> None:
        self.send_response(reply.status)
        for name, value in {"Content-Length": str(len(reply.body)), **reply.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(reply.body)

    def _reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def _garbage(self) -> None:
        self.wfile.write(b"\x00\xffSSH-2.0-what is this\r\n\r\n")
        self.close_connection = True

    def _never(self) -> None:
        self.platform.ended.wait()

    def _endless(self) -> None:
        self.send_response(200)
        self.end_headers()
        while not self.platform.ended.is_set():
            self.wfile.write(b"x" * 65536)

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        pass  # a connection that was reset on purpose


@contextmanager
def receiver() -> Iterator[Receiver]:
    platform = Receiver(free_port())
    server = Server(("127.0.0.1", platform.port), type("Playing", (Handler,), {"platform": platform}))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield platform
    finally:
        platform.ended.set()
        server.shutdown()
        server.server_close()
        thread.join()
