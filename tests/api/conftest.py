"""A client that holds a token."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection
from django.test import Client

from apps.api.choices import Scope
from apps.api.services import create_token
from apps.core.audit import Actor
from apps.inventory.models import DEFAULT_SERVICE, Service


class ApiClient:
    """Sends JSON with a bearer token, as a program would."""

    def __init__(self, token: str) -> None:
        self.token = token
        self.client = Client(raise_request_exception=False)

    def send(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        """One request below /api/v1; a body that is neither bytes nor None is sent as JSON."""
        content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        given = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        given |= {name.replace("_", "-"): value for name, value in headers.items()}
        kind = given.pop("Content-Type", "application/json")
        return self.client.generic(method, f"/api/v1{path}", content, content_type=kind, headers=given)

    def get(self, path: str, **headers: str) -> Any:
        return self.send("GET", path, **headers)

    def post(self, path: str, body: Any, **headers: str) -> Any:
        return self.send("POST", path, body, **headers)


@pytest.fixture
def holder(db: None) -> Callable[..., ApiClient]:
    """Makes a client whose token has the scopes given, or all."""
    # What a migration made is gone after a test that commits.
    Service.objects.get_or_create(slug=DEFAULT_SERVICE, defaults={"name": "Application"})
    made = 0

    def make(*scopes: str) -> ApiClient:
        nonlocal made
        made += 1
        _, text = create_token(name=f"test-{made}", scopes=scopes or Scope.values, actor=Actor.automation("test"))
        return ApiClient(text)

    return make


@pytest.fixture
def api(holder: Callable[..., ApiClient]) -> ApiClient:
    """A client that may do everything."""
    return holder()


def rows_read() -> int:
    """Rows this connection has read so far, by any way."""
    with connection.cursor() as cursor:
        cursor.execute("SHOW SESSION STATUS LIKE 'Handler_read%%'")
        return sum(int(value) for name, value in cursor.fetchall() if name != "Handler_read_rnd_deleted")
