"""The same key gets the same answer, and the work is done once, whatever dies or runs at the same time."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
import time_machine
from django.db import OperationalError, connection, transaction

from apps.api import idempotency, tasks
from apps.api.models import ApiToken, StoredAnswer
from apps.core.models import AuditEntry
from apps.deployments.models import Deployment
from apps.health.models import HealthCheck
from apps.inventory.models import Instance
from tests.factories import WorkloadFactory

BODY = {"name": "web-1", "environment": "production"}
KEY = "5f0c6f0a-1f0e-4d6b-9a37-7b7f0a6f2d11"


def send(client, body=BODY, key=KEY, path="/instances"):
    return client.post(path, body, Idempotency_Key=key)


@pytest.mark.engine
def test_a_retry_gets_the_answer_of_the_first_and_changes_nothing(api):
    first, again = send(api), send(api)

    assert (first.status_code, again.status_code) == (201, 201)
    assert first.content == again.content
    assert again["Idempotent-Replay"] == "true"
    assert "Idempotent-Replay" not in first
    assert AuditEntry.objects.of("instance:web-1").count() == 1


def test_keys_differ_by_case_token_and_nothing_is_kept_without_one(api, holder):
    send(api, key="a")
    assert send(api, {**BODY, "name": "web-2"}, key="A").status_code == 201
    assert send(holder(), {**BODY, "name": "web-3"}, key="a").status_code == 201
    api.post("/instances", {**BODY, "name": "web-4"})

    assert StoredAnswer.objects.count() == 3


@pytest.mark.parametrize(
    ("body", "path"), [({**BODY, "name": "web-2"}, "/instances"), (BODY, "/health-checks"), (b"", "/instances")]
)
def test_the_same_key_with_another_request_is_422(api, body, path):
    send(api)
    reply = send(api, body, path=path)

    assert reply.status_code == 422
    assert reply.json()["errors"][0]["field"] == "Idempotency-Key"


@pytest.mark.parametrize("key", ["", "a b", "a" * 201, "\u00e4"])
def test_a_malformed_key_is_422_and_nothing_is_done(api, key):
    assert send(api, key=key).status_code == 422
    assert not Instance.objects.exists()


@pytest.mark.engine
def test_a_refusal_is_not_kept_so_the_corrected_request_may_use_the_key(api):
    assert send(api, {**BODY, "name": "<b>"}).status_code == 422
    assert send(api, {**BODY, "service": "none"}).status_code == 422
    assert not StoredAnswer.objects.exists()
    assert send(api).status_code == 201
    assert send(api, key="other").status_code == 409
    assert StoredAnswer.objects.count() == 1


def test_after_24_hours_the_key_is_new_and_the_answer_is_deleted(api):
    send(api)
    with time_machine.travel(datetime.now(UTC) + timedelta(hours=25), tick=False):
        assert send(api).status_code == 409, "the instance is there"
        assert send(api, {**BODY, "name": "web-2"}).status_code == 201
        send(api, {**BODY, "name": "web-3"}, key="young")
    with time_machine.travel(datetime.now(UTC) + timedelta(hours=50), tick=False):
        send(api, {**BODY, "name": "web-4"}, key="younger")
        assert tasks.clean_up() == 2

    assert StoredAnswer.objects.count() == 1


def test_the_clean_up_is_bounded(api, monkeypatch):
    for number in range(5):
        send(api, {**BODY, "name": f"web-{number}"}, key=str(number))
    StoredAnswer.objects.update(created_at=datetime.now(UTC) - timedelta(days=2))
    monkeypatch.setattr(tasks, "BATCH", 2)
    monkeypatch.setattr(tasks, "BATCHES", 2)

    assert (tasks.clean_up(), tasks.clean_up(), tasks.clean_up()) == (4, 1, 0)


def test_when_the_answer_cannot_be_stored_nothing_was_done(api, monkeypatch):
    def dies(*_: object, **__: object) -> None:
        raise OperationalError(2013, "Lost connection to server during query")

    with monkeypatch.context() as patch:
        patch.setattr(idempotency.StoredAnswer.objects, "filter", dies)
        patch.setattr(idempotency, "_stored", lambda digest, wait: None)
        reply = send(api)
    assert (reply.status_code, reply["Retry-After"]) == (503, "5")
    assert not Instance.objects.exists()
    assert not StoredAnswer.objects.exists()
    assert send(api).status_code == 201


@pytest.mark.django_db(transaction=True)
@pytest.mark.engine
def test_of_eight_requests_at_once_with_one_key_one_does_the_work(api):
    barrier = threading.Barrier(8)

    def request(_):
        barrier.wait()
        try:
            return send(api)
        finally:
            connection.close()

    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(request, range(8)))

    assert {reply.status_code for reply in replies} <= {201, 409}
    assert sum("Idempotent-Replay" not in reply for reply in replies if reply.status_code == 201) == 1
    assert all(reply["Retry-After"] == "1" for reply in replies if reply.status_code == 409)
    assert AuditEntry.objects.of("instance:web-1").count() == 1
    assert send(api)["Idempotent-Replay"] == "true"


@pytest.mark.django_db(transaction=True)
def test_of_eight_replays_at_once_each_gets_the_answer(api):
    first = send(api)
    barrier = threading.Barrier(8)

    def request(_):
        barrier.wait()
        try:
            return [send(api) for _ in range(5)]
        finally:
            connection.close()

    with ThreadPoolExecutor(8) as pool:
        replies = [reply for five in pool.map(request, range(8)) for reply in five]

    assert {(reply.status_code, reply.content) for reply in replies} == {(201, first.content)}


@pytest.mark.django_db(transaction=True)
@pytest.mark.engine
@pytest.mark.parametrize("same", [True, False], ids=["one job twice", "two jobs"])
def test_of_two_ci_jobs_at_once_one_starts_a_deployment_and_the_other_is_told(api, same):
    workload = WorkloadFactory(base_url="http://127.0.0.1:9")
    body = {"service": workload.service.slug, "environment": "production", "commit_sha": "a" * 40}
    barrier = threading.Barrier(2)

    def start(number):
        barrier.wait()
        try:
            version = "v1.0.0" if same else f"v1.0.{number}"
            return send(api, {**body, "version": version}, KEY if same else f"job-{number}", "/deployments")
        finally:
            connection.close()

    with ThreadPoolExecutor(2) as pool:
        replies = list(pool.map(start, range(2)))

    row = Deployment.objects.get()
    created = [reply for reply in replies if reply.status_code == 201 and "Idempotent-Replay" not in reply]
    assert [reply.json()["id"] for reply in created] == [row.pk]
    (other,) = (reply for reply in replies if reply not in created)
    if same:
        # A replay of the answer, or told to ask again for it.
        assert (other.status_code, other.get("Retry-After")) in ((201, None), (409, "1"))
        again = send(api, {**body, "version": "v1.0.0"}, KEY, "/deployments")
        assert (again["Idempotent-Replay"], again.content) == ("true", created[0].content)
    else:
        assert (other.status_code, other.json()["held_by"]) == (409, row.pk)
    workload.refresh_from_db()
    assert workload.change_lock == row.pk


@pytest.mark.django_db(transaction=True)
@pytest.mark.engine
def test_while_the_first_is_under_way_the_second_is_told_to_come_back(api):
    sample = {"instance_id": "web-1", "environment": "production", "response_time_ms": 5}
    body = sample | {"timestamp": datetime.now(UTC).isoformat()}
    holding, release = threading.Event(), threading.Event()

    def hold():
        # The first request's transaction as it stands while its work goes on.
        digest = idempotency._digest(str(token), KEY)
        try:
            with transaction.atomic():
                StoredAnswer.objects.create(digest=digest, fingerprint="0" * 64, created_at=datetime.now(UTC))
                holding.set()
                release.wait(20)
                transaction.set_rollback(True)
        finally:
            connection.close()

    token = ApiToken.objects.get().pk
    thread = threading.Thread(target=hold)
    thread.start()
    try:
        assert holding.wait(20)
        reply = send(api, body, path="/health-checks")
        assert (reply.status_code, reply["Retry-After"]) == (409, "1")
    finally:
        release.set()
        thread.join()
    assert send(api, body, path="/health-checks").status_code == 201
    assert HealthCheck.objects.count() == 1
