"""Routes that lead to a real server on this machine."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest

from apps.alerts import runner
from apps.alerts.models import Route
from apps.alerts.services import Firing
from apps.core import vault
from pulsewatch.celery import app
from tests.receiver import Receiver, Reply, receiver

NOW = datetime(2026, 3, 2, 3, 0, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def down(number: int = 17, **changes) -> Firing:
    """An endpoint that is down."""
    facts = {
        "subject": f"endpoint:{number}",
        "title": f"GET https://shop.example/{number} is down",
        "detail": "Refused 3 times in a row. Look at the web server.",
        "severity": "warning",
        "environment": "production",
        "service": "shop",
    }
    return Firing(**{**facts, **changes})


@pytest.fixture(autouse=True)
def broker() -> None:
    """What wakes workers goes to the Redis of this run, where nobody listens."""
    app.set_default()


@pytest.fixture(scope="module")
def listening() -> Iterator[Receiver]:
    with receiver() as server:
        yield server


@pytest.fixture
def hook(listening: Receiver) -> Receiver:
    """A server that takes what it is sent; empty at the start of each test."""
    listening.starts_over(Reply())
    return listening


@pytest.fixture
def make_route(hook: Receiver, db) -> Callable[..., Route]:
    def make(name: str = "ops", url: str = "", **facts) -> Route:
        route = Route.objects.create(name=name, channel="JSON", **facts)
        address = url or f"json://127.0.0.1:{hook.port}/t0psecret/{name}"
        route.url_sealed = vault.seal(address, purpose=runner.url_purpose(route))
        route.save()
        return route

    return make


def received(hook: Receiver) -> list[dict]:
    return [json.loads(request.body) for request in hook.requests]
