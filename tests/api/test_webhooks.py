"""Webhooks over HTTP: signature first, bounded, once."""

import json
import threading
import tracemalloc
from typing import Any

import pytest
from django.db import OperationalError, connection
from django.test import Client

from apps.api import inbox, reports
from apps.api.models import WebhookDelivery
from apps.deployments.models import Deployment
from apps.deployments.sources.signatures import Check
from tests.deployments.sources.payloads import PING, STATUS, ZEABUR, changed
from tests.factories import ServiceFactory, WorkloadFactory

SECRET = "a-secret-of-the-test-7c41f0"
GITHUB, ZEABUR_PATH = "/api/v1/webhooks/github", "/api/v1/webhooks/zeabur"

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def secrets(settings):
    settings.WEBHOOK_SECRETS = {"github": SECRET, "zeabur": SECRET}


@pytest.fixture
def shop():
    """The workload the payloads speak of."""
    service = ServiceFactory(slug="shop", repository_url="https://github.com/Acme/Shop.git")
    return WorkloadFactory(service=service, environment="production")


def sign(body: bytes, secret: str = SECRET) -> str:
    check = Check(secret)
    check.update(body)
    return check.signature()


def send(payload: Any, *, path: str = GITHUB, event: str = "deployment_status", delivery: str = "d-1", **headers: str):
    """Post a delivery as GitHub does; `payload` may be bytes already."""
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    given = {
        "X-Hub-Signature-256": sign(body), "X-GitHub-Event": event, "X-GitHub-Delivery": delivery,
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }  # fmt: skip
    return Client().post(path, body, content_type=given.pop("Content-Type", "application/json"), headers=given)


def refused(response, status: int) -> str:
    """The detail of a problem; nothing was stored."""
    assert response.status_code == status
    assert response["Content-Type"] == "application/problem+json"
    assert not WebhookDelivery.objects.exists()
    assert not Deployment.objects.exists()
    return response.json()["detail"]


def test_a_genuine_delivery_is_applied(shop):
    response = send(STATUS)

    assert response.status_code == 202
    said = response.json()
    assert (said["outcome"], said["duplicate"], said["delivery"]) == ("applied", False, "d-1")
    row = Deployment.objects.get(pk=said["deployment"])
    assert (row.workload, row.observed, row.status, row.version) == (shop, True, "completed", "v1.4.3")


@pytest.mark.parametrize(
    "signature",
    ["", "sha256=", "sha256=" + "0" * 64, "sha1=" + "0" * 40, "0" * 64, sign(b"{}").upper(), sign(b"{}", "another")],
)
def test_without_the_right_signature_nothing_is_read_or_stored(shop, signature: str):
    detail = refused(send(b"{}", X_Hub_Signature_256=signature), 401)

    assert "X-Hub-Signature-256" in detail
    assert SECRET not in detail


@pytest.mark.parametrize("place", [0, 1, 500, -1])
def test_one_altered_byte_is_enough_to_be_refused(shop, place: int):
    body = json.dumps(STATUS).encode()
    altered = bytearray(body)
    altered[place] ^= 1

    refused(send(bytes(altered), X_Hub_Signature_256=sign(body)), 401)


def test_a_get_is_told_what_is_taken():
    response = Client().get(GITHUB)

    assert response.status_code == 405
    assert response["Allow"] == "POST"


def test_an_unknown_source_is_not_found():
    assert send(STATUS, path="/api/v1/webhooks/gitlab").status_code == 404


@pytest.mark.parametrize("source", ["github", "zeabur"])
def test_a_source_without_a_secret_is_not_listened_to(settings, source: str):
    settings.WEBHOOK_SECRETS = {"github": "", "zeabur": ""}

    detail = refused(send(STATUS, path=f"/api/v1/webhooks/{source}", X_Hub_Signature_256=sign(b"", "")), 404)

    assert f"{source.upper()}_WEBHOOK_SECRET" in detail


def test_a_body_beyond_25_mib_is_refused_by_its_length_alone():
    refused(send(b"{}", Content_Length="1000000000000"), 413)


