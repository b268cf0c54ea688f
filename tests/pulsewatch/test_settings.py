"""Starting with right and wrong settings, as a process of its own."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DEPLOYED = {
    "ENVIRONMENT": "production",
    "SECRET_KEY": "k3y-" + "0123456789abcdefghijklmnop" * 2,
    "DATABASE_URL": "mysql://pulsewatch:open-sesame@127.0.0.1:9/pulsewatch",
    "REDIS_URL": "redis://:shut-sesame@127.0.0.1:9/0",
}


def start(code: str, tmp_path: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run code with nothing set but the variables."""
    environment = {"PATH": os.environ["PATH"], "ENV_FILE": "", "VAR_DIR": str(tmp_path / "var"), **variables}
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=ROOT, capture_output=True, text=True, timeout=60
    )


def setting(name: str, tmp_path: Path, **variables: str) -> str:
    code = f"from django.conf import settings; print(repr(settings.{name}))"
    result = start(code, tmp_path, DJANGO_SETTINGS_MODULE="pulsewatch.settings", **variables)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_every_fault_is_reported_at_once_without_a_value_or_a_traceback(tmp_path):
    result = start(
        "import pulsewatch.wsgi",
        tmp_path,
        ENVIRONMENT="production",
        SECRET_KEY="too-short-to-be-true",
        DATABASE_URL="postgres://ana:open-sesame@db/x",
        REDIS_URL="http://:shut-sesame@redis",
        DEBUG="yes",
        ALLOWED_HOSTS="https://console.example.com/",
        LOG_LEVEL="loud",
        METRICS_TOKEN="brief",
        PORT="eight",
        SECURE_SSL_REDIRECT="perhaps",
        READY_TIMEOUT_SECONDS="-1",
        CORS_ORIGINS="everyone",
    )

    assert result.returncode == 1
    named = re.findall(r"^  ([A-Z_]+): ", result.stderr, re.MULTILINE)
    assert {*named} == {
        "SECRET_KEY", "DATABASE_URL", "REDIS_URL", "DEBUG", "ALLOWED_HOSTS", "LOG_LEVEL", "METRICS_TOKEN", "PORT",
        "SECURE_SSL_REDIRECT", "READY_TIMEOUT_SECONDS", "CORS_ORIGINS",
    }  # fmt: skip
    assert "Traceback" not in result.stderr
    assert "docs/configure.md" in result.stderr
    for value in ("too-short", "sesame", "brief", "eight", "loud", "perhaps", "everyone"):
        assert value not in result.stderr + result.stdout
    assert result.stderr.count("Example: ") == len(named)


@pytest.mark.parametrize(
    "command",
    [
        ["-m", "gunicorn", "--config", "python:pulsewatch.web", "pulsewatch.wsgi"],
        ["-m", "celery", "-A", "pulsewatch", "worker"],
        ["-m", "celery", "-A", "pulsewatch", "beat"],
        ["manage.py", "check"],
    ],
    ids=["gunicorn", "worker", "beat", "manage.py"],
)
def test_every_process_refuses_a_wrong_configuration_before_it_opens_a_port(tmp_path, command):
    with socket.socket() as taken:
        # Were the port opened first, the message would be about the address in use.
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        environment = {
            "PATH": os.environ["PATH"],
            "ENV_FILE": "",
            "VAR_DIR": str(tmp_path),
            "ENVIRONMENT": "staging",
            "PORT": str(taken.getsockname()[1]),
        }
        result = subprocess.run(
            [sys.executable, *command], env=environment, cwd=ROOT, capture_output=True, text=True, timeout=60
        )

    assert result.returncode != 0
    assert "Pulsewatch cannot start: 3 settings are wrong" in result.stderr
    for name in ("SECRET_KEY", "DATABASE_URL", "REDIS_URL"):
        assert f"{name}: is required and not set" in result.stderr
    assert "Traceback" not in result.stderr + result.stdout


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"SECRET_KEY": "django-insecure-" + "x1y2z3w4" * 6}, "default or trivial"),
        ({"SECRET_KEY": "a" * 60}, "default or trivial"),
        ({"DEBUG": "true"}, "must be off"),
        ({"DATABASE_URL": "sqlite:////tmp/x.sqlite3"}, "must name MySQL or MariaDB"),
        ({"DATABASE_URL": "mysql://u:p@db"}, "without a database name"),
        ({"DATABASE_URL": "", "MYSQL_PASSWORD": "p", "MYSQL_HOST": "[bad"}, "  MYSQL_HOST: "),
        ({"DATABASE_URL": "", "MYSQL_PASSWORD": "p", "MYSQL_HOST": "a/b?c"}, "  MYSQL_HOST: "),
        ({"DATABASE_URL": "", "MYSQL_PASSWORD": "p", "MYSQL_DATABASE": " "}, "  MYSQL_DATABASE: is empty"),
        ({"REDIS_URL": "redis://127.0.0.1:9/abc"}, "  REDIS_URL: "),
        ({"CELERY_BROKER_URL": "redis://127.0.0.1:9?socket_timeout=abc"}, "  CELERY_BROKER_URL: "),
        ({"HOST": "a/b"}, "  HOST: "),
        ({"SELF_URL": "http://ana:sesame@web"}, "  SELF_URL: "),
        ({"INSTANCE_ID": "web 1"}, "  INSTANCE_ID: "),
        ({"SCHEDULER_ENABLED": "perhaps"}, "  SCHEDULER_ENABLED: "),
        ({"PULSEWATCH_ADMIN_PASSWORD_FILE": "/nowhere"}, "  PULSEWATCH_ADMIN_PASSWORD_FILE: "),
        ({"ENVIRONMENT": "prod"}, "must be one of development, staging, production"),
    ],
)
def test_production_refuses_what_development_may_do(tmp_path, wrong, words):
    result = start("import pulsewatch.settings", tmp_path, **(DEPLOYED | wrong))

    assert result.returncode == 1
    assert words in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stderr.count("Example: ") == 1


