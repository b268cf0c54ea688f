"""Instances: the running copies of a workload."""

from datetime import datetime
from typing import Any

from ninja import Path, Query
from ninja.responses import Status
from pydantic import Field

from apps.api.choices import Scope
from apps.api.endpoints import ApiRequest, Endpoints, actor
from apps.api.paging import page
from apps.api.refusals import NotFound
from apps.api.schemas import EnvironmentName, Filters, Given, Identifier, Page, Shown, Slug, words
from apps.core.choices import Environment
from apps.inventory import services
from apps.inventory.models import DEFAULT_SERVICE, Instance

router = Endpoints(tags=["Inventory"])


class InstanceGiven(Given):
    """An instance to watch. Without a URL it pushes its samples itself."""

    name: str = Field(max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:-]*$", description="Container, pod or host")
    service: Slug = DEFAULT_SERVICE
    environment: EnvironmentName
    url: str = Field("", max_length=300, description="Where Pulsewatch reads readiness and metrics")
    cpu_limit_cores: float | None = Field(None, ge=0.001, le=100_000)
    memory_limit_mb: int | None = Field(None, ge=1, le=2**31 - 1)


class InstanceShown(Shown):
    """One running copy of a workload. `id` is the identifier its samples carry."""

    id: str
    name: str
    service: str
    environment: words(Environment)
    url: str
    cpu_limit_cores: float | None
    memory_limit_mb: int | None
    active: bool
    registered_at: datetime


class InstanceFilters(Filters):
    service: Slug | None = None
    environment: EnvironmentName | None = None
    active: bool | None = None


@router.read("/instances", scope=Scope.INVENTORY_READ, answer=Page[InstanceShown])
def list_instances(request: ApiRequest, given: Query[InstanceFilters]) -> Any:
    """Instances by identifier."""
    columns = {
        "workload__service__slug": given.service,
        "workload__environment": given.environment,
        "active": given.active,
    }
    rows = Instance.objects.select_related("workload__service").filter(
        **{name: value for name, value in columns.items() if value is not None}
    )
    found = page(rows, given, noun="instances", order=(("id", str),))
    return found | {"items": [_shown(row) for row in found["items"]]}


@router.write("POST", "/instances", scope=Scope.INVENTORY_WRITE, answers={201: InstanceShown})
def register_instance(request: ApiRequest, body: InstanceGiven) -> Status[Any]:
    """Add an instance, or bring back a retired one of this name. 409 while an active one has it."""
    workload = services.ensure_workload(service=body.service, environment=body.environment, actor=actor(request))
    row = services.register_instance(
        name=body.name,
        workload=workload,
        actor=actor(request),
        url=body.url,
        cpu_limit_cores=body.cpu_limit_cores,
        memory_limit_mb=body.memory_limit_mb,
    )
    return Status(201, _shown(row))


# `path`: the identifier of an instance whose name is taken elsewhere holds a slash.
@router.write("DELETE", "/instances/{path:instance_id}", scope=Scope.INVENTORY_WRITE, answers={200: InstanceShown})
def retire_instance(request: ApiRequest, instance_id: Path[Identifier]) -> Any:
    """End the sampling of an instance that is gone. Its history stays; a second time changes nothing."""
    row = Instance.objects.select_related("workload__service").filter(pk=instance_id).first()
    if row is None:
        raise NotFound("instance")
    return _shown(services.retire_instance(instance=row, actor=actor(request)))


def _shown(row: Instance) -> dict[str, Any]:
    own = {name: getattr(row, name) for name in InstanceShown.model_fields if name not in ("service", "environment")}
    return own | {"service": row.workload.service.slug, "environment": row.workload.environment}
