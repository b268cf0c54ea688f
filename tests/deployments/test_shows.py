"""The recipes of docs/deployments.md as they stand there, with a web server, worker and beat, and what dies of them."""

import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.fleet import Fleet, connect
from tests.http_app import Answer, App, http_app
from tests.receiver import Receiver, Reply, Trouble, receiver
from tests.servers import MariaDB, Redis, free_port
from tests.servers.packages import program
from tests.serving import Served, served

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "deployments.md").read_text()
RECIPE, BREAK, MEND = re.findall(r"```sh\n(.*?)```", DOCUMENT, re.DOTALL)
(JOB,) = re.findall(r"```yaml\n(.*?)```", DOCUMENT, re.DOTALL)
BRING_OUT = RECIPE.partition("while :")[0]
WAIT_SECONDS = 40  # for what takes a few on an idle machine
OWN = "pulsewatch/development"
BEGIN = """
from django.conf import settings
from apps.api.services import create_token
from apps.core.audit import Actor
from apps.inventory.services import ensure_own_instance
ensure_own_instance(instance_id=settings.INSTANCE_ID, url=settings.SELF_URL, environment=settings.ENVIRONMENT)
print(create_token(name="ci", scopes=["deployments:write", "inventory:write"], actor=Actor.automation("test"))[1])
"""


