"""Looking at an instance over HTTP."""

import asyncio
import gzip
import json
import time

import pytest

from apps.health.probers import instance as prober
from apps.health.probers.instance import Target, observe_all
from tests.http_app import Answer, http_app
from tests.receiver import Reply, receiver
from tests.servers import free_port

READY = {
    "status": "ready",
    "version": "1.4.0",
    "checks": {
        "database": {"status": "healthy", "latency_ms": 5.23, "message": "MySQL connection successful"},
        "redis": {"status": "healthy", "latency_ms": 51, "message": "Redis connection successful"},
    },
}


def look(*targets: Target, timeout: float = 2.0):
    return asyncio.run(observe_all(targets, timeout=timeout))


def one(url: str, **options):
    (seen,) = look(Target("web-1", f"{url}/ready", f"{url}/metrics", **options))
    return seen


def answer(body: object, status: int = 200) -> Answer:
    return Answer(status, json.dumps(body).encode())


def test_a_full_readiness_answer_and_metrics_page_are_read():
    metrics = Answer(body=b"process_cpu_seconds_total 3\n", content_type="text/plain")
    with http_app(ready=answer(READY), metrics=metrics) as app:
        seen = one(app.url)

    assert (seen.failure, seen.http_status, seen.version) == ("", 200, "1.4.0")
    assert (seen.database.status, seen.database.response_ms) == ("connected", 5)
    assert (seen.redis.status, seen.redis.response_ms) == ("slow", 51)
    assert seen.counters.cpu_seconds == 3
    assert seen.measured_at.tzinfo is not None


def test_a_503_still_says_which_dependency_is_gone():
    body = READY | {"checks": {"database": {"status": "unhealthy", "latency_ms": 800}}}
    with http_app(ready=answer(body, 503)) as app:
        seen = one(app.url)

    assert (seen.http_status, seen.database.status, seen.database.response_ms) == (503, "disconnected", None)


def test_the_short_health_answer_is_understood_too():
    with http_app(ready=answer({"status": "unhealthy", "database": "disconnected"}, 503)) as app:
        assert one(app.url).database.status == "disconnected"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"OK",
        b"\xff\xfe",
        b"[1, 2]",
        b'{"checks": []}',
        b'{"checks": {"database": 5, "redis": null}, "version": 7}',
        b'{"checks": {"database": {"status": ["x"], "latency_ms": true}}}',
        b"[" * 60_000,
    ],
)
def test_a_body_that_says_nothing_leaves_everything_unknown(body):
    with http_app(ready=Answer(200, body)) as app:
        seen = one(app.url)

    assert (seen.failure, seen.http_status) == ("", 200)
    assert (seen.database.status, seen.redis.status, seen.version) == ("unknown", "unknown", None)


def test_a_version_keeps_only_what_a_database_can_store():
    with http_app(ready=Answer(200, b'{"version": "v1\\u0000\\ud800\\n.2' + b"x" * 100 + b'"}')) as app:
        version = one(app.url).version

    assert version is not None
    assert version.startswith("v1.2xxx")
    assert len(version) == 64


def test_nobody_listening_is_a_refused_connection():
    seen = one(f"http://127.0.0.1:{free_port()}")

    assert (seen.failure, seen.http_status) == ("refused the connection", None)


def test_an_unknown_host_is_named_as_such():
    assert one("http://no-such-host.invalid").failure == "its host name cannot be resolved"


def test_a_redirect_is_not_followed():
    with http_app(ready=Answer(302, headers={"Location": "/elsewhere"}), elsewhere=answer(READY)) as app:
        seen = one(app.url)

    assert seen.http_status == 302
    assert "/elsewhere" not in {path for _, path, _ in app.seen}


def test_a_hanging_target_fails_at_its_time_limit_and_delays_nobody():
    with http_app(ready=Answer(delay=30, body=b"{}")) as slow, http_app(ready=answer(READY)) as quick:
        started = time.perf_counter()
        targets = [Target(f"slow-{n}", f"{slow.url}/ready") for n in range(20)]
        *hanging, well = look(*targets, Target("quick", f"{quick.url}/ready"), timeout=0.5)
        elapsed = time.perf_counter() - started

    assert {seen.failure for seen in hanging} == {"did not answer within 0.5 s"}
    assert all(seen.response_time_ms >= 500 for seen in hanging)
    assert (well.failure, well.response_time_ms < 400) == ("", True)
    assert elapsed < 2.0  # one after another would be ten seconds


def test_an_endless_answer_is_cut_off():
    with http_app(ready=Answer(200, b"x" * (prober.READINESS_LIMIT + 1))) as app:
        assert one(app.url).failure


def test_a_small_answer_cannot_grow_large():
    bomb = gzip.compress(json.dumps({**READY, "padding": "0" * 60_000}).encode())
    with receiver() as server:
        server.starts_over(Reply(200, bomb, {"Content-Encoding": "gzip"}))
        seen = one(server.url, preset="none")

    assert server.requests[0].headers["accept-encoding"] == "identity"
    assert (seen.http_status, seen.version) == (200, None), "it was not unpacked"


def test_an_application_without_metrics_is_not_an_ill_one():
    with http_app(ready=answer(READY), metrics=Answer(500)) as app:
        seen = one(app.url)

    assert (seen.failure, seen.counters.cpu_seconds) == ("", None)


def test_metrics_pages_are_read_when_everyone_has_answered():
    page = Answer(body=b"process_cpu_seconds_total 3\n")
    with http_app(ready=answer(READY), metrics=page) as quick, http_app(ready=Answer(body=b"{}", delay=0.5)) as slow:
        targets = [Target(f"web-{n}", f"{quick.url}/ready", f"{quick.url}/metrics") for n in range(8)]
        seen = look(*targets, Target("slow", f"{slow.url}/ready"))

    paths = [path for _, path, _ in quick.seen]
    assert paths == ["/ready"] * 8 + ["/metrics"] * 8
    # A page that takes long to read cannot make an answer look slow: the slowest answer came before the first page.
    assert all(one.measured_at > seen[-1].measured_at for one in seen[:8])
    assert {one.counters.cpu_seconds for one in seen[:8]} == {3}


def test_a_fault_of_ours_with_one_target_costs_nobody_else_an_answer(monkeypatch):
    def broken(body):
        if body == b"{}":
            raise RuntimeError("a fault of ours")
        return json.loads(body)

    monkeypatch.setattr(prober, "_json_object", broken)
    with http_app(ready=Answer(body=b"{}")) as odd, http_app(ready=answer(READY)) as well:
        first, second = look(Target("odd", f"{odd.url}/ready"), Target("well", f"{well.url}/ready"))

    assert first.failure.startswith("could not be read")
    assert (second.failure, second.version) == ("", "1.4.0")


def test_the_metrics_token_goes_to_the_metrics_page_only():
    with http_app(ready=answer(READY), metrics=Answer(body=b"process_cpu_seconds_total 3\n")) as app:
        one(app.url, metrics_token="abcdefghijklmnopqrst")

    headers = {path: sent.get("Authorization") for _, path, sent in app.seen}
    assert headers == {"/ready": None, "/metrics": "Bearer abcdefghijklmnopqrst"}
