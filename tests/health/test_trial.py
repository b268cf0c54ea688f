"""One check at once: against a real server, and nothing of it stored."""

import socket
import threading
import time
from contextlib import ExitStack

import pytest
from django.test import override_settings
from django.urls import reverse

from apps.console.roles import ensure_groups
from apps.core import vault
from apps.core.audit import Actor
from apps.core.errors import Conflict, Invalid, Transient
from apps.core.models import AuditEntry
from apps.health import trial
from apps.health.models import DatabaseCheck, DatabaseState, EndpointCheck, EndpointState
from apps.health.trial import ask_all, try_database, try_endpoint
from apps.inventory import targets
from tests.factories import DatabaseFactory, EndpointFactory, UserFactory, WorkloadFactory
from tests.http_app import Answer, http_app

pytestmark = pytest.mark.django_db

ACTOR = Actor.automation("test")


@pytest.fixture
def shop():
    with http_app(ready=Answer(503, b'{"status": "down"}')) as app, override_settings(PROBE_ALLOW_LOOPBACK=True):
        app.workload = WorkloadFactory(base_url=app.url)
        yield app


def stored() -> list[bool]:
    return [model.objects.exists() for model in (EndpointCheck, EndpointState, DatabaseCheck, DatabaseState)]


def test_the_answer_of_an_endpoint_is_judged_and_not_stored(shop):
    row = EndpointFactory(workload=shop.workload, endpoint_path="/ready")

    found = try_endpoint(endpoint=row, actor=ACTOR)

    assert (found.status, found.http_status) == ("failed", 503)
    assert found.reason == "answered 503 instead of 200"
    assert found.response_ms > 0
    row.expected_status, row.body_json = "500-599", '$.status == "down"'
    assert try_endpoint(endpoint=targets.save_endpoint(endpoint=row, actor=ACTOR), actor=ACTOR).status == "healthy"
    assert not any(stored())
    assert AuditEntry.objects.filter(action="endpoint.try", subject=f"endpoint:{row.pk}").count() == 2


@override_settings(PROBE_ALLOW_LOOPBACK=False, SELF_URL="http://elsewhere.example")
def test_what_may_not_be_reached_by_the_prober_may_not_be_reached_at_once_either():
    found = try_endpoint(endpoint=EndpointFactory(), actor=ACTOR)

    assert found.status == "failed"
    assert "own machine" in found.reason


def test_what_cannot_be_asked_is_refused_with_the_reason():
    with pytest.raises(Conflict, match="no base URL"):
        try_endpoint(endpoint=EndpointFactory(workload=WorkloadFactory(base_url="")), actor=ACTOR)
    with pytest.raises(Invalid, match="another BACKUP_KEYSET"):
        try_database(database=DatabaseFactory(), actor=ACTOR)
    assert not AuditEntry.objects.exists()


def test_a_database_is_looked_at_once(tmp_path):
    file = tmp_path / "shop.db"
    database = DatabaseFactory(
        name="shop", engine="sqlite", url_sealed=vault.seal(f"sqlite:///{file}", purpose="database:shop:url")
    )

    assert try_database(database=database, actor=ACTOR).status == "failed"
    file.touch()
    found = try_database(database=database, actor=ACTOR)

    assert (found.status, found.connection_status, found.query_status) == ("healthy", "connected", "success")
    assert not any(stored())


def test_the_button_shows_on_the_page_what_the_answer_was(shop, client):
    ensure_groups()
    backend = "django.contrib.auth.backends.ModelBackend"
    row = EndpointFactory(workload=shop.workload, endpoint_path="/ready")
    page = reverse("admin:inventory_endpoint_try", args=[row.pk])
    client.force_login(UserFactory(username="vera", group="viewer"), backend=backend)
    assert client.post(page).status_code == 403

    client.force_login(UserFactory(username="oscar", group="operator"), backend=backend)
    assert client.get(page).status_code == 405  # a link, an image on another page, must not ask the world
    text = client.post(page, follow=True).content.decode()

    assert "Checked now, and not stored: failed, answered 503 instead of 200, HTTP 503" in text
    assert not any(stored())


@pytest.fixture
def lost_name_servers(monkeypatch):
    """No name server answers, which the system's look-up waits for much longer than anybody should."""
    over, real = threading.Event(), socket.getaddrinfo

    def getaddrinfo(host, *rest, **named):
        if str(host).endswith(".example"):
            over.wait(30)
            raise socket.gaierror(socket.EAI_AGAIN, "try again")
        return real(host, *rest, **named)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    yield over
    over.set()


@override_settings(SELF_URL="https://pulsewatch.example")
def test_name_servers_that_do_not_answer_hold_nobody_longer_than_the_time_out(lost_name_servers, monkeypatch):
    monkeypatch.setattr(trial, "OWN_PATIENCE", 0.1)
    row = EndpointFactory(workload=WorkloadFactory(base_url="https://shop.example"), timeout_seconds=0.3)
    database = DatabaseFactory(
        name="shop", timeout_seconds=0.3,
        url_sealed=vault.seal("mysql://u:p@db.example/shop", purpose="database:shop:url"),
    )  # fmt: skip
    started = time.monotonic()

    found = [try_endpoint(endpoint=row, actor=ACTOR), try_database(database=database, actor=ACTOR)]
    [asked] = ask_all([row], patience=0.3).values()

    assert time.monotonic() - started < 8
    assert {one.reason for one in [*found, asked]} == {"did not answer within 0.3 s"}


def test_not_more_checks_run_at_once_than_a_web_process_can_spare_threads_for(shop):
    row = EndpointFactory(workload=shop.workload, endpoint_path="/ready")
    with ExitStack() as others:
        for _ in range(trial.AT_ONCE):
            others.enter_context(trial._turn())
        with pytest.raises(Transient, match="try again in a few seconds"):
            try_endpoint(endpoint=row, actor=ACTOR)
    assert not AuditEntry.objects.filter(action="endpoint.try").exists()
    assert try_endpoint(endpoint=row, actor=ACTOR).http_status == 503  # a place is given back
