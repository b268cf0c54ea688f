"""Fetches what webhooks failed to bring. GitHub sends a delivery once: what it sent while nobody listened is lost."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from apps.api import inbox
from apps.api.models import WebhookDelivery
from apps.deployments.sources import GITHUB
from apps.deployments.sources.github_pull import Delivery, recent
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

    What is known already changes nothing. A repository that cannot be asked does not keep the others from it. GitHub
    tells of the newest first; they are recorded oldest first, in the order in which webhooks would have told of them.
    """
    asked = set()
    for workload in Workload.objects.select_related("service").filter(platform=Platform.GITHUB).order_by("pk"):
        repository = str(workload.platform_settings.get("repository"))
        found: list[Delivery] = []
        error = ""
        try:
            github = platform_of(workload)
            assert isinstance(github, GitHub)
            if (github.base_url, github.repository.lower()) in asked:
                continue
            asked.add((github.base_url, github.repository.lower()))
            found.extend(recent(github, since=since))  # what came before trouble is kept
        except PlatformError as trouble:
            error = str(trouble)
        for key, event, payload in reversed(found):
            row, new = inbox.receive(source=GITHUB, delivery_id=key, event=event, payload=payload, now=now)
            yield Pulled(repository, row, new)
        if error:
            yield Pulled(repository, error=error)
