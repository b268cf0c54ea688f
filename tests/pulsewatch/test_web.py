"""The web server as it is configured: whom it believes, what it writes, and where it listens."""

import json
import os
import urllib.request
from pathlib import Path

import pytest

from tests.serving import Served, served

LOGIN = "/admin/login/"
PROXIED = {"X_Forwarded_Proto": "https"}


def redirects(server: Served, **headers: str) -> bool:
    """Whether the console sends the browser on to HTTPS."""
    reply = server.get(LOGIN, **headers)
    return reply.status == 301 and reply.headers["Location"].startswith("https://")


def test_without_a_proxy_no_header_switches_the_redirect_to_https_off() -> None:
    with served(SECURE_SSL_REDIRECT="true") as server:
        assert redirects(server)
        assert redirects(server, **PROXIED)
        assert redirects(server, X_Forwarded_Protocol="ssl", X_Forwarded_Ssl="on")


def test_a_trusted_proxy_says_what_the_browser_used() -> None:
    with served(SECURE_SSL_REDIRECT="true", TRUSTED_PROXIES="1") as server:
        assert redirects(server)
        assert not redirects(server, **PROXIED)


def test_no_header_moves_a_page_or_a_probe() -> None:
    with served(SECURE_SSL_REDIRECT="true") as server:
        for name in ("SCRIPT_NAME", "PATH_INFO"):
            request = urllib.request.Request(f"{server.base}/healthz", headers={name: "/healthz"})
            with urllib.request.urlopen(request, timeout=10) as answer:
                assert (answer.status, answer.url) == (200, f"{server.base}/healthz")


def test_gunicorn_writes_no_line_about_a_request() -> None:
    with served() as server:
        assert server.get("/healthz?code=open-sesame").status == 200
        assert server.get("/nowhere?code=open-sesame").status == 404
        server.process.terminate()
        server.process.wait(timeout=20)
        written = server.log.read_text()
    assert "sesame" not in written
    loggers = {json.loads(line)["logger"] for line in written.splitlines()}
    assert "gunicorn.error" in loggers
    assert "gunicorn.access" not in loggers


def test_a_pid_file_that_a_killed_server_left_behind_holds_up_no_start(tmp_path: Path) -> None:
    pid_file = tmp_path / "web.pid"
    pid_file.write_text(str(os.getpid()))  # the number belongs to somebody else by now
    with served(VAR_DIR=str(tmp_path)) as server:
        assert int(pid_file.read_text()) == server.process.pid
    assert not pid_file.exists()


def test_counters_of_an_earlier_run_go_and_other_files_stay(tmp_path: Path) -> None:
    metrics, foreign = tmp_path / "metrics", tmp_path / "foreign"
    for folder in (metrics, foreign):
        folder.mkdir()
        (folder / "counter_1.db").write_bytes(b"")
        (folder / "notes").write_text("")
    with served(VAR_DIR=str(tmp_path), PROMETHEUS_MULTIPROC_DIR=str(foreign)) as server:
        assert server.get("/metrics").status == 200
        assert not (metrics / "counter_1.db").exists()
        assert list(metrics.glob("*.db"))
    assert (metrics / "notes").exists()
    assert {path.name for path in foreign.iterdir()} == {"counter_1.db", "notes"}


@pytest.mark.parametrize("host", ["127.0.0.2", "::1"])
def test_it_listens_and_answers_at_any_address_of_this_machine(host: str) -> None:
    with served(HOST=host) as server:
        assert server.get("/healthz").status == 200
        assert server.get(LOGIN).status == 200