@pytest.mark.parametrize("environment", ["production", "staging"])
def test_deployed_means_https_unless_switched_off_by_name(tmp_path, environment):
    names = "(settings.SECURE_SSL_REDIRECT, settings.SESSION_COOKIE_SECURE, settings.SECURE_HSTS_SECONDS > 0)"
    code = f"from django.conf import settings; print{names}"
    variables = DEPLOYED | {"ENVIRONMENT": environment, "DJANGO_SETTINGS_MODULE": "pulsewatch.settings"}

    assert start(code, tmp_path, **variables).stdout.split() == ["True", "True", "True"]
    off = {"SECURE_SSL_REDIRECT": "false", "SESSION_COOKIE_SECURE": "0", "SECURE_HSTS_SECONDS": "0"}
    assert start(code, tmp_path, **(variables | off)).stdout.split() == ["False", "False", "False"]


def test_nothing_set_runs_the_embedded_default_with_secrets_of_mode_0600(tmp_path):
    assert "sqlite3" in setting("DATABASES", tmp_path)
    key = setting("SECRET_KEY", tmp_path)

    assert key == setting("SECRET_KEY", tmp_path), "made once"
    assert len(key) > 50
    assert (tmp_path / "var" / "secret_key").stat().st_mode & 0o777 == 0o600
    assert str(tmp_path / "var") in setting("REDIS_URL", tmp_path)
    assert setting("CELERY_BROKER_URL", tmp_path).startswith("'redis+socket://")


def test_two_processes_that_start_together_agree_on_the_secret(tmp_path):
    code = "from django.conf import settings; print(settings.SECRET_KEY)"
    environment = {
        "PATH": os.environ["PATH"], "ENV_FILE": "", "VAR_DIR": str(tmp_path / "var"),
        "DJANGO_SETTINGS_MODULE": "pulsewatch.settings",
    }  # fmt: skip
    processes = [
        subprocess.Popen([sys.executable, "-c", code], env=environment, cwd=ROOT, stdout=subprocess.PIPE)
        for _ in range(4)
    ]

    keys = {process.communicate()[0] for process in processes}

    assert len(keys) == 1
    assert {path.name for path in (tmp_path / "var").iterdir()} == {"secret_key", "backup_keyset.json"}


def test_database_url_wins_over_the_mysql_variables(tmp_path):
    parts = {"MYSQL_HOST": "other", "MYSQL_PASSWORD": "p"}

    assert "127.0.0.1" in setting("DATABASES['default']['HOST']", tmp_path, **DEPLOYED, **parts)


def test_the_mysql_variables_alone_do_as_well_with_any_password(tmp_path):
    variables = {name: value for name, value in DEPLOYED.items() if name != "DATABASE_URL"}
    parts = {"MYSQL_HOST": "db.example.com", "MYSQL_PASSWORD": "p@ss/w:rd#%", "MYSQL_USER": "ana", "MYSQL_PORT": "3307"}

    config = "{k: settings.DATABASES['default'][k] for k in ('HOST', 'USER', 'PASSWORD', 'PORT', 'NAME')}"
    code = f"from django.conf import settings; print({config})"
    result = start(code, tmp_path, DJANGO_SETTINGS_MODULE="pulsewatch.settings", **variables, **parts)

    assert eval(result.stdout) == {  # our own output
        "HOST": "db.example.com", "USER": "ana", "PASSWORD": "p@ss/w:rd#%", "PORT": 3307, "NAME": "pulsewatch_dev",
    }  # fmt: skip


def test_an_env_file_fills_in_what_is_not_set(tmp_path):
    file = tmp_path / "settings.env"
    file.write_text("LOG_LEVEL=DEBUG\nWEB_CONCURRENCY=5\n")

    assert setting("LOG_LEVEL", tmp_path, ENV_FILE=str(file), LOG_LEVEL="ERROR") == "'ERROR'"
    assert setting("WEB_CONCURRENCY", tmp_path, ENV_FILE=str(file)) == "5"


