"""Fetching from GitHub what its webhooks did not bring."""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from apps.api.models import WebhookDelivery
from apps.core.audit import Actor
from apps.deployments.models import Deployment
from apps.inventory import services as inventory
from tests.deployments.sources.payloads import DEPLOYMENT, STATUS
from tests.factories import ServiceFactory, WorkloadFactory
from tests.receiver import Receiver, Reply, receiver

TOKEN = "github_token_of_the_test_0001"

pytestmark = pytest.mark.django_db


@pytest.fixture(scope="module")
def _server() -> Iterator[Receiver]:
    with receiver() as server:
        yield server


@pytest.fixture
def github(_server: Receiver) -> Receiver:
    """GitHub, with workload shop/production on it."""
    _server.starts_over(Reply(200, b"[]"))
    workload = WorkloadFactory(
        service=ServiceFactory(slug="shop", repository_url=f"{_server.url}/acme/shop"), environment="production"
    )
    workload.platform = "github"
    workload.platform_settings = {
        "base_url": f"{_server.url}/api/v3", "repository": "acme/shop", "workflow": "deploy.yml",
    }  # fmt: skip
    inventory.save(workload, actor=Actor.automation("test"), platform_secret=TOKEN)
    return _server


def listed(*items: dict) -> Reply:
    return Reply(200, json.dumps(items).encode())


def deployment(number: int, *, days_old: float = 1) -> dict:
    created = datetime.now(UTC) - timedelta(days=days_old)
    return {**DEPLOYMENT["deployment"], "id": number, "created_at": created.isoformat()}


def state(number: int, word: str) -> dict:
    return {**STATUS["deployment_status"], "id": number, "state": word}


def reconcile() -> str:
    out = StringIO()
    call_command("webhooks", "reconcile", stdout=out, stderr=out)
    return out.getvalue()


def test_what_no_webhook_told_of_is_recorded(github: Receiver):
    plan = [
        listed(deployment(3), deployment(2), deployment(1, days_old=9)),
        listed(state(31, "inactive"), state(30, "success"), state(29, "in_progress")),
        listed(),
    ]
    github.starts_over(*plan, listed())

    assert "2 deployments seen, 2 of them news" in reconcile()

    assert dict(Deployment.objects.values_list("external_id", "status")) == {
        f"{github.url.removeprefix('http://').partition(':')[0]}/deployments/3": "completed",
        f"{github.url.removeprefix('http://').partition(':')[0]}/deployments/2": "queued",
    }
    first = github.requests[0]
    assert (first.method, first.path) == ("GET", "/api/v3/repos/acme/shop/deployments?per_page=100&page=1")
    assert first.headers["authorization"] == f"Bearer {TOKEN}"
    assert github.requests[1].path == "/api/v3/repos/acme/shop/deployments/3/statuses?per_page=100"
    assert len(github.requests) == 3  # the one of nine days ago is not asked for

    github.starts_over(*plan, listed())
    assert "2 deployments seen, 0 of them news" in reconcile()
    assert WebhookDelivery.objects.count() == Deployment.objects.count() == 2


def test_the_older_ones_are_recorded_first_as_webhooks_would_have_told(github: Receiver):
    github.starts_over(listed(deployment(3), deployment(2)), listed(state(30, "success")), Reply(404), listed())

    with pytest.raises(CommandError):
        reconcile()
    assert [row.external_id[-1] for row in Deployment.objects.all()] == ["3"]  # found before the trouble began

    Deployment.objects.all().delete()
    WebhookDelivery.objects.all().delete()
    github.starts_over(
        listed(deployment(3), deployment(2)), listed(state(30, "success")), listed(state(29, "success")), listed()
    )
    reconcile()
    told = WebhookDelivery.objects.order_by("pk").values_list("delivery_id", flat=True)
    assert [key.split(":")[-2] for key in told] == ["2", "3"]


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (Reply(404, b'{"message": "Not Found"}'), "HTTP 404, Not Found.*the permission Deployments: read"),
        (Reply(200, b"<html>"), "HTTP 200"),
        (Reply(403, b"", {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "9999999999"}), "for now"),
    ],
)
def test_a_repository_that_cannot_be_asked_is_named_with_its_reason(github: Receiver, reply: Reply, why: str):
    github.starts_over(reply)
    out = StringIO()

    with pytest.raises(CommandError, match="Not every repository"):
        call_command("webhooks", "reconcile", stdout=out, stderr=out)

    assert "acme/shop: 127.0.0.1" in out.getvalue()
    assert re.search(why, out.getvalue())
    assert TOKEN not in out.getvalue()


def test_without_a_workload_on_github_nobody_is_asked():
    assert reconcile() == "0 deployments seen, 0 of them news to Pulsewatch.\n"
