"""Asks GitHub for recent deployments, for those whose webhook never arrived: GitHub sends nothing twice by itself.

https://docs.github.com/en/rest/deployments
"""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from apps.deployments.sources.base import identifier, moment
from apps.deployments.sources.github import STATES
from apps.inventory.platforms.base import PlatformError, PlatformUnavailable
from apps.inventory.platforms.github import GitHub, rate_limited
from apps.inventory.platforms.transport import Answer, get, host, words

PAGE = 100  # deployments in one answer, GitHub's most
MAX_PAGES = 5  # of one repository: who deploys more often in a few days needs working webhooks

Delivery = tuple[str, str, Mapping[str, Any]]  # id, event, payload: what the webhook would have brought


def recent(github: GitHub, *, since: datetime) -> Iterator[Delivery]:
    """The present state of each deployment of the repository created since then, newest first.

    The id of a delivery names deployment and status, so that a second pull brings nothing new. Raises PlatformError.
    """
    repository = {"html_url": github.page}
    for deployment in _deployments(github, since):
        number = identifier(deployment.get("id"))
        if not number:
            continue
        payload = {"action": "created", "deployment": deployment, "repository": repository}
        path = f"deployments/{number}/statuses?per_page={PAGE}"
        # Newest first; `inactive` hides what was before it.
        status = next((item for item in _list(github, path) if item.get("state") in STATES), None)
        stem = f"pull:{host(github.page)}:{number}"[:100]
        if status is None:
            yield stem, "deployment", payload
        else:
            named = f"{stem}:{identifier(status.get('id'))}"[:128]
            yield named, "deployment_status", {**payload, "deployment_status": status}


def _deployments(github: GitHub, since: datetime) -> Iterator[Mapping[str, Any]]:
    for page in range(1, MAX_PAGES + 1):
        found = _list(github, f"deployments?per_page={PAGE}&page={page}")
        for deployment in found:
            created = moment(deployment.get("created_at"))
            if created is None or created < since:
                return
            yield deployment
        if len(found) < PAGE:
            return


def _list(github: GitHub, path: str) -> list[dict[str, Any]]:
    url = f"{github.base_url}/repos/{github.repository}/{path}"
    answer = get(url, github.headers, limits=github.limits, again=_later)
    found = answer.objects()
    if answer.ok and found is not None:
        return found
    raise _refusal(github, answer)


def _later(answer: Answer) -> bool:
    return rate_limited(answer) or answer.status >= 500


def _refusal(github: GitHub, answer: Answer) -> PlatformError:
    said = words(answer.json().get("message"), github.token).rstrip(".")
    status = f"HTTP {answer.status}{f', {said}' if said else ''}"
    if _later(answer):
        return PlatformUnavailable(f"{host(github.base_url)} lists no deployments for now ({status}): try again later.")
    return PlatformError(
        f"{host(github.base_url)} lists no deployments of {github.repository} ({status}): check the repository, and "
        "that the token has the permission Deployments: read."
    )