@pytest.mark.parametrize("values", [b"[],", b'{"a":[{}]},', b"0.1,"])
def test_a_signed_body_of_millions_of_values_is_refused_before_it_is_read_into_memory(values):
    tracemalloc.start()
    try:
        reply = send(b'{"a":[' + values * (24_000_000 // len(values)) + b"0]}")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert "200,000 values" in refused(reply, 413)
    assert peak < 110 * 2**20  # of which the test itself has the body three times over


def test_a_payload_of_24_mb_is_taken(shop):
    payload = {**STATUS, "padding": "x" * 24_000_000}

    assert send(payload).json()["outcome"] == "applied"
    assert len(json.dumps(WebhookDelivery.objects.get().content)) < 3000


@pytest.mark.parametrize("body", [b"[]", b"null", b"{", b"\xff", b"[" * 100_000, b'"x"'])
def test_a_signed_body_that_is_no_object_is_refused(body: bytes):
    assert "signed, but" in refused(send(body), 400)


def test_a_form_is_told_to_come_as_json():
    assert "application/json" in refused(send(STATUS, Content_Type="application/x-www-form-urlencoded"), 415)


@pytest.mark.parametrize("headers", [{"delivery": ""}, {"delivery": "a b"}, {"event": ""}, {"event": "<script>"}])
def test_a_delivery_names_itself(headers: dict[str, str]):
    refused(send(STATUS, **headers), 400)


def test_ping_is_answered_kindly():
    response = send(PING, event="ping")

    assert response.status_code == 202
    assert response.json()["detail"] == "GitHub asks whether anybody listens; the webhook is set up."


def test_markup_in_a_payload_is_not_reflected(shop):
    odd = changed(STATUS, deployment_status__environment="<img src=x onerror=alert(1)>")

    response = send(odd)

    assert response.json()["outcome"] == "ignored"
    assert b"<img" not in response.content


def test_the_same_delivery_again_changes_nothing(shop):
    first = send(STATUS).json()
    again = send(STATUS)

    assert again.status_code == 202
    assert again.json() == {**first, "duplicate": True}
    assert Deployment.objects.count() == WebhookDelivery.objects.count() == 1


def test_deliveries_whose_ids_differ_by_case_are_two(shop):
    assert [send(PING, event="ping", delivery=name).json()["duplicate"] for name in ("a-1", "A-1", "a-1")] == [
        False, False, False,
    ]  # fmt: skip
    assert set(WebhookDelivery.objects.values_list("delivery_id", flat=True)) == {"a-1", "A-1"}


def test_zeabur_without_an_id_is_known_by_what_it_says(shop):
    payload = {**ZEABUR, "environment": "production"}
    first = send(payload, path=ZEABUR_PATH).json()
    again = send(dict(reversed(payload.items())), path=ZEABUR_PATH).json()

    assert (first["outcome"], first["duplicate"], again["duplicate"]) == ("applied", False, True)
    assert send({**payload, "status": "CRASHED"}, path=ZEABUR_PATH).json()["duplicate"] is False


def deliver_at_once(deliveries: list[tuple[str, Any]]) -> list[Any]:
    """The answers to deliveries that all arrive at the same moment."""
    start, answers = threading.Barrier(len(deliveries)), []

    def deliver(delivery: str, payload: Any) -> None:
        try:
            start.wait()
            answers.append(send(payload, delivery=delivery))
        finally:
            connection.close()

    threads = [threading.Thread(target=deliver, args=each) for each in deliveries]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


@pytest.mark.django_db(transaction=True)
def test_two_identical_deliveries_at_once_are_applied_once(shop):
    answers = deliver_at_once([("d-1", STATUS)] * 4)

    assert [answer.status_code for answer in answers] == [202] * 4
    assert WebhookDelivery.objects.get().outcome == "applied"
    assert Deployment.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_deliveries_about_one_workload_that_arrive_at_once_are_all_applied(shop):
    states = ("pending", "in_progress", "success")
    about_one = [(f"one-{n}", changed(STATUS, deployment_status__state=states[n % 3])) for n in range(6)]
    about_others = [(f"other-{n}", changed(STATUS, deployment__id=n + 1)) for n in range(6)]

    answers = deliver_at_once(about_one + about_others)

    assert [(answer.status_code, answer.json()["outcome"]) for answer in answers] == [(202, "applied")] * 12
    assert Deployment.objects.count() == 7


@pytest.mark.django_db(transaction=True)
def test_a_delivery_that_is_stored_while_the_database_is_busy_is_pending(shop, monkeypatch):
    woken = []
    monkeypatch.setattr(inbox, "wake", lambda task, key, **_: woken.append((task, key)))

    def busy(*_: Any, **__: Any) -> None:
        raise OperationalError(1213, "Deadlock found when trying to get lock; try restarting transaction")

    with monkeypatch.context() as moment:
        moment.setattr(reports, "act", busy)
        answer = send(STATUS)

    assert (answer.status_code, answer.json()["outcome"]) == (202, "pending")
    row = WebhookDelivery.objects.get()
    assert woken == [("api.apply_delivery", str(row.pk))]
    assert inbox.apply(row.pk).outcome == "applied"
