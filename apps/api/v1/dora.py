"""DORA's four figures."""

from typing import Any

from django.utils import timezone
from ninja import Query
from pydantic import Field

from apps.api.choices import Scope
from apps.api.endpoints import ApiRequest, Endpoints
from apps.api.schemas import EnvironmentName, Given, Shown, Slug
from apps.deployments.figures import deployed, measured

router = Endpoints(tags=["Deployments"])


class DoraAsked(Given):
    service: Slug | None = None
    environment: EnvironmentName | None = None
    days: int = Field(30, ge=1, le=366, strict=False, description="Usually 30 or 90")


class DoraFigures(Shown):
    """One workload. A figure there is nothing to measure on is null."""

    service: str
    environment: str
    days: int
    deployments: int
    failed: int
    deployments_per_day: float
    lead_time_seconds: float | None
    change_failure_rate: float | None
    time_to_restore_seconds: float | None


class DoraShown(Shown):
    items: list[DoraFigures]


@router.read("/dora", scope=Scope.DEPLOYMENTS_READ, answer=DoraShown)
def dora_figures(request: ApiRequest, given: Query[DoraAsked]) -> Any:
    """Deployment frequency, lead time, change failure rate and time to restore of each workload that was deployed.

    The change failure rate is failed deployments by deployments, not incidents: 4 of 23 are 17.4 %.
    """
    rows = deployed()
    wanted = {"service__slug": given.service, "environment": given.environment}
    rows = rows.filter(**{name: value for name, value in wanted.items() if value is not None})
    return {
        "items": [
            {
                "service": workload.service.slug,
                "environment": workload.environment,
                "days": found.days,
                "deployments": found.deployments,
                "failed": found.failed,
                "deployments_per_day": found.per_day,
                "lead_time_seconds": found.lead_time_seconds,
                "change_failure_rate": found.change_failure_rate,
                "time_to_restore_seconds": found.time_to_restore_seconds,
            }
            for workload, found in measured(rows, days=given.days, now=timezone.now())
        ]
    }
