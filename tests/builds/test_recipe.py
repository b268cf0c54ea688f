"""The shell commands of docs/builds.md, run as they stand there against a served console."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.servers import MariaDB, Redis
from tests.servers.packages import program
from tests.serving import served

ROOT = Path(__file__).parents[2]
OUTPUT = Path(__file__).parent / "parsers" / "outputs" / "tsc-plain.txt"


def test_the_recipe_for_ci_reports_a_failed_build_with_what_two_tools_found(tmp_path: Path) -> None:
    (recipe,) = re.findall(r"```sh\n(.*?)```", (ROOT / "docs" / "builds.md").read_text(), re.DOTALL)
    checkout = tmp_path / "shop"
    (checkout / "api").mkdir(parents=True)
    (checkout / "api" / "views.py").write_text("import os\n")
    git = [program("git", "git"), "-c", "user.name=ana", "-c", "user.email=ana@example.org"]
    for arguments in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "-m", "Begin"]):
        subprocess.run([*git, *arguments], cwd=checkout, check=True)
    tools = tmp_path / "bin"
    tools.mkdir()
    # There is no Node.js here: in npx's place stands what the compiler printed, and its exit status.
    (tools / "npx").write_text(f"#!/bin/sh\ncat '{OUTPUT}'\nexit 2\n")
    (tools / "npx").chmod(0o755)
    path = f"{tools}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    program("curl", "curl")

    with MariaDB(migrated=True) as database, Redis() as broker:
        variables = {"DATABASE_URL": database.url, "REDIS_URL": broker.url}
        own = {**os.environ, **variables, "PATH": path}

        def manage(*arguments: str) -> str:
            command = [sys.executable, str(ROOT / "manage.py"), *arguments]
            return subprocess.run(command, env=own, check=True, capture_output=True, text=True).stdout

        token = manage("token", "create", "ci", "--scope", "builds:write,builds:read").splitlines()[-1]
        with served(**variables) as web:
            own |= {"TOKEN": token, "PULSEWATCH": web.base}
            subprocess.run(["sh", "-u", "-c", recipe], cwd=checkout, env=own, check=True)

            def items(noun: str) -> list[dict[str, Any]]:
                return web.get(f"/api/v1/{noun}?limit=100", Authorization=f"Bearer {token}").json()["items"]

            (build,), diagnostics = items("builds"), items("diagnostics")

    assert (build["status"], build["branch"], build["error_count"]) == ("failed", "main", 18)
    assert {(one["tool"], one["file_path"], one["severity"]) for one in diagnostics} == {
        ("ruff", "api/views.py", "critical"),
        ("tsc", "src/(admin)/page.ts", "critical"),
        ("tsc", "src/cart.ts", "critical"),
        ("tsc", "src/prices.ts", "critical"),
    }
