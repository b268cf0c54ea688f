"""What the files around the code promise: the example of the configuration, compose, the workflow."""

import os
import re
import secrets
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import MySQLdb
import pytest
import yaml

from apps.health.runner import target
from apps.inventory.services import ensure_own_instance
from tests.servers import MariaDB, MySQL

ROOT = Path(__file__).parent.parent
EXAMPLE = (ROOT / ".env.example").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker/compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {"prepare": "prepare", "web": "web", "worker": "worker-fast", "worker-long": "worker-long", "beat": "beat"}
WORKFLOW: dict[str, Any] = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())

# Read by Django itself or before the settings.
READ_ELSEWHERE = {"DJANGO_SETTINGS_MODULE", "ENV_FILE"}
SETTINGS = set(re.findall(r'\benv\.\w+\(\s*"([A-Z0-9_]+)"', (ROOT / "pulsewatch/settings.py").read_text()))
SECRETS = {
    *("SECRET_KEY", "METRICS_TOKEN", "MYSQL_PASSWORD", "MYSQL_ROOT_PASSWORD", "PULSEWATCH_ADMIN_PASSWORD"),
    *("BACKUP_KEYSET", "BACKUP_S3_SECRET_KEY", "GITHUB_WEBHOOK_SECRET", "ZEABUR_WEBHOOK_SECRET"),
}


def examples() -> dict[str, str]:
    """The variables of the example file with their values; all are commented out, so that a copy changes nothing."""
    return dict(re.findall(r"^#([A-Z0-9_]+)=(.*)$", EXAMPLE, re.MULTILINE))


@pytest.mark.parametrize("kind", ["md", "html", "css", "js", "txt", "example"])
def test_no_merge_was_left_half_done(kind: str) -> None:
    """Where no other check would stumble over its marks."""
    above = ("apps", "bench", "docker", "docs", "pulsewatch", "requirements", "tests")
    files = [*ROOT.glob(f"*.{kind}"), *(file for name in above for file in (ROOT / name).rglob(f"*.{kind}"))]
    assert files
    mark = re.compile(r"^(?:<{7}|>{7}) ", re.MULTILINE)
    assert not [str(file) for file in files if mark.search(file.read_text(errors="replace"))]


def test_the_search_for_variables_finds_them() -> None:
    assert {"SECRET_KEY", "DATABASE_URL", "DEBUG", "PORT", "READY_TIMEOUT_SECONDS", "CORS_ORIGINS"} <= SETTINGS


def test_the_example_file_names_every_variable_that_is_read_and_no_other() -> None:
    assert set(examples()) - {"MYSQL_ROOT_PASSWORD"} == SETTINGS | READ_ELSEWHERE


def test_the_configuration_page_explains_every_variable_that_is_read() -> None:
    page = (ROOT / "docs/configure.md").read_text()
    assert not {name for name in SETTINGS | READ_ELSEWHERE if f"`{name}`" not in page}


def test_a_copy_of_the_example_file_sets_nothing() -> None:
    assert not [line for line in EXAMPLE.splitlines() if line and not line.startswith("#")]


def test_the_example_file_holds_no_secret() -> None:
    assert {name: examples()[name] for name in SECRETS} == dict.fromkeys(SECRETS, "")


