"""Services and workloads: what there is to deploy and to watch."""

from datetime import datetime
from typing import Any

from ninja import Query

from apps.api.choices import Scope
from apps.api.endpoints import ApiRequest, Endpoints
from apps.api.paging import page
from apps.api.schemas import EnvironmentName, Filters, Page, Shown, Slug, words
from apps.core.choices import Environment
from apps.inventory.choices import MetricsPreset, Platform
from apps.inventory.models import Service, Workload

router = Endpoints(tags=["Inventory"])


class ServiceShown(Shown):
    """An application the team runs."""

    slug: str
    name: str
    repository_url: str
    runbook_url: str
    metrics_preset: words(MetricsPreset)
    created_at: datetime
    updated_at: datetime


class WorkloadShown(Shown):
    """A service in an environment."""

    service: str
    environment: words(Environment)
    platform: words(Platform)
    base_url: str
    domain: str
    readiness_path: str
    metrics_path: str
    current_deployment_id: str | None
    created_at: datetime
    updated_at: datetime

    @staticmethod
    def shown(row: Workload) -> dict[str, Any]:
        """A row's columns with its service by name. The settings of its platform may hold secrets and stay here."""
        return {name: getattr(row, name) for name in WorkloadShown.model_fields} | {"service": row.service.slug}


class WorkloadFilters(Filters):
    service: Slug | None = None
    environment: EnvironmentName | None = None


@router.read("/services", scope=Scope.INVENTORY_READ, answer=Page[ServiceShown])
def list_services(request: ApiRequest, given: Query[Filters]) -> Any:
    """Services by name."""
    return page(Service.objects.all(), given, noun="services", order=(("slug", str),))


@router.read("/workloads", scope=Scope.INVENTORY_READ, answer=Page[WorkloadShown])
def list_workloads(request: ApiRequest, given: Query[WorkloadFilters]) -> Any:
    """Workloads, in the order they were added."""
    columns = {"service__slug": given.service, "environment": given.environment}
    rows = Workload.objects.select_related("service").filter(
        **{name: value for name, value in columns.items() if value is not None}
    )
    found = page(rows, given, noun="workloads", order=(("id", int),))
    return found | {"items": [WorkloadShown.shown(row) for row in found["items"]]}


def place(service: str | None, environment: str | None) -> dict[str, Any]:
    """What a list is filtered by: the workload by its key, when both its halves are given, so that one index serves."""
    if service is None:
        return {"environment": environment}
    if environment is None:
        found = Service.objects.filter(slug=service).values_list("pk", flat=True).first()
        return {"service_id": found or 0}
    workload = Workload.objects.filter(service__slug=service, environment=environment)
    return {"workload_id": workload.values_list("pk", flat=True).first() or 0}
