"""What the job of docs/deployments.md does when Pulsewatch goes away under it."""

import os
import re
import subprocess
from pathlib import Path

import yaml

from tests.servers.packages import program

RECIPE = Path(__file__).parents[2] / "docs" / "deployments.md"


def test_a_job_that_cannot_hear_the_verdict_is_not_green(tmp_path: Path) -> None:
    (workflow,) = re.findall(r"```yaml\n(.*?)```", RECIPE.read_text(), re.DOTALL)
    last = yaml.safe_load(workflow)["jobs"]["deploy"]["steps"][-1]
    program("jq", "jq")
    curl = tmp_path / "curl"
    curl.write_text(
        '#!/bin/sh\ncase "$*" in *PATCH*) echo "{}" ;; *) echo "curl: (7) no connection" >&2; exit 7 ;; esac\n'
    )
    curl.chmod(0o755)
    own = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "DEPLOYMENTS": "http://here", "ID": "deploy_1"}
    own |= {"TOKEN": "t", "STATUS": "completed"}

    done = subprocess.run(["bash", "-e", "-c", last["run"]], env=own, capture_output=True, text=True)

    assert done.returncode != 0, done.stdout
