"""Servers on this machine that play the other side of a scaler: they keep a count, and misbehave when told to."""

import json
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import ThreadingMixIn, UnixStreamServer
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

from apps.inventory.platforms.webhook import signature
from tests.inventory.platforms.stands import SECRET
from tests.servers import free_port

SLOW, DRIPPING, ALIEN, GARBAGE = "slow", "dripping", "alien", "garbage"
REFUSED, MISSING, BROKEN = "refused", "missing", "broken"
DRIP_SECONDS = 0.1


@dataclass
class Asked:
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]  # names in lower case
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class HTTPPlay:
    """What is common to those who speak HTTP; `answer` is the platform itself."""

    running: int = 2
    trouble: str = ""
    wishes: list[int] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)
    statuses: ClassVar[dict[str, int]] = {REFUSED: 403, MISSING: 404, BROKEN: 503}

    def answer(self, asked: Asked) -> tuple[int, Any]:
        raise NotImplementedError

    def complaint(self, status: int) -> Any:
        """What the platform says with a refusal; it repeats the secret, as careless servers do."""
        return {"detail": f"no {SECRET}", "message": f"no {SECRET}", "code": status}

    def starts_over(self, running: int = 2) -> None:
        self.running, self.trouble = running, ""
        self.wishes.clear()
        self.asked.clear()


class Handler(BaseHTTPRequestHandler):
    play: HTTPPlay

    def _take(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = urlsplit(self.path)
        asked = Asked(
            self.command,
            parts.path,
            {name: values[0] for name, values in parse_qs(parts.query).items()},
            {name.lower(): value for name, value in self.headers.items()},
            body,
        )
        play = self.play
        with suppress(OSError):  # the caller may have hung up, as some tests want it to
            if play.trouble == SLOW:
                play.ended.wait()
            elif play.trouble == DRIPPING:
                self._drip()
            elif play.trouble == ALIEN:
                self.wfile.write(b"\x00\xffSSH-2.0-what is this\r\n\r\n")
                self.close_connection = True
            elif play.trouble == GARBAGE:
                self._say(200, b"<html>It works!</html>")
            elif play.trouble in play.statuses:
                status = play.statuses[play.trouble]
                self._say(status, json.dumps(play.complaint(status)).encode())
            else:
                with play.lock:
                    play.asked.append(asked)
                    status, said = play.answer(asked)
                self._say(status, said if isinstance(said, bytes) else json.dumps(said).encode())

    do_GET = do_POST = do_PUT = do_PATCH = _take  # noqa: N815  (http.server looks for these names)

    def _say(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _drip(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        while not self.play.ended.wait(DRIP_SECONDS):
            self.wfile.write(b" ")
            self.wfile.flush()

    def address_string(self) -> str:
        return "somebody"  # a Unix socket has no address

    def log_message(self, *_: object) -> None:
        pass


class TCPServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        pass  # a caller that hung up


class UnixServer(ThreadingMixIn, UnixStreamServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        pass


@contextmanager
def served(play: HTTPPlay, path: Path | None = None, tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """The play at an address of its own, which is given; at a Unix socket when a path is named."""
    handler = type("Playing", (Handler,), {"play": play})
    port = 0 if path else free_port()
    server: TCPServer | UnixServer = UnixServer(str(path), handler) if path else TCPServer(("127.0.0.1", port), handler)
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield str(path) if path else f"http{'s' if tls else ''}://127.0.0.1:{port}"
    finally:
        play.ended.set()
        server.shutdown()
        server.server_close()
        thread.join()


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate of 127.0.0.1 that is its own authority, fit for a server and for a client, and its key."""
    found, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-days", "2", "-subj", "/CN=both", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", key, "-out", found),
        ],
        check=True,
        capture_output=True,
    )
    return found, key


def server_context(found: Path, key: Path, *, client: bool) -> ssl.SSLContext:
    """For a server with this certificate; `client`: nobody comes in without showing it too."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(found, key)
    if client:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(found)
    return context


@dataclass
class Hook(HTTPPlay):
    """A receiver of the webhook, as docs/platforms.md describes it."""

    ids: set[str] = field(default_factory=set)

    def answer(self, asked: Asked) -> tuple[int, Any]:
        moment, delivery = int(asked.headers["webhook-timestamp"]), asked.headers["webhook-id"]
        if asked.headers["webhook-signature"] != signature(SECRET.encode(), delivery, moment, asked.body):
            return 401, {"detail": "wrong signature"}
        if asked.method == "GET":
            return 200, {"instances": self.running, "ready": self.running}
        order = asked.json()
        assert order["id"] == delivery
        if order["id"] in self.ids or self.running == order["instances"]:
            return 200, {}
        if self.running != order["expected"]:
            return 409, {"instances": self.running}
        self.ids.add(order["id"])
        self.running = order["instances"]
        self.wishes.append(self.running)
        return 202, {}
