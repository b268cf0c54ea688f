"""Fetches what webhooks failed to bring. GitHub sends a delivery once: what it sent while nobody listened is lost."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from apps.api import inbox
from apps.api.models import WebhookDelivery
from apps.deployments.sources import GITHUB
from apps.deployments.sources.github_pull import recent
from apps.inventory.choices import Platform
from apps.inventory.models import Workload
from apps.inventory.platforms.base import PlatformError
from apps.inventory.platforms.github import GitHub
from apps.inventory.runner import platform_of


@dataclass(frozen=True, slots=True)
class Pulled:
    """One deployment that was found, or why a repository could not be asked."""

    repository: str
    delivery: WebhookDelivery | None = None
    new: bool = False
    error: str = ""


def reconcile(*, since: datetime, now: datetime) -> Iterator[Pulled]:
    """Ask for the deployments of every repository that a workload on platform github has a token for.

    What is known already changes nothing. A repository that cannot be asked does not keep the others from it.
    """
    asked = set()
    for workload in Workload.objects.select_related("service").filter(platform=Platform.GITHUB).order_by("pk"):
        repository = str(workload.platform_settings.get("repository"))
        try:
            github = platform_of(workload)
            assert isinstance(github, GitHub)
            if (github.base_url, github.repository.lower()) in asked:
                continue
            asked.add((github.base_url, github.repository.lower()))
            for key, event, payload in recent(github, since=since):
                row, new = inbox.receive(source=GITHUB, delivery_id=key, event=event, payload=payload, now=now)
                yield Pulled(repository, row, new)
        except PlatformError as error:
            yield Pulled(repository, error=str(error))
