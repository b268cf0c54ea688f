"""GitHub's webhook events `deployment`, `deployment_status`, `workflow_run` and `ping`.

https://docs.github.com/en/webhooks/webhook-events-and-payloads
"""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from apps.deployments.rules.transitions import MAX_ATTEMPT
from apps.deployments.sources.base import (
    CANCELLED,
    COMPLETED,
    FAILED,
    IN_PROGRESS,
    MAX_ID,
    MAX_MESSAGE,
    MAX_NAME,
    MAX_VERSION,
    QUEUED,
    Event,
    Ignored,
    Report,
    RunEnded,
    commit,
    identifier,
    link,
    mapping,
    moment,
    repository_key,
    text,
    version_of,
)

# https://docs.github.com/en/rest/deployments/statuses; `inactive` only says that a newer one has taken its place.
STATES = {
    "pending": QUEUED,
    "queued": QUEUED,
    "waiting": QUEUED,  # for a reviewer, or for a timer of the environment
    "in_progress": IN_PROGRESS,
    "success": COMPLETED,
    "failure": FAILED,
    "error": FAILED,
}
CONCLUSIONS = {
    "success": COMPLETED,
    "failure": FAILED,
    "timed_out": FAILED,
    "startup_failure": FAILED,
    "cancelled": CANCELLED,
}


def read(event: str, payload: Mapping[str, Any]) -> Event:
    """What a delivery says; `event` is its header X-GitHub-Event."""
    if event == "ping":
        return Ignored("GitHub asks whether anybody listens; the webhook is set up.")
    if event == "deployment":
        if payload.get("action") != "created":
            return Ignored("Of deployments only the creation counts.")
        return _report(payload, QUEUED, {})
    if event == "deployment_status":
        status = mapping(payload.get("deployment_status"))
        state = STATES.get(text(status.get("state"), 20))
        if state is None:
            return Ignored("This state tells nothing about the outcome.")
        return _report(payload, state, status)
    if event == "workflow_run":
        return _run(payload)
    return Ignored("Pulsewatch reads the events deployment, deployment_status and workflow_run only.")


def _report(payload: Mapping[str, Any], state: str, status: Mapping[str, Any]) -> Event:
    deployment = mapping(payload.get("deployment"))
    number, sha = identifier(deployment.get("id")), commit(deployment.get("sha"))
    if not number or not sha:
        return Ignored("The payload names no deployment with a commit.")
    task = text(deployment.get("task"), 64)
    if task and task != "deploy" and not task.startswith("deploy:"):
        return Ignored("Its task is not to deploy.")
    run = mapping(payload.get("workflow_run"))
    own = _own(deployment.get("payload"))
    failed = state == FAILED
    host = _host(payload)
    return Report(
        external_id=f"{host}/deployments/{number}"[:MAX_ID],
        status=state,
        repository=_repository(payload),
        environment=text(status.get("environment"), MAX_NAME) or text(deployment.get("environment"), MAX_NAME),
        version=version_of(text(deployment.get("ref"), 250), sha, text(own.get("version"), MAX_VERSION)),
        commit_sha=sha,
        commit_message=text(mapping(run.get("head_commit")).get("message"), MAX_MESSAGE)
        or text(run.get("display_title"), MAX_MESSAGE),
        triggered_by=_login(deployment.get("creator")) or _login(payload.get("sender")),
        claimed_at=moment(status.get("created_at")) or moment(deployment.get("created_at")),
        committed_at=moment(own.get("committed_at")) or _committed(run, sha),
        github_run_id=identifier(run.get("id")) or None,
        log_url=link(status.get("log_url")) or link(status.get("target_url")) or link(run.get("html_url")),
        deployment_url=link(status.get("environment_url")),
        error_message=(text(status.get("description"), MAX_MESSAGE) or "GitHub reports a failure.") if failed else "",
        service=text(own.get("service"), 50),
    )


def _run(payload: Mapping[str, Any]) -> Event:
    run = mapping(payload.get("workflow_run"))
    number = identifier(run.get("id"))
    if payload.get("action") != "completed" or not number:
        return Ignored("Of workflow runs only the end counts.")
    conclusion = text(run.get("conclusion"), 30)
    status = CONCLUSIONS.get(conclusion)
    if status is None:
        return Ignored("The run ended without an outcome.")
    name = text(run.get("name"), 100) or "a workflow"
    return RunEnded(
        repository=_repository(payload),
        run_id=number,
        status=status,
        attempt=_attempt(run.get("run_attempt")),
        detail=f"GitHub's run {number} of {name} has ended: {conclusion.replace('_', ' ')}.",
        claimed_at=moment(run.get("updated_at")),
        log_url=link(run.get("html_url")),
        commit_sha=(sha := commit(mapping(run.get("head_commit")).get("id"))),
        committed_at=_committed(run, sha),
    )


def _committed(run: Mapping[str, Any], sha: str) -> datetime | None:
    """When a run's commit was made, if it is this one."""
    head = mapping(run.get("head_commit"))
    return moment(head.get("timestamp")) if sha and commit(head.get("id")) == sha else None


def _attempt(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= MAX_ATTEMPT else None


def _repository(payload: Mapping[str, Any]) -> str:
    return repository_key(text(mapping(payload.get("repository")).get("html_url"), 300))


def _host(payload: Mapping[str, Any]) -> str:
    """Which GitHub this is: ids of two servers may be equal."""
    return _repository(payload).partition("/")[0] or "github.com"


def _login(value: object) -> str:
    return text(mapping(value).get("login"), MAX_NAME)


def _own(value: object) -> Mapping[str, Any]:
    """What the team itself put into a deployment's payload: an object, or its JSON as a text."""
    if isinstance(value, str) and len(value) <= 10_000:
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return {}
    return mapping(value)
