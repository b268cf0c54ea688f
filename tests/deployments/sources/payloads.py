"""Payloads of the shape GitHub and Zeabur send, made up, with the fields that matter and some that do not."""

import copy
from typing import Any

SHA = "9d5c7e1a3b2f4c6d8e0f1a2b3c4d5e6f7a8b9c0d"

REPOSITORY = {
    "id": 731_000_123,
    "name": "shop",
    "full_name": "acme/shop",
    "private": True,
    "html_url": "https://github.com/acme/shop",
    "clone_url": "https://github.com/acme/shop.git",
    "ssh_url": "git@github.com:acme/shop.git",
    "default_branch": "main",
}
RUN = {
    "id": 11_900_000_321,
    "name": "Deploy",
    "path": ".github/workflows/deploy.yml",
    "head_branch": "main",
    "head_sha": SHA,
    "display_title": "Show prices with tax",
    "event": "push",
    "status": "in_progress",
    "conclusion": None,
    "html_url": "https://github.com/acme/shop/actions/runs/11900000321",
    "created_at": "2026-10-20T14:29:50Z",
    "updated_at": "2026-10-20T14:33:10Z",
    "actor": {"login": "ana", "type": "User"},
}
DEPLOYMENT = {
    "action": "created",
    "deployment": {
        "url": "https://api.github.com/repos/acme/shop/deployments/1500001",
        "id": 1_500_001,
        "node_id": "DE_kwDOABCD",
        "task": "deploy",
        "original_environment": "production",
        "environment": "production",
        "description": None,
        "created_at": "2026-10-20T14:30:00Z",
        "updated_at": "2026-10-20T14:30:00Z",
        "sha": SHA,
        "ref": "v1.4.3",
        "payload": {},
        "transient_environment": False,
        "production_environment": True,
        "creator": {"login": "ana", "id": 7, "type": "User"},
        "performed_via_github_app": None,
    },
    "workflow": None,
    "workflow_run": RUN,
    "repository": REPOSITORY,
    "sender": {"login": "ana", "id": 7, "type": "User"},
}
STATUS = {
    **DEPLOYMENT,
    "deployment_status": {
        "id": 2_600_001,
        "state": "success",
        "description": "",
        "environment": "production",
        "target_url": "https://github.com/acme/shop/actions/runs/11900000321/job/1",
        "log_url": "https://github.com/acme/shop/actions/runs/11900000321/job/1",
        "environment_url": "https://shop.example.com",
        "created_at": "2026-10-20T14:33:05Z",
        "updated_at": "2026-10-20T14:33:05Z",
        "creator": {"login": "github-actions[bot]", "type": "Bot"},
    },
    "check_run": None,
}
RUN_ENDED = {
    "action": "completed",
    "workflow_run": {**RUN, "status": "completed", "conclusion": "failure"},
    "workflow": {"id": 161_335, "name": "Deploy", "path": ".github/workflows/deploy.yml", "state": "active"},
    "repository": REPOSITORY,
    "sender": {"login": "ana"},
}
PING = {
    "zen": "Keep it logically awesome.",
    "hook_id": 4_100_001,
    "hook": {"type": "Repository"},
    "repository": REPOSITORY,
}
ZEABUR = {
    "_id": "66f1a2b3c4d5e60718293a4f",
    "projectID": "65a1b2c3d4e5f60718293a40",
    "serviceID": "65a1b2c3d4e5f60718293a4b",
    "environmentID": "65a1b2c3d4e5f60718293a4c",
    "gitProvider": "GITHUB",
    "repoOwner": "acme",
    "repoName": "shop",
    "ref": "main",
    "commitSHA": SHA,
    "commitMessage": "Show prices with tax\n\nCloses 12",
    "planType": "nodejs",
    "status": "RUNNING",
    "createdAt": "2026-10-20T14:30:00.123Z",
    "startedAt": "2026-10-20T14:30:20Z",
    "finishedAt": "2026-10-20T14:33:00Z",
}


def changed(payload: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A copy with some fields changed; `deployment__sha="…"` reaches into an object."""
    result = copy.deepcopy(payload)
    for path, value in changes.items():
        *parents, name = path.split("__")
        place = result
        for parent in parents:
            place = place[parent]
        place[name] = value
    return result
