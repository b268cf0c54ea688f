"""A watched workload, and deployments of it."""

from collections.abc import Iterator

import pytest

from apps.core.audit import Actor
from apps.core.keys import new_keyset
from apps.deployments import services
from apps.deployments.models import Deployment
from apps.inventory import services as inventory
from apps.inventory.models import Workload
from tests.factories import InstanceFactory, WorkloadFactory
from tests.fleet import READY
from tests.http_app import App, http_app
from tests.receiver import Receiver, receiver

CI = Actor.automation("ci")
COMMIT = "a1b2c3d4e5f60718293a4b5c6d7e8f9012345678"


@pytest.fixture(autouse=True)
def keyset(settings) -> None:
    settings.BACKUP_KEYSET = new_keyset()


@pytest.fixture
def workload() -> Workload:
    return WorkloadFactory(base_url="http://127.0.0.1:9", gate_samples=2, gate_window_seconds=60)


@pytest.fixture
def app() -> Iterator[App]:
    with http_app(ready=READY) as running:
        yield running


@pytest.fixture
def platform() -> Iterator[Receiver]:
    with receiver() as running:
        yield running


@pytest.fixture
def watched(app: App, platform: Receiver) -> Workload:
    """A workload whose instance runs, and whose platform is a webhook; it rolls back by itself."""
    row = WorkloadFactory(
        base_url=app.url,
        gate_samples=2,
        gate_window_seconds=60,
        auto_rollback=True,
        platform="webhook",
        platform_settings={"url": f"{platform.url}/deploy"},
    )
    row = inventory.save(row, actor=CI, platform_secret="a-long-secret-of-the-webhook")
    InstanceFactory(workload=row, name="web-1", url=app.url)
    return row


def started(workload: Workload, version: str = "v1.0.0", **options: object) -> Deployment:
    return services.start_deployment(
        **{
            "service": workload.service.slug,
            "environment": workload.environment,
            "version": version,
            "commit_sha": COMMIT,
            "triggered_by": "ana",
            "actor": CI,
            **options,
        }
    )
