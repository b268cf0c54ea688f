"""The recipes of docs/deployments.md, run as they stand there."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml
from django.db import connection

from apps.api.services import create_token
from apps.core.audit import Actor
from apps.deployments import runner
from apps.deployments.models import Deployment, Gate
from apps.inventory.services import ensure_own_instance
from tests.servers.packages import program
from tests.serving import served

RECIPE = Path(__file__).parents[2] / "docs" / "deployments.md"
VARIABLES = {"GITHUB_SHA": "a" * 40, "GITHUB_RUN_ID": "1", "GITHUB_RUN_ATTEMPT": "1", "GITHUB_ACTOR": "ann"}


@pytest.mark.parametrize(("status", "answer"), [(0, {"id": "deploy_1"}), (22, {"status": 409, "detail": "Held."})])
def test_a_job_goes_on_only_when_its_deployment_was_taken(
    tmp_path: Path, status: int, answer: dict[str, object]
) -> None:
    (workflow,) = re.findall(r"```yaml\n(.*?)```", RECIPE.read_text(), re.DOTALL)
    start = next(step for step in yaml.safe_load(workflow)["jobs"]["deploy"]["steps"] if step.get("id") == "start")
    curl = tmp_path / "curl"
    curl.write_text(f"#!/bin/sh\necho '{json.dumps(answer)}'\nexit {status}\n")
    curl.chmod(0o755)
    program("jq", "jq")
    output = tmp_path / "output"
    output.touch()
    own = {**os.environ, **VARIABLES, "PATH": f"{tmp_path}:{os.environ['PATH']}", "GITHUB_OUTPUT": str(output)}
    own |= {"API": "http://api", "TOKEN": "t"}

    # The shell of a step that names none: it does not look at what stands before a pipe.
    done = subprocess.run(["bash", "-e", "-c", start["run"]], env=own, capture_output=True, text=True)

    assert done.returncode == status, done.stderr
    assert output.read_text() == ("" if status else "id=deploy_1\n")
    assert ("Held." in done.stdout) is bool(status)


@pytest.mark.django_db(transaction=True)
def test_the_shell_recipe_takes_pulsewatch_itself_to_a_verdict_on_real_samples():
    recipe = re.findall(r"```sh\n(.*?)```", RECIPE.read_text(), re.DOTALL)[0]
    _, token = create_token(name="ci", scopes=["deployments:write"], actor=Actor.automation("test"))
    url = urlsplit(os.environ["DATABASE_URL"])._replace(path=f"/{connection.settings_dict['NAME']}").geturl()
    program("curl", "curl")

    with served(DATABASE_URL=url) as web:
        ensure_own_instance(instance_id="web-1", url=web.base, environment="development")
        asked = recipe.replace("https://pulsewatch.example.com", web.base)
        own = {**os.environ, "TOKEN": token, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        subprocess.run(["sh", "-eu", "-c", asked], env=own, check=True, capture_output=True)
        while gate := Gate.objects.running().first():  # what a worker does, but no look waits for the next
            runner.look(gate.pk, now=gate.next_look_at)
        row = Deployment.objects.get()
        found = web.get(f"/api/v1/deployments/{row.pk}", Authorization=f"Bearer {token}").json()

    assert (found["status"], found["health_check_passed"], found["gate"]["verdict"]) == ("completed", True, "passed")
    assert found["gate"]["evidence"]["instances"][0]["healthy_in_a_row"] == found["gate"]["samples"]
