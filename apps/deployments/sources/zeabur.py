"""A deployment of Zeabur, as its GraphQL API describes one.

Zeabur documents no webhook with a payload of its own. What is read here is the object `Deployment` of its API, sent by
a script or relay of the team's; docs/webhooks.md shows one.
"""

from collections.abc import Mapping
from typing import Any

from apps.deployments.sources.base import (
    CANCELLED,
    COMPLETED,
    FAILED,
    IN_PROGRESS,
    MAX_MESSAGE,
    MAX_NAME,
    MAX_VERSION,
    QUEUED,
    Event,
    Ignored,
    Report,
    commit,
    identifier,
    link,
    mapping,
    moment,
    repository_key,
    text,
    version_of,
)

STATUSES = {
    "PENDING": QUEUED,
    "QUEUED": QUEUED,
    "BUILDING": IN_PROGRESS,
    "DEPLOYING": IN_PROGRESS,
    "STARTING": IN_PROGRESS,
    "RUNNING": COMPLETED,
    "FAILED": FAILED,
    "CRASHED": FAILED,
    "CANCELED": CANCELLED,
    "CANCELLED": CANCELLED,
}
_PROVIDERS = {"GITHUB": "github.com", "GITLAB": "gitlab.com", "": "github.com"}


def read(payload: Mapping[str, Any]) -> Event:
    """What a delivery says: the deployment itself, or an object that holds it as `deployment`."""
    deployment = mapping(payload.get("deployment")) or payload
    number, sha = identifier(deployment.get("_id") or deployment.get("id")), commit(deployment.get("commitSHA"))
    if not number or not sha:
        return Ignored("The payload names no deployment with _id and commitSHA.")
    status = STATUSES.get(text(deployment.get("status"), 30).upper())
    if status is None:
        return Ignored("This status tells nothing about the outcome of a deployment.")
    owner, name = text(deployment.get("repoOwner"), 100), text(deployment.get("repoName"), 100)
    host = _PROVIDERS.get(text(deployment.get("gitProvider"), 20).upper(), "")
    place = identifier(deployment.get("serviceID")), identifier(deployment.get("environmentID"))
    ended = status in (COMPLETED, FAILED, CANCELLED)
    return Report(
        external_id=f"zeabur/deployments/{number}",
        status=status,
        repository=repository_key(f"https://{host}/{owner}/{name}") if host and owner and name else "",
        environment=text(payload.get("environment"), MAX_NAME) or text(deployment.get("environment"), MAX_NAME),
        version=version_of(text(deployment.get("ref"), 250), sha, text(payload.get("version"), MAX_VERSION)),
        commit_sha=sha,
        commit_message=text(deployment.get("commitMessage"), MAX_MESSAGE),
        claimed_at=(moment(deployment.get("finishedAt")) if ended else None)
        or moment(deployment.get("startedAt"))
        or moment(deployment.get("createdAt")),
        log_url=link(payload.get("log_url")),
        deployment_url=link(payload.get("url")),
        error_message=f"Zeabur says {text(deployment.get('status'), 30).lower()}." if status == FAILED else "",
        service=text(payload.get("service"), 50),
        place=place if all(place) else None,
    )
