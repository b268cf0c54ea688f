"""Probes and metrics of a real gunicorn with two workers, while its private servers are stopped and frozen."""

import os
import re
import signal
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.plugin import kind_of_database
from tests.servers import MariaDB, MySQL, Redis
from tests.serving import Reply, Served, served

RECOVERY_SECONDS = 15


def until(condition, *, seconds: float = RECOVERY_SECONDS) -> float:
    """Wait for a condition; gives the seconds it took."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < seconds, f"not so within {seconds} s"
        time.sleep(0.02)
    return time.monotonic() - started


@dataclass(frozen=True, slots=True)
class Scene:
    """A web server on private, migrated servers."""

    web: Served
    database: MariaDB | MySQL
    redis: Redis


@pytest.fixture(scope="module")
def scene(pytestconfig) -> Iterator[Scene]:
    kind = kind_of_database(pytestconfig)
    with (
        kind(migrated=True) as database,
        Redis() as redis,
        served(DATABASE_URL=database.url, REDIS_URL=redis.url) as web,
    ):
        yield Scene(web, database, redis)


@pytest.fixture
def web(scene) -> Served:
    """The web server of all tests here: whatever happens to what it needs, it never has to be restarted."""
    scene.database.start()  # which a test that failed may have left dead
    scene.redis.start()
    until(lambda: all(scene.web.get("/ready").status == 200 for _ in range(8)))  # both workers
    return scene.web


@pytest.fixture
def database(scene) -> MariaDB | MySQL:
    return scene.database


@pytest.fixture
def redis(scene) -> Redis:
    return scene.redis


class Prober(threading.Thread):
    """Calls a path all the time and keeps every answer with the moment it arrived."""

    def __init__(self, server: Served, path: str) -> None:
        super().__init__()
        self.server, self.path, self.done = server, path, threading.Event()
        self.replies: list[tuple[float, Reply]] = []

    def run(self) -> None:
        while not self.done.is_set():
            reply = self.server.get(self.path)
            self.replies.append((time.monotonic(), reply))
            self.done.wait(0.01)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.done.set()
        self.join()


@contextmanager
def lost(server, fault: str):
    """A private server that is frozen or killed for the block; gives the moment it went."""
    server.freeze() if fault == "freeze" else server.kill()
    try:
        yield time.monotonic()
    finally:
        server.thaw() if fault == "freeze" else server.restart()


def failing(server: Served, check: str) -> bool:
    reply = server.get("/ready")
    return reply.status == 503 and reply.json()["checks"][check]["status"] == "unhealthy"


def assert_seen_and_survived(web: Served, dependency, name: str, other: str, fault: str) -> None:
    """Lose a dependency for some seconds; check what probes on both workers said all along."""
    with Prober(web, "/healthz") as liveness, Prober(web, "/ready") as one, Prober(web, "/ready") as two:
        with lost(dependency, fault) as gone:
            until(lambda: time.monotonic() - gone > 5)
        until(lambda: all(web.get("/ready").status == 200 for _ in range(8)))

    readiness = [*one.replies, *two.replies]
    during = [(at - gone, reply) for at, reply in readiness if 0 < at - gone < 5]
    assert min(after for after, reply in during if reply.status == 503) < 2
    assert max((after for after, reply in during if reply.status == 200), default=0) < 2
    checks = [reply.json()["checks"] for after, reply in during if after > 2]
    assert checks
    assert {check[name]["status"] for check in checks} == {"unhealthy"}
    assert {check[other]["status"] for check in checks} <= {"healthy", "degraded"}
    assert {reply.status for _, reply in liveness.replies} == {200}
    slowest = sorted(reply.seconds for _, reply in liveness.replies)
    assert slowest[len(slowest) * 99 // 100] < 0.05, "liveness must not wait for a dependency"
    assert slowest[-1] < 0.3, "a probe that waited for the check would take 0.8 s"


@pytest.mark.engine
@pytest.mark.parametrize("fault", ["freeze", "stop"])
def test_a_lost_database_is_seen_within_two_seconds_and_its_return_without_a_restart(web, database, fault):
    assert_seen_and_survived(web, database, "database", "redis", fault)


@pytest.mark.parametrize("fault", ["freeze", "stop"])
def test_a_lost_redis_is_seen_within_two_seconds_and_its_return_without_a_restart(web, redis, fault):
    assert_seen_and_survived(web, redis, "redis", "database", fault)


def test_a_storm_of_readiness_probes_on_a_frozen_database_leaves_liveness_alone(web, database):
    done = threading.Event()

    def storm():
        while not done.is_set():
            web.get("/ready")

    threads = [threading.Thread(target=storm) for _ in range(24)]
    database.freeze()
    try:
        for thread in threads:
            thread.start()
        until(lambda: failing(web, "database"))
        slow = [web.get("/healthz").seconds for _ in range(100)]
    finally:
        done.set()
        for thread in threads:
            thread.join()
        database.thaw()

    assert sorted(slow)[90] < 0.2  # 24 callers on two cores; with their threads held it would be 0.8


def test_pages_that_wait_for_a_frozen_database_leave_liveness_alone(web, database):
    cookie = f"pulsewatch_{web.base.rpartition(':')[2]}_session={'x' * 32}"
    statuses: list[int] = []

    def page() -> None:
        statuses.append(web.get("/admin/", timeout=60, Cookie=cookie).status)

    pages = [threading.Thread(target=page) for _ in range(60)]
    with lost(database, "freeze"):
        for thread in pages:
            thread.start()
        until(lambda: 503 in statuses)  # beyond what the workers hold, a page is refused at once
        seconds = sorted(web.get("/healthz").seconds for _ in range(40))
    for thread in pages:
        thread.join()

    assert seconds[36] < 0.05
    assert seconds[-1] < 1  # a page holds its thread for ten
    assert set(statuses) <= {200, 302, 500, 503}


def test_a_head_request_gets_the_headers_alone(web):
    request = urllib.request.Request(web.base + "/healthz", method="HEAD")
    with urllib.request.urlopen(request) as reply:
        assert (reply.status, reply.read()) == (200, b"")
    assert "no-body response" not in web.log.read_text()


def test_a_thousand_probes_leak_neither_threads_nor_connections(web, database):
    def footprint() -> list[tuple[int, int]]:
        return [
            (len(list(Path(f"/proc/{pid}/task").iterdir())), len(list(Path(f"/proc/{pid}/fd").iterdir())))
            for pid in web.worker_pids()
        ]

    def probe(count: int) -> None:
        for number in range(count):
            web.get(("/healthz", "/ready", "/health", "/metrics")[number % 4])

    probe(100)
    before = footprint()
    probe(1000)
    database.kill()
    probe(40)
    database.restart()
    until(lambda: web.get("/ready").status == 200)
    probe(100)

    for (threads, files), (threads_after, files_after) in zip(before, footprint(), strict=True):
        assert threads_after <= threads + 2  # gunicorn's own pool grows to eight threads by demand
        assert files_after <= files + 4


@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize("path", ["/healthz", "/ready", "/health", "/metrics"])
def test_probes_answer_any_host_and_are_never_redirected_while_all_else_enforces_both(production, path, slash):
    reply = production.get(path + slash, Host="10.42.0.17:8000")

    assert reply.status in (200, 503)  # 503: this server has no database, and says so without a redirect
    assert "Location" not in reply.headers


@pytest.fixture(scope="module")
def production():
    """A production server whose database and Redis do not exist."""
    with served(
        ENVIRONMENT="production",
        DATABASE_URL="mysql://nobody:a-secret-password@127.0.0.1:9/none",
        REDIS_URL="redis://:another-secret@127.0.0.1:9/0",
        ALLOWED_HOSTS="console.example.com",
        METRICS_TOKEN="",
    ) as server:
        yield server


def test_all_else_refuses_a_foreign_host_and_redirects_to_https(production):
    assert production.get("/admin/", Host="evil.example.org", X_Forwarded_Proto="https").status == 400
    reply = production.get("/admin/", Host="console.example.com")
    assert (reply.status, reply.headers["Location"]) == (301, "https://console.example.com/admin/")


def test_liveness_starts_and_answers_without_database_and_redis(production):
    reply = production.get("/healthz")

    assert reply.status == 200
    assert reply.json()["status"] == "healthy"
    assert set(reply.json()) == {"status", "timestamp", "version"}


def test_callers_see_a_fixed_message_and_no_host_user_or_driver_text(production):
    reply = production.get("/ready")

    assert reply.status == 503
    assert set(reply.json()["checks"]) == {"database", "redis", "migrations"}
    for check in reply.json()["checks"].values():
        assert set(check) == {"status", "latency_ms", "message"}
    for secret in (b"127.0.0.1", b"nobody", b"2002", b"2003", b"a-secret", b"another-secret", b"Traceback", b"Error"):
        assert secret not in reply.body
    log = production.log.read_text()
    assert "a-secret-password" not in log
    assert "another-secret" not in log


def test_only_a_holder_of_the_token_sees_error_texts_and_metrics(mariadb, redis_server):
    token = "correct-horse-battery-staple"
    with served(DATABASE_URL=mariadb.url, REDIS_URL="redis://127.0.0.1:9/0", METRICS_TOKEN=token) as web:
        assert "error" not in web.get("/ready").json()["checks"]["redis"]
        assert "error" not in web.get("/ready", Authorization="Bearer wrong").json()["checks"]["redis"]
        assert "9" in web.get("/ready", Authorization=f"Bearer {token}").json()["checks"]["redis"]["error"]
        assert web.get("/metrics").status == 401
        assert web.get("/metrics", Authorization="Bearer \xff").status == 401
        assert web.get("/metrics", Authorization=f"Bearer {token}").status == 200


@pytest.mark.engine
def test_unapplied_migrations_make_the_instance_unready(private_database, redis_server):
    with served(DATABASE_URL=private_database.url, REDIS_URL=redis_server.url) as web:
        check = web.get("/ready").json()["checks"]["migrations"]

    assert check["status"] == "unhealthy"
    assert "manage.py prepare" in check["message"]


def test_metrics_can_be_switched_off():
    with served(PROMETHEUS_METRICS_ENABLED="false") as web:
        assert web.get("/metrics").status == 404


def test_two_workers_give_one_true_metrics_page_also_after_one_was_killed(web):
    def page() -> str:
        return web.get("/metrics").body.decode()

    def value(name: str, text: str) -> float:
        return sum(float(found) for found in re.findall(rf"^{re.escape(name)}(?:{{[^}}]*}})? (\S+)$", text, re.M))

    total = "django_http_requests_before_middlewares_total"
    before = value(total, page())
    for _ in range(60):
        assert web.get("/admin/login/").status == 200
    assert value(total, page()) == before + 60

    cpu = value("process_cpu_seconds_total", page())
    victim = web.worker_pids()[0]
    os.kill(victim, signal.SIGKILL)
    until(lambda: victim not in web.worker_pids() and len(web.worker_pids()) == 2)
    for _ in range(40):
        assert web.get("/admin/login/").status == 200

    text = page()
    assert value(total, text) == before + 100
    assert value("process_cpu_seconds_total", text) >= cpu
    assert text.count("pulsewatch_app_info{") == 1
    for name in (
        "pulsewatch_app_start_time_seconds",
        'pulsewatch_health_check_status{check_name="database"}',
        'pulsewatch_health_check_status{check_name="redis"}',
        "process_resident_memory_bytes",
        "process_start_time_seconds",
    ):
        assert text.count(f"\n{name} ") == 1, name
    assert 'pulsewatch_health_check_duration_seconds_count{check_name="database"}' in text
    assert value("process_resident_memory_bytes", text) > 50e6
    for name in ("pulsewatch_app_start_time_seconds", "process_start_time_seconds"):
        assert time.time() - 600 < value(name, text) <= time.time()


def test_a_page_without_a_database_says_so_without_a_traceback(web, database):
    cookie = f"pulsewatch_{web.base.rpartition(':')[2]}_session={'x' * 32}"
    with lost(database, "stop"):
        reply = web.get("/admin/", Cookie=cookie, timeout=30)

    assert reply.status == 503
    assert b"The database does not answer" in reply.body
    assert b"Traceback" not in reply.body
    assert reply.headers["Retry-After"]
