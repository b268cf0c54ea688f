"""A platform to talk to, and a release to roll out."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest

from apps.inventory.platforms import platform_for
from apps.inventory.platforms.base import Platform, Release
from apps.inventory.platforms.transport import Limits
from tests.receiver import Receiver, receiver

SHA = "3f2c1b0a9d8e7f6a5b4c3d2e1f0a9b8c7d6e5f4a"
RELEASE = Release(
    service="shop",
    environment="production",
    version="v1.4.2",
    commit_sha=SHA,
    deployment_id="deploy_20261020_143052",
    reason="error rate 12 % after v1.4.3",
    kind="rollback",
)
SECRET = "a-secret-of-the-test-7c41f0"  # also the token
FAST = Limits(attempts=3, attempt_seconds=0.4, total_seconds=3.0, backoff_seconds=0.02)


@dataclass(frozen=True)
class Case:
    """A kind of platform that talks to somebody, and what makes its platform at an address."""

    kind: str
    settings: dict[str, Any]  # {url} stands for the address
    accepted: bytes  # a body that says yes
    path: str

    def at(self, url: str, *, limits: Limits = FAST, secret: str = SECRET) -> Platform:
        settings = {
            name: value.replace("{url}", url) if isinstance(value, str) else value
            for name, value in self.settings.items()
        }
        return replace(platform_for(self.kind, settings, secret), limits=limits)


WEBHOOK = Case("webhook", {"url": "{url}/deploy?team=shop"}, b"", "/deploy?team=shop")

GITHUB = Case(
    "github",
    {"base_url": "{url}/api/v3", "repository": "acme/shop", "workflow": "deploy.yml"},
    b"",
    "/api/v3/repos/acme/shop/actions/workflows/deploy.yml/dispatches",
)
ZEABUR = Case(
    "zeabur",
    {
        "base_url": "{url}/graphql",
        "service_id": "65a1b2c3d4e5f60718293a4b",
        "environment_id": "65a1b2c3d4e5f60718293a4c",
        "redeploy_on_rollback": True,
    },
    b'{"data": {"redeployService": true}}',
    "/graphql",
)


@pytest.fixture(scope="module")
def _server() -> Iterator[Receiver]:
    with receiver() as server:
        yield server


@pytest.fixture
def platform_server(_server: Receiver) -> Receiver:
    _server.starts_over()
    return _server