def test_every_value_in_the_example_file_is_accepted(tmp_path: Path) -> None:
    values = {name: value for name, value in examples().items() if value}
    done = subprocess.run(
        [sys.executable, "-c", "import pulsewatch.settings"],
        cwd=ROOT,
        env={**values, "PATH": os.environ["PATH"], "ENV_FILE": "", "VAR_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_git_ignores_the_files_that_hold_secrets() -> None:
    files = [".env", "docker/.env", "var/secret_key"]
    ignored = subprocess.run(["git", "check-ignore", *files], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ignored.stdout.split() == files


def test_nothing_enters_the_image_that_is_not_named() -> None:
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert rules[0] == "*"
    assert not any(".env" in rule or rule in ("!docker", "!.") for rule in rules)


# --- compose ----------------------------------------------------------------------------------------------------------
def test_services_start_after_what_they_need() -> None:
    graph = {
        name: {needed: how["condition"] for needed, how in service.get("depends_on", {}).items()}
        for name, service in SERVICES.items()
    }
    after = {"db": "service_healthy", "redis": "service_started", "prepare": "service_completed_successfully"}
    assert graph == {
        "db": {},
        "redis": {},
        "prepare": {"db": "service_healthy"},
        **dict.fromkeys(("web", "worker", "worker-long", "beat"), after),
    }


def test_every_service_of_ours_has_its_role_and_no_rights() -> None:
    assert {name: service["command"] for name, service in SERVICES.items() if name in OURS} == {
        name: [role] for name, role in OURS.items()
    }
    for name in OURS:
        service = SERVICES[name]
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["tmpfs"][0].startswith("/tmp:")
        assert service["volumes"] == ["..:/app:ro"]


def test_only_this_machine_reaches_the_console_and_nothing_else_is_open() -> None:
    assert {name: service["ports"] for name, service in SERVICES.items() if "ports" in service} == {
        "web": ["127.0.0.1:${PORT:-8000}:8000"]
    }


def test_network_and_volume_have_their_names() -> None:
    assert list(COMPOSE["networks"]) == ["pulsewatch_network"]
    assert {tuple(service["networks"]) for service in SERVICES.values()} == {("pulsewatch_network",)}
    assert list(COMPOSE["volumes"]) == ["mysql_data"]
    assert SERVICES["db"]["volumes"] == ["mysql_data:/var/lib/mysql"]


def test_no_secret_in_compose_has_a_default() -> None:
    for service in SERVICES.values():
        for name, value in service.get("environment", {}).items():
            if name in SECRETS:
                assert value is None or value.startswith(f"${{{name}:?"), name


def test_the_database_is_asked_for_its_health_without_a_password_among_the_arguments() -> None:
    check = SERVICES["db"]["healthcheck"]["test"]
    assert check.startswith('MYSQL_PWD="$$MYSQL_PASSWORD" mysqladmin ping ')
    assert "password" not in check.partition("mysqladmin")[2].lower()


def test_compose_hands_every_setting_on_or_decides_it_itself() -> None:
    # Where the image listens and writes, and the two servers that compose starts, are not for a person to choose.
    decided = {"HOST", "PORT", "VAR_DIR", "DATABASE_URL", "CELERY_BROKER_URL", "CELERY_RESULT_BACKEND"}
    of_make_run = {"PULSEWATCH_ADMIN_PASSWORD", "SCHEDULER_ENABLED"}
    assert set(SERVICES["web"]["environment"]) == SETTINGS - READ_ELSEWHERE - decided - of_make_run


@pytest.mark.engine
def test_a_user_with_rights_on_its_own_database_only_is_enough(
    private_database: MariaDB | MySQL, tmp_path: Path
) -> None:
    # As the MySQL image makes the user of MYSQL_USER.
    password = secrets.token_urlsafe(24)
    url = urlsplit(private_database.url)
    owner = MySQLdb.connect(host=url.hostname, port=url.port, user=url.username, password=url.password)
    with closing(owner), owner.cursor() as cursor:
        cursor.execute("CREATE DATABASE small")
        cursor.execute("CREATE USER small@'%%' IDENTIFIED BY %s", [password])
        cursor.execute("GRANT ALL ON small.* TO small@'%'")
    done = subprocess.run(
        [sys.executable, "manage.py", "prepare"],
        cwd=ROOT,
        env={
            "PATH": os.environ["PATH"],
            "ENV_FILE": "",
            "VAR_DIR": str(tmp_path),
            "DATABASE_URL": f"mysql://small:{password}@127.0.0.1:{url.port}/small",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-500:]


@pytest.mark.django_db
def test_the_address_of_the_web_service_is_one_that_is_sampled() -> None:
    address = SERVICES["worker"]["environment"]["SELF_URL"]
    instance = ensure_own_instance(instance_id="pulsewatch-web", url=address, environment="development")
    assert target(instance).readiness_url == "http://web:8000/ready"


# --- the workflow -----------------------------------------------------------------------------------------------------
def test_every_action_is_pinned_to_a_commit_and_names_its_version() -> None:
    lines = [line for line in (ROOT / ".github/workflows/ci.yml").read_text().splitlines() if "uses:" in line]
    assert lines
    for line in lines:
        assert re.search(r"uses: [\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$", line), line


def test_the_jobs_need_no_other_and_may_only_read() -> None:
    assert WORKFLOW["permissions"] == {}
    assert set(WORKFLOW["jobs"]) == {"lint", "test", "docker"}
    for job in WORKFLOW["jobs"].values():
        assert "needs" not in job
        assert job["permissions"] == {"contents": "read"}
        assert job["timeout-minutes"] <= 30


def test_the_suite_runs_on_every_supported_python_beside_mysql() -> None:
    job = WORKFLOW["jobs"]["test"]
    assert job["strategy"]["matrix"]["python"] == ["3.11", "3.12", "3.13"]
    assert job["services"]["mysql"]["image"] == SERVICES["db"]["image"] == "mysql:8.4"


@pytest.mark.parametrize("kind", ["xml", "html"])
def test_coverage_reports_are_kept_for_thirty_days(kind: str) -> None:
    uploads = [step["with"] for step in WORKFLOW["jobs"]["test"]["steps"] if "upload-artifact" in step.get("uses", "")]
    (upload,) = [upload for upload in uploads if f"-{kind}-" in upload["name"]]
    assert upload["retention-days"] == 30
    assert upload["if-no-files-found"] == "error"