class Scene:
    """A served console with a worker and beat, and the application it watches, which plays its own instance."""

    def __init__(self, fleet: Fleet, web: Served, app: App, platform: Receiver) -> None:
        self.fleet, self.web, self.app, self.platform = fleet, web, app, platform
        self.version = web.get("/healthz").json()["version"]
        self.well = Answer(200, json.dumps({"version": self.version}).encode())
        app.answers["/ready"] = self.well
        (fleet.folder / "manage.py").symlink_to(ROOT / "manage.py")
        self.environment = {
            **fleet.environment,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PULSEWATCH": web.base,
        }
        self.environment["TOKEN"] = self.manage("shell", "--verbosity", "0", "-c", BEGIN).strip()
        self.worker = fleet.worker()
        fleet.beat()
        self.first = self.shell(RECIPE)

    def manage(self, *arguments: str, given: str = "") -> str:
        command = [sys.executable, "manage.py", *arguments]
        environment, folder = self.environment, self.fleet.folder
        return subprocess.run(
            command, cwd=folder, env=environment, input=given, check=True, capture_output=True, text=True
        ).stdout

    def shell(self, script: str, **variables: str) -> tuple[int, str]:
        """The exit status of a script, and all it has said. Its pauses are short here."""
        done = subprocess.run(
            ["bash", "-c", script.replace("sleep 5", "sleep 0.2")],
            cwd=self.fleet.folder,
            env={**self.environment, **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=WAIT_SECONDS,
            check=False,
        )
        return done.returncode, done.stdout

    def api(self, path: str) -> dict[str, Any]:
        reply = self.web.get(f"/api/v1/{path}", Authorization=f"Bearer {self.environment['TOKEN']}")
        assert reply.status == 200, reply.body
        found: dict[str, Any] = reply.json()
        return found

    def newest(self, **filters: str) -> dict[str, Any]:
        """The newest deployment in full."""
        query = "&".join(f"{name}={value}" for name, value in filters.items())
        (row,) = self.api(f"deployments?limit=1&service=pulsewatch&{query}")["items"]
        return self.api(f"deployments/{row['id']}")

    def sql(self, statement: str) -> Any:
        """The first value of the first row, if there is one."""
        with closing(connect(self.fleet.database)) as connection:
            cursor = connection.cursor()
            cursor.execute(statement)
            connection.commit()
            return cursor.fetchone()[0] if cursor.description else None

    def looks(self) -> int:
        """Of the gate that was begun last."""
        return int(self.sql("SELECT looks FROM deployment_gates ORDER BY started_at DESC LIMIT 1"))

    def gate_wants(self, samples: int) -> None:
        """From now on, in a row from each instance."""
        self.sql(f"UPDATE workloads SET gate_samples = {samples}")

    def until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + WAIT_SECONDS
        while not condition():
            assert time.monotonic() < deadline, f"after {self.looks()} looks: {self.fleet.logs()}"
            time.sleep(0.1)

    def bring_out(self, version: str) -> None:
        status, said = self.shell(BRING_OUT.replace("$version", version))
        assert status == 0, said

    def replace_worker(self) -> None:
        """Kill the worker and start another one."""
        os.killpg(self.worker.pid, signal.SIGKILL)
        self.worker.wait()
        self.worker = self.fleet.worker()

    def log(self) -> str:
        """What the present worker has written."""
        return (self.fleet.folder / f"worker-{self.fleet.processes.index(self.worker)}.log").read_text()


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """With one good deployment, which the recipe has made."""
    program("curl", "curl")
    folder = tmp_path_factory.mktemp("shows")
    with MariaDB(migrated=True) as database, Redis() as broker, http_app() as app, receiver() as platform:
        fleet = Fleet("tests.fast_gates", database, broker, app.url, folder)
        variables = {name: fleet.environment[name] for name in ("DATABASE_URL", "REDIS_URL", "SECRET_KEY")}
        try:
            with served(API_RATE_LIMIT="0", **variables) as web:
                yield Scene(fleet, web, app, platform)
        finally:
            fleet.stop()


def kinds(deployment: dict[str, Any]) -> list[str]:
    return [step["kind"] for step in deployment["steps"]]


def test_the_recipe_begins_ends_and_tells_what_the_gate_sees_until_it_passes(scene: Scene) -> None:
    status, said = scene.first

    assert status == 0, said
    assert re.search(r"^in_progress: (The first look is under way|app-1: . of 3 healthy samples so far)\.$", said, re.M)
    assert said.splitlines()[-1].startswith("completed: 3 healthy samples in a row from the instance.")
    deployment = scene.api(f"deployments?limit=200&version={scene.version}&kind=deployment")["items"][-1]
    deployment = scene.api(f"deployments/{deployment['id']}")
    assert (deployment["status"], deployment["health_check_passed"]) == ("completed", True)
    assert kinds(deployment) == ["created", "gate_started", "gate_decided", "ended"]
    assert deployment["gate"]["evidence"]["chosen_by"] == "version"
    (seen,) = deployment["gate"]["evidence"]["instances"]
    assert (seen["instance"], seen["healthy_in_a_row"]) == ("app-1", 3)


def test_a_refusal_ends_the_recipe_with_the_reason(scene: Scene) -> None:
    status, said = scene.shell(RECIPE, TOKEN="pw_12345678_wrong")

    assert status != 0
    assert "This token is not known here" in said
    assert "Traceback" not in said


def test_one_whose_instance_answers_500_fails_and_the_webhook_is_asked_to_roll_back(scene: Scene) -> None:
    parts = (
        BREAK,
        "until curl -s -o /dev/null http://127.0.0.1:8500; do sleep 0.1; done",
        f"({RECIPE.replace('version=$(', 'version=v9.9.9 unused=$(')})",
        "echo Ended with $?.",
        # Its platform is asked a moment later.
        'rollbacks() { curl -sS -H "Authorization: Bearer $TOKEN" "$PULSEWATCH/api/v1/deployments?kind=rollback"; }',
        "until rollbacks | grep -q rolled_back; do sleep 0.1; done",
        MEND,
        "wait",
    )
    _, said = scene.shell("\n".join(parts).replace("8500", str(free_port())))

    assert "Ended with 1." in said, said
    assert "failed: broken was unhealthy 6 times in a row (" in said
    asked = f'"service":"pulsewatch","environment":"development","version":"{scene.version}"'
    assert said.count("Asked to roll back: ") == said.count(asked) == 1
    assert "a gate that fails brings the last good version back" in said
    assert "a gate that fails rolls nothing back" in said
    failed = scene.newest(version="v9.9.9")
    rollback = scene.api(f"deployments/{failed['rolled_back_by_id']}")
    assert (failed["status"], rollback["status"], rollback["version"]) == ("failed", "rolled_back", scene.version)


def test_a_killed_worker_and_a_broker_that_is_away_delay_the_verdict_and_bring_it_once(scene: Scene) -> None:
    scene.gate_wants(20)
    scene.bring_out(scene.version)
    scene.until(lambda: scene.looks() >= 2)

    scene.replace_worker()
    seen = scene.looks()
    scene.until(lambda: scene.looks() >= seen + 2)
    scene.fleet.broker.kill()
    scene.until(lambda: "onnection to broker lost" in scene.log())
    scene.fleet.broker.start()

    scene.until(lambda: scene.newest()["status"] != "in_progress")
    scene.gate_wants(3)
    deployment = scene.newest()
    assert (deployment["status"], deployment["health_check_passed"]) == ("completed", True)
    assert kinds(deployment) == ["created", "gate_started", "gate_decided", "ended"]
    assert scene.api("workloads?service=pulsewatch")["items"][0]["current_deployment_id"] == deployment["id"]


def test_a_worker_that_is_killed_while_the_webhook_thinks_is_followed_by_one_that_sends_the_same_id(
    scene: Scene,
) -> None:
    scene.platform.starts_over(Trouble.NEVER, Reply(202))
    scene.manage(
        *("workload", "set", OWN, "--auto-rollback", "--platform", "webhook"),
        *("--platform-settings", json.dumps({"url": scene.platform.url}), "--secret-file", "-"),
        given="a-long-secret-of-the-webhook\n",
    )
    scene.app.answers["/ready"] = Answer(500)
    scene.gate_wants(1)
    scene.bring_out("v8.8.8")
    scene.until(lambda: scene.platform.requests)
    assert scene.newest()["status"] == "in_progress"

    scene.replace_worker()

    scene.until(lambda: scene.newest()["status"] != "in_progress")
    scene.app.answers["/ready"] = scene.well
    scene.gate_wants(3)
    rollback = scene.newest()
    assert (rollback["kind"], rollback["status"], rollback["version"]) == ("rollback", "rolled_back", scene.version)
    assert kinds(rollback) == ["created", "started", "started", "platform", "ended"]
    first, second = (request.headers for request in scene.platform.requests)
    assert first["webhook-id"] == second["webhook-id"]
    assert second["webhook-signature"].startswith("v1,")
    assert scene.newest(version="v8.8.8")["rolled_back_by_id"] == rollback["id"]


def test_the_job_for_github_is_valid_starts_ends_and_turns_red_with_the_deployment(scene: Scene) -> None:
    program("jq", "jq")
    (scene.fleet.folder / "deploy.yml").write_text(JOB)
    schema = ["check-jsonschema", "--builtin-schema", "vendor.github-workflows", str(scene.fleet.folder / "deploy.yml")]
    subprocess.run(schema, env=scene.environment, check=True, capture_output=True)
    instance = {"name": "web-1", "service": "app", "environment": "production", "url": scene.app.url}
    register = 'curl -sS --fail-with-body -H "Authorization: Bearer $TOKEN" -H "Content-Type: application/json"'
    status, said = scene.shell(f"{register} $PULSEWATCH/api/v1/instances -d '{json.dumps(instance)}'")
    assert status == 0, said

    status, said = run_job(scene, sha="c" * 40, deploys=True)
    assert status == 0, said
    assert "in_progress: " in said
    assert "completed: 3 healthy samples in a row from the instance." in said
    status, said = run_job(scene, sha="d" * 40, deploys=False)
    assert status == 1, said
    (failed, completed) = scene.api("deployments?service=app")["items"]
    assert (failed["status"], completed["status"], completed["triggered_by"]) == ("failed", "completed", "ana")
    # The same run of CI again, while the version is known to fail: told why, and red.
    status, said = run_job(scene, sha="d" * 40, deploys=True, run="79")
    assert (status, "failed on app/production" in said) == (22, True), said
    assert (scene.fleet.folder / "outputs-d79").read_text() == "", "nothing is brought out"


def run_job(scene: Scene, *, sha: str, deploys: bool, run: str = "") -> tuple[int, str]:
    """What the runner of GitHub would do; the last exit status that is not 0, and all that was said."""
    job = yaml.safe_load(JOB)["jobs"]["deploy"]
    outputs = scene.fleet.folder / f"outputs-{sha[0]}{run}"
    outputs.touch()
    status, said = 0, ""
    for step in job["steps"]:
        if "run" not in step or step["run"] == "./deploy.sh":
            status = status or (0 if deploys or "run" not in step else 1)
            continue
        begun = dict(line.split("=") for line in outputs.read_text().splitlines())
        if status and not (begun and "always()" in step.get("if", "")):
            continue
        words = {
            "vars.PULSEWATCH_URL": scene.web.base,
            "secrets.PULSEWATCH_TOKEN": scene.environment["TOKEN"],
            "steps.start.outputs.id": begun.get("id", ""),
            "job.status == 'success' && 'completed' || 'failed'": "failed" if status else "completed",
        }
        given = {**job["env"], **step["env"]}
        for name, (word, stands_for) in itertools.product(list(given), words.items()):
            given[name] = given[name].replace(f"${{{{ {word} }}}}", stands_for)
        github = {"GITHUB_SHA": sha, "GITHUB_RUN_ID": run or sha[0], "GITHUB_ACTOR": "ana", "GITHUB_RUN_ATTEMPT": "1"}
        ended, told = scene.shell(f"set -e\n{step['run']}", **given, **github, GITHUB_OUTPUT=str(outputs))
        status, said = status or ended, said + told
    return status, said
