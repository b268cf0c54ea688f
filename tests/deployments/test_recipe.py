"""The steps of docs/deployments.md for GitHub Actions, run as GitHub runs them."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.servers.packages import program

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