def test_a_secret_from_a_file_reaches_the_settings(tmp_path):
    file = tmp_path / "key"
    file.write_text(DEPLOYED["SECRET_KEY"] + "\n")
    variables = {name: value for name, value in DEPLOYED.items() if name != "SECRET_KEY"}

    assert setting("SECRET_KEY", tmp_path, **variables, SECRET_KEY_FILE=str(file)) == repr(DEPLOYED["SECRET_KEY"])


def test_the_version_is_the_newest_of_the_changelog(tmp_path):
    newest = re.search(r"^## (\d+\.\d+\.\d+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)

    assert newest is not None
    assert setting("VERSION", tmp_path) == repr(newest.group(1))


@pytest.mark.parametrize(
    ("host", "url", "name"),
    [
        ("127.0.0.2", "http://127.0.0.2:8000", "127.0.0.2"),
        ("::1", "http://[::1]:8000", "[::1]"),
        ("0.0.0.0", "http://127.0.0.1:8000", "127.0.0.1"),
        ("::", "http://[::1]:8000", "[::1]"),
    ],
)
def test_the_console_is_sampled_and_answers_at_the_address_it_listens_on(tmp_path, host, url, name):
    assert setting("SELF_URL", tmp_path, HOST=host) == repr(url)
    assert name in eval(setting("ALLOWED_HOSTS", tmp_path, HOST=host))  # our own output
    assert setting("ALLOWED_HOSTS", tmp_path, HOST=host, ALLOWED_HOSTS="a") == "['a']"


@pytest.mark.parametrize("command", [["manage.py", "check"], ["-m", "pulsewatch.launch"]])
def test_a_settings_module_that_does_not_exist_is_one_sentence(tmp_path, command):
    environment = {"PATH": os.environ["PATH"], "ENV_FILE": "", "DJANGO_SETTINGS_MODULE": "nowhere.settings"}
    result = subprocess.run(
        [sys.executable, *command], env=environment, cwd=ROOT, capture_output=True, text=True, timeout=60
    )

    assert result.returncode == 1
    (sentence,) = result.stderr.splitlines()
    assert sentence.startswith("pulsewatch: DJANGO_SETTINGS_MODULE names a module that cannot be found")


def test_an_env_file_that_is_not_text_is_a_fault_beside_the_others(tmp_path):
    file = tmp_path / "settings.env"
    file.write_bytes(b"LOG_LEVEL=\xff")
    result = start("import pulsewatch.settings", tmp_path, ENV_FILE=str(file), DEBUG="perhaps")

    assert "ENV_FILE: names a file that is not UTF-8 text" in result.stderr
    assert "DEBUG: must be true or false" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("left", ["", " \n"])
def test_an_empty_secret_is_made_anew(tmp_path, left):
    var = tmp_path / "var"
    var.mkdir(mode=0o700)
    (var / "secret_key").write_text(left)
    keys = {setting("SECRET_KEY", tmp_path), setting("SECRET_KEY", tmp_path)}

    assert len(keys) == 1
    assert len(keys.pop()) > 50
    assert (var / "secret_key").stat().st_mode & 0o777 == 0o600
    assert {path.name for path in var.iterdir()} == {"secret_key", "backup_keyset.json"}


def test_a_folder_that_others_may_enter_is_refused_and_keeps_its_rights(tmp_path):
    var = tmp_path / "var"
    var.mkdir()
    var.chmod(0o755)
    result = start("import pulsewatch.settings", tmp_path)

    assert result.returncode == 1
    (sentence,) = result.stderr.splitlines()
    assert sentence.startswith(f"pulsewatch: other users may enter the folder {var}")
    assert sentence.endswith(f"chmod 700 {var}")
    assert var.stat().st_mode & 0o777 == 0o755
    assert not list(var.iterdir())


def test_every_secret_is_hidden_wherever_it_occurs(tmp_path):
    secrets = {
        "BACKUP_KEYSET": "keyset-sesame", "BACKUP_S3_SECRET_KEY": "bucket-sesame",
        "GITHUB_WEBHOOK_SECRET": "github-open-sesame", "ZEABUR_WEBHOOK_SECRET": "zeabur-open-sesame",
        "METRICS_TOKEN": "metrics-open-sesame", "PULSEWATCH_ADMIN_PASSWORD": "admin-sesame",
    }  # fmt: skip
    urls = {"REDIS_URL": "redis://:redis%2Fsesame@h", "CELERY_BROKER_URL": "unix://:broker-sesame@/r.sock"}
    shown = " and ".join([*secrets.values(), "redis/sesame", "broker-sesame"])
    code = f"from pulsewatch import settings; from apps.core.redaction import redact; print(redact({shown!r}))"
    result = start(code, tmp_path, **secrets, **urls)

    assert result.returncode == 0, result.stderr
    assert "sesame" not in result.stdout
    code = "from django.core.management import call_command; call_command('diffsettings', all=True)"
    printed = start(code, tmp_path, DJANGO_SETTINGS_MODULE="pulsewatch.settings", **secrets).stdout
    assert "SCHEDULER_ENABLED" in printed
    assert "admin-sesame" not in printed


def test_sessions_are_kept_in_the_database_alone(tmp_path):
    assert setting("SESSION_ENGINE", tmp_path) == "'django.contrib.sessions.backends.db'"
