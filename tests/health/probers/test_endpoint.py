"""Asks real servers, good and bad ones."""

import asyncio
import datetime
import ssl
import subprocess
import threading
from collections.abc import Iterator
from http.server import HTTPServer

import pytest
from yarl import URL

from apps.health.probers.endpoint import MAX_BODY, Asker, Target
from apps.health.rules.checks import Answer, Expectation, judge_answer
from tests.receiver import Receiver, Reply, Trouble, receiver
from tests.servers import free_port

OK = Expectation(((200, 200),), slow_ms=10_000)


def ask(url: str, *, allow_loopback: bool = True, times: int = 1, **options) -> Answer:
    async def run() -> Answer:
        async with Asker(allow_loopback=allow_loopback) as asker:
            answers = [await asker.ask(Target(URL(url), OK, **{"timeout": 2.0, **options})) for _ in range(times)]
            return answers[-1]

    return asyncio.run(run())


@pytest.fixture
def server() -> Iterator[Receiver]:
    with receiver() as platform:
        yield platform


def test_an_answer_comes_with_status_body_and_time(server):
    server.starts_over(Reply(200, b'{"status": "ok"}'))
    answer = ask(server.url + "/api?x=%20")
    assert (answer.status, answer.body, answer.whole, answer.failure) == (200, b'{"status": "ok"}', True, "")
    assert answer.response_ms is not None
    assert 0 < answer.response_ms < 2000
    assert server.requests[0].path == "/api?x=%20"
    assert server.requests[0].headers["user-agent"] == "Pulsewatch"


def test_method_headers_and_body_are_sent(server):
    ask(server.url, method="POST", headers={"Authorization": "Bearer abc", "Content-Type": "text/x"}, body=b"<a/>")
    (seen,) = server.requests
    assert (seen.method, seen.body) == ("POST", b"<a/>")
    assert (seen.headers["authorization"], seen.headers["content-type"]) == ("Bearer abc", "text/x")


@pytest.mark.parametrize(
    ("plan", "failure"),
    [
        (Trouble.NEVER, "did not answer within 0.3 s"),
        (Trouble.RESET, "broke the connection or answered with something that is not HTTP"),
        (Trouble.GARBAGE, "broke the connection or answered with something that is not HTTP"),
    ],
)
def test_a_server_in_trouble_fails_with_a_sentence(server, plan, failure):
    server.starts_over(plan)
    answer = ask(server.url, timeout=0.3)
    assert (answer.status, answer.failure, answer.ours) == (None, failure, False)


def test_nobody_listening_and_no_name_are_told_apart():
    assert ask(f"http://127.0.0.1:{free_port()}/").failure == "refused the connection"
    assert ask("http://no-such-host.invalid/").failure == "its host name cannot be resolved"


def test_an_answer_without_end_is_cut_and_not_waited_for(server):
    server.starts_over(Trouble.ENDLESS)
    answer = ask(server.url, timeout=5)
    assert (answer.status, len(answer.body), answer.whole) == (200, MAX_BODY, False)


def test_redirects_are_followed_and_headers_stay_with_their_host(server):
    with receiver() as other:
        other.starts_over(Reply(200, b"there"))
        server.starts_over(Reply(302, headers={"Location": "/next"}), Reply(307, headers={"Location": other.url}))
        answer = ask(server.url, headers={"Authorization": "Bearer abc"})
    assert (answer.status, answer.body) == (200, b"there")
    assert [seen.headers.get("authorization") for seen in server.requests] == ["Bearer abc"] * 2
    assert "authorization" not in other.requests[0].headers


@pytest.mark.parametrize("status", [307, 308])
def test_a_body_is_sent_on_to_no_other_host(server, status):
    with receiver() as other:
        server.starts_over(Reply(status, headers={"Location": other.url}))
        answer = ask(server.url, method="POST", body=b"secret")
        assert (answer.status, other.requests) == (None, [])
        assert answer.failure == "redirects to another host and wants the request's body, which is not sent there"
        server.starts_over(Reply(status, headers={"Location": "/here"}), Reply(200))
        assert ask(server.url, method="POST", body=b"secret").status == 200  # at home it may
        assert [seen.body for seen in server.requests] == [b"secret"] * 2
        server.starts_over(Reply(303, headers={"Location": other.url}))
        assert ask(server.url, method="POST", body=b"secret").status == 200
        assert [(seen.method, seen.body) for seen in other.requests] == [("GET", b"")]


def test_a_redirect_is_an_answer_where_it_is_not_to_be_followed(server):
    server.starts_over(Reply(302, headers={"Location": "/next"}))
    assert ask(server.url, follow=False).status == 302


@pytest.mark.parametrize(
    ("place", "failure"),
    [
        ("http://169.254.169.254/latest/", "leads to an address that is a link-local or metadata address"),
        ("http://[::ffff:169.254.169.254]/", "leads to an address that is a link-local or metadata address"),
        ("file:///etc/passwd", "redirects to something that is no web address"),
        ("gopher://127.0.0.1:6379/_FLUSHALL", "redirects to something that is no web address"),
        ("http://[::1", "broke the connection or answered with something"),
        ("/again", "redirects more than 5 times"),
    ],
)
def test_every_hop_is_judged_again(server, place, failure):
    server.starts_over(Reply(302, headers={"Location": place}))
    answer = ask(server.url)
    assert answer.status is None
    assert answer.failure.startswith(failure)


def test_our_own_machine_is_asked_only_where_it_is_allowed(server):
    answer = ask(server.url, allow_loopback=False)
    assert "PROBE_ALLOW_LOOPBACK" in answer.failure
    assert server.requests == []
    assert judge_answer(answer, OK).status == "failed"


def test_every_check_makes_its_own_connection_unless_it_is_to_be_kept(server):
    from http.server import BaseHTTPRequestHandler

    ports: list[int] = []

    class Keeping(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            ports.append(self.client_address[1])
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    for keep, expected in ((False, 3), (True, 1)):
        ports.clear()
        with serving(HTTPServer(("127.0.0.1", free_port()), Keeping)) as url:
            ask(url, times=3, keep_alive=keep)
        assert len(set(ports)) == expected


class serving:  # noqa: N801  (used like a function)
    """Serve until the block ends."""

    def __init__(self, server: HTTPServer) -> None:
        self.server = server
        self.thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})

    def __enter__(self) -> str:
        self.thread.start()
        return f"http://127.0.0.1:{self.server.server_port}/"

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


def test_a_certificate_is_verified_and_its_end_is_known(tmp_path, monkeypatch):
    from http.server import BaseHTTPRequestHandler

    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-days", "10", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"),
            *("-keyout", key, "-out", certificate),
        ],
        check=True,
        capture_output=True,
    )

    class Answering(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    class Quiet(HTTPServer):
        def handle_error(self, *_: object) -> None:
            pass  # a client that does not trust us hangs up

    server = Quiet(("127.0.0.1", free_port()), Answering)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    with serving(server) as url:
        secure = url.replace("http://127.0.0.1", "https://localhost")
        assert ask(secure).failure == "its certificate is refused: self-signed certificate"
        assert ask(secure, verify=False).status == 200
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        answer = ask(secure)
        assert answer.status == 200
        assert answer.expires_at is not None
        left = answer.expires_at - datetime.datetime.now(datetime.UTC)
        assert datetime.timedelta(days=9) < left < datetime.timedelta(days=10, minutes=1)
        assert "certificate is refused" in ask(url.replace("http://", "https://")).failure, "another name"
