"""Bodies on a real web server: bounded whatever their headers say, whole or refused."""

import errno
import http.client
import json
import os
import socket
import threading
from datetime import UTC, datetime
from io import BytesIO
from tempfile import SpooledTemporaryFile
from urllib.parse import urlsplit

import psutil
import pytest
from django.core.handlers.wsgi import WSGIRequest
from django.db import connection
from django.test import RequestFactory

from apps.api import bodies
from apps.api.refusals import Refused
from apps.core.errors import Transient
from apps.health.models import HealthCheck
from apps.inventory.models import Instance
from tests.serving import served

MIB = bodies.MIB
# With all the fields an application may send.
SAMPLE = {
    "id": "health_20251020_143100",
    "instance_id": "signupflow-prod-instance-1",
    "environment": "production",
    "timestamp": "2025-10-20T14:31:00Z",
    "overall_status": "healthy",
    "response_time_ms": 45,
    "database_status": "connected",
    "database_response_ms": 12,
    "redis_status": "connected",
    "redis_response_ms": 3,
    "memory_usage_mb": 450,
    "memory_usage_percent": 44.5,
    "cpu_usage_percent": 15.2,
    "uptime_seconds": 86400,
    "version": "v1.2.3",
    "total_requests": 125340,
    "active_connections": 8,
    "error_rate_5min": 0.002,
    "created_at": "2025-10-20T14:31:00Z",
}


@pytest.fixture
def web(transactional_db):
    """A web server on the database of this test."""
    url = urlsplit(os.environ["DATABASE_URL"])
    with served(DATABASE_URL=url._replace(path=f"/{connection.settings_dict['NAME']}").geturl()) as server:
        yield server


class Wire:
    """Sends what no client library would."""

    def __init__(self, web, token):
        self.web, self.token = web, token
        self.address = urlsplit(web.base).hostname, urlsplit(web.base).port

    def post(self, path, body, **headers):
        """One request by http.client, which sends an iterator in chunks."""
        line = http.client.HTTPConnection(*self.address, timeout=30)
        chunked = not isinstance(body, bytes)
        given = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"} | headers
        if chunked:
            given["Transfer-Encoding"] = "chunked"
        try:
            line.request("POST", f"/api/v1{path}", body, given, encode_chunked=chunked)
            reply = line.getresponse()
            return reply.status, json.loads(reply.read())
        finally:
            line.close()

    def raw(self, headers, body, *, path="/instances"):
        """The status of a request written by hand, whose sending side is then closed."""
        text = f"POST /api/v1{path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {self.token}\r\n"
        text += "Content-Type: application/json\r\n" + "".join(f"{line}\r\n" for line in headers) + "\r\n"
        with socket.create_connection(self.address, timeout=30) as line:
            line.sendall(text.encode() + body)
            line.shutdown(socket.SHUT_WR)
            reply = b""
            while piece := line.recv(65536):
                reply += piece
        return int(reply.split()[1]) if reply else None


def body(name, size):
    """A valid instance, padded with white space to this many bytes."""
    text = json.dumps({"name": name, "environment": "production"}).encode()
    return text + b" " * (size - len(text))


def pieces(content):
    yield from (content[place : place + 65536] for place in range(0, len(content), 65536))


def test_bodies_are_read_up_to_their_limit_and_no_further(web, api):
    wire = Wire(web, api.token)
    assert wire.post("/instances", body("a", MIB))[0] == 201
    assert wire.post("/instances", pieces(body("b", MIB)))[0] == 201, "in chunks"
    for content in (body("c", MIB + 1), pieces(body("c", MIB + 1)), pieces(body("c", 20 * MIB))):
        status, problem = wire.post("/instances", content)
        assert (status, problem["limit"]) == (413, MIB)
    # What is declared too large is refused before a byte of it has come.
    assert wire.raw([f"Content-Length: {10**12}"], b"") == 413
    assert wire.raw(["Content-Length: 99999999999999999999999"], b"") in (400, 413)
    # Headers that lie about the length, or say it twice in two ways.
    assert wire.raw([f"Content-Length: {len(body('c', 50)) + 10}"], body("c", 50)) == 400
    assert wire.raw(["Content-Length: -1"], body("c", 50)) == 400
    assert wire.raw(["Content-Length: x"], body("c", 50)) == 400
    assert wire.raw(["Content-Length: 5", "Transfer-Encoding: chunked"], b"5\r\nhello\r\n0\r\n\r\n") == 400
    assert wire.raw(["Transfer-Encoding: chunked"], b"zz\r\nhello\r\n0\r\n\r\n") == 400
    assert wire.raw(["Transfer-Encoding: chunked"], b"ff\r\nhello") == 400, "ended too early"
    # Nobody without a token makes us read a body.
    assert Wire(web, "").raw([f"Content-Length: {10**12}"], b"") == 401

    assert set(Instance.objects.values_list("name", flat=True)) == {"a", "b"}
    assert web.get("/healthz").status == 200


def test_ten_thousand_whole_samples_fit_into_one_push(web, api):
    moment = datetime.now(UTC).replace(microsecond=0)
    samples = [
        SAMPLE | {"instance_id": f"web-{number % 20}", "timestamp": moment.replace(microsecond=number).isoformat()}
        for number in range(10_000)
    ]
    wire = Wire(web, api.token)
    assert wire.post("/health-checks", json.dumps(samples).encode()) == (
        201,
        {"stored": 10_000, "duplicates": 0, "registered": 20},
    )
    assert HealthCheck.objects.filter(overall_status="healthy").count() == 10_000


def test_however_much_is_sent_memory_stays_bounded(web, api):
    wire = Wire(web, api.token)
    wire.post("/instances", body("a", MIB))
    workers = [psutil.Process(pid) for pid in web.worker_pids()]
    before = sum(worker.memory_info().rss for worker in workers)
    endless = b"3b9aca00\r\n" + b" " * 20 * MIB  # one chunk of a gigabyte, as far as we care to send it
    threads = [threading.Thread(target=wire.raw, args=(["Transfer-Encoding: chunked"], endless)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sum(worker.memory_info().rss for worker in workers) - before < 40 * MIB  # of 80 that were sent


def request(content: bytes, **environ: object) -> WSGIRequest:
    made = RequestFactory().post("/", b"", content_type="application/json")
    return WSGIRequest({**made.environ, "wsgi.input": BytesIO(content), "CONTENT_LENGTH": str(len(content)), **environ})


def test_a_body_is_spooled_whole_and_rewound():
    with bodies.spool(request(b"x" * 3 * MIB), 4 * MIB) as file:
        assert len(file.read()) == 3 * MIB


def test_a_full_disk_is_a_reason_to_come_back_later(monkeypatch):
    class Full(SpooledTemporaryFile):
        def write(self, piece):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(bodies, "SpooledTemporaryFile", Full)
    with pytest.raises(Transient, match="temporary files"):
        bodies.spool(request(b"x" * MIB), 4 * MIB)


def test_a_server_that_cannot_end_a_body_in_chunks_asks_for_its_length():
    with pytest.raises(Refused) as caught:
        bodies.read(request(b"x", HTTP_TRANSFER_ENCODING="chunked"), 10)

    assert caught.value.status == 411
