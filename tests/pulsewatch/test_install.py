"""The installer in small projects of its own: a copy of install.py, locks of home-made packages, no network."""

import ast
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import psutil
import pytest

from pulsewatch import install
from tests.test_servers import wait_until

SOURCE = Path(install.__file__)
UV = Path(sys.executable).with_name("uv")
# The Python beneath the one that runs the tests: what a newcomer's `python3` is.
PYTHON = getattr(sys, "_base_executable", sys.executable)


class Project:
    """A clone that consists of the installer and its locks, and a shelf with the packages these name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "clone"
        self.shelf = folder / "shelf"
        self.bin = folder / "bin"
        self.home = folder / "home"
        for path in (self.folder / "pulsewatch", self.folder / "requirements", self.shelf, self.bin, self.home):
            path.mkdir(parents=True)
        shutil.copy(SOURCE, self.folder / "pulsewatch")
        for name in ("sh", "cc", "sleep", "touch"):
            (self.bin / name).symlink_to(str(shutil.which(name)))
        (self.bin / "uv").symlink_to(UV)  # it needs a tenth of pip's time
        self.stamp = self.folder / ".venv" / "pulsewatch.json"
        self.write_lock("base", "alpha")

    def write_lock(self, lock: str, *packages: str, version: str = "1.0") -> None:
        """Put packages on the shelf and name them in a lock. Each has one module, which knows its version."""
        lines = []
        for name in packages:
            wheel = self.shelf / f"{name}-{version}-py3-none-any.whl"
            info = f"{name}-{version}.dist-info"
            with zipfile.ZipFile(wheel, "w") as archive:
                archive.writestr(f"{name}.py", f"version = {version!r}\n")
                archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
                archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
                archive.writestr(f"{info}/RECORD", "")
            lines.append(f"{name}=={version} --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}\n")
        (self.folder / "requirements" / f"{lock}.txt").write_text("".join(lines))

    def environment(self, **variables: str) -> dict[str, str]:
        shelf = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(self.shelf), "UV_OFFLINE": "1"}
        uv = {"UV_NO_INDEX": "1", "UV_FIND_LINKS": str(self.shelf)}
        return {"PATH": str(self.bin), "HOME": str(self.home), "LANG": "C.UTF-8", **shelf, **uv, **variables}

    def start(self, *arguments: str, python: str = PYTHON, **variables: str) -> subprocess.Popen[str]:
        """Start the installer as `make` does, from elsewhere."""
        return subprocess.Popen(
            [python, str(self.folder / "pulsewatch" / "install.py"), *arguments],
            cwd="/",
            env=self.environment(**variables),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def install(self, *arguments: str, python: str = PYTHON, **variables: str) -> "Ended":
        """Run the installer to its end."""
        process = self.start(*arguments, python=python, **variables)
        out, err = process.communicate(timeout=60)
        return Ended(process.returncode, out, err)

    def replace(self, name: str, script: str) -> None:
        """Put a shell script on PATH under that name."""
        (self.bin / name).unlink(missing_ok=True)
        (self.bin / name).write_text(f"#!{shutil.which('sh')}\n{script}\n")
        (self.bin / name).chmod(0o755)


class Ended:
    """How a run of the installer ended."""

    def __init__(self, status: int, out: str, err: str) -> None:
        self.status, self.out = status, out
        self.said = err.splitlines()

    def sentence(self) -> str:
        """The one line that a failure may have after the lines that tell what is being done."""
        assert self.status == 1
        told = [line for line in self.said if not line.endswith("...")]
        assert len(told) == 1, self.said
        return told[0]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


VERSION = ("-c", "import sys, alpha; print(sys.prefix, alpha.version)")


def test_it_installs_the_locks_and_becomes_the_command(project: Project) -> None:
    ended = project.install("base", "--", *VERSION)
    assert (ended.status, ended.out) == (0, f"{project.folder}/.venv 1.0\n")
    assert ended.said == ["pulsewatch: Installing 1 package (requirements/base.txt) into .venv ..."]


def test_a_second_start_installs_nothing_and_takes_no_time(project: Project) -> None:
    project.install("base")
    project.replace("uv", "exit 1")
    started = time.monotonic()
    ended = project.install("base", "--", *VERSION)
    assert time.monotonic() - started < 1
    assert (ended.status, ended.out, ended.said) == (0, f"{project.folder}/.venv 1.0\n", [])


def test_pip_does_it_where_there_is_no_uv(project: Project) -> None:
    (project.bin / "uv").unlink()
    ended = project.install("base", "--", *VERSION)
    assert (ended.status, ended.out) == (0, f"{project.folder}/.venv 1.0\n")


def test_pip_does_it_where_uv_fails(project: Project) -> None:
    project.replace("uv", "exit 2")
    assert project.install("base", "--", *VERSION).status == 0


def test_a_python_without_ensurepip_uses_the_pip_on_path(project: Project, tmp_path: Path) -> None:
    (project.bin / "uv").unlink()
    without = hidden("ensurepip", tmp_path)
    assert project.install("base", PYTHONPATH=without).sentence() == (
        "pulsewatch: This Python has no pip. Either: sudo apt install python3-venv, or install uv; then start again."
    )
    project.replace("pip", f'exec {PYTHON} -m pip "$@"')
    ended = project.install("base", "--", *VERSION, PYTHONPATH=without)
    assert (ended.status, ended.out) == (0, f"{project.folder}/.venv 1.0\n")


def hidden(module: str, folder: Path) -> str:
    """A folder for PYTHONPATH with which Python does not find a module of its own library."""
    code = (
        "import sys\nfrom importlib.machinery import PathFinder\n"
        "class Hiding(PathFinder):\n"
        "    @classmethod\n"
        "    def find_spec(cls, name, path=None, target=None):\n"
        f"        return None if name == {module!r} else super().find_spec(name, path, target)\n"
        "sys.meta_path[sys.meta_path.index(PathFinder)] = Hiding\n"
    )
    (folder / "hidden").mkdir()
    (folder / "hidden" / "sitecustomize.py").write_text(code)
    return str(folder / "hidden")


def test_a_changed_lock_is_installed_at_the_next_start(project: Project) -> None:
    project.install("base")
    project.write_lock("base", "alpha", version="2.0")
    assert project.install("base", "--", *VERSION).out == f"{project.folder}/.venv 2.0\n"


def test_locks_are_added_to_what_is_there(project: Project) -> None:
    project.write_lock("dev", "beta")
    project.install("base", "dev")
    before = project.stamp.stat().st_mtime_ns
    assert project.install("base").said == []
    assert project.install("dev", "--", "-c", "import alpha, beta").status == 0
    assert project.stamp.stat().st_mtime_ns == before


def test_an_installation_that_was_killed_is_completed_by_the_next_start(project: Project) -> None:
    project.install("base")
    project.write_lock("base", "alpha", "beta")
    project.replace("uv", f"touch {project.bin}/begun; exec sleep 60")
    killed = project.start("base")
    wait_until((project.bin / "begun").exists)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    shutil.rmtree(project.folder / ".venv" / "lib")  # the worst that may be left
    project.replace("uv", f'exec {UV} "$@"')
    ended = project.install("base", "--", "-c", "import alpha, beta")
    assert ended.status == 0
    assert ended.said[0] == "pulsewatch: Making .venv anew: its installation was interrupted."


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_installer_too(project: Project, number: signal.Signals, status: int) -> None:
    project.replace("uv", "exec sleep 60")
    stopped = project.start("base")
    wait_until(lambda: [child.name() for child in psutil.Process(stopped.pid).children()] == ["sleep"])
    (child,) = psutil.Process(stopped.pid).children()
    stopped.send_signal(number)
    _, err = stopped.communicate(timeout=10)
    assert stopped.returncode == status
    assert not child.is_running()
    assert "Traceback" not in err


def test_a_second_installer_waits_for_the_first_and_has_nothing_left_to_do(project: Project) -> None:
    project.replace("uv", f'touch {project.bin}/begun; sleep 1; exec {UV} "$@"')
    first = project.start("base", "--", *VERSION)
    wait_until((project.bin / "begun").exists)
    second = project.start("base", "--", *VERSION)
    (out_1, err_1), (out_2, err_2) = first.communicate(timeout=60), second.communicate(timeout=60)
    assert (first.returncode, second.returncode) == (0, 0)
    assert out_1 == out_2 == f"{project.folder}/.venv 1.0\n"
    assert "Installing" in err_1
    assert err_2 == "pulsewatch: Another installation is under way in this folder; waiting for it.\n"


def test_an_installer_that_outlives_its_parent_keeps_its_turn(project: Project) -> None:
    project.replace("uv", f'touch {project.bin}/begun; sleep 1; exec {UV} "$@"')
    killed = project.start("base")
    wait_until((project.bin / "begun").exists)
    killed.kill()
    killed.communicate()
    ended = project.install("base", "--", *VERSION)
    assert ended.status == 0
    assert ended.said[0] == "pulsewatch: Another installation is under way in this folder; waiting for it."
    assert ended.said[1] == "pulsewatch: Making .venv anew: its installation was interrupted."


# --- An environment that does not fit ---------------------------------------------------------------------------------
def test_a_clone_that_was_moved_is_installed_anew(project: Project) -> None:
    project.install("base")
    moved = project.folder.with_name("moved")
    project.folder.rename(moved)
    project.folder = moved
    ended = project.install("base", "--", *VERSION)
    assert (ended.status, ended.out) == (0, f"{moved}/.venv 1.0\n")
    assert ended.said[0] == "pulsewatch: Making .venv anew: it was moved, or its Python was replaced."


def test_an_environment_whose_python_has_vanished_is_made_anew(project: Project) -> None:
    project.install("base")
    python = project.folder / ".venv" / "bin" / "python"
    python.unlink()
    python.symlink_to("/nowhere/python3")
    ended = project.install("base", "--", *VERSION)
    assert ended.status == 0
    assert ended.said[0].startswith("pulsewatch: Making .venv anew: it has no Python 3.")


def test_the_installer_run_by_the_python_it_has_to_replace_uses_the_one_beneath(project: Project) -> None:
    project.install("base")
    stamp = json.loads(project.stamp.read_text())
    project.stamp.write_text(json.dumps(stamp | {"finished": False}))
    ended = project.install("base", "--", *VERSION, python=str(project.folder / ".venv" / "bin" / "python"))
    assert (ended.status, ended.out) == (0, f"{project.folder}/.venv 1.0\n")


def test_an_environment_made_by_hand_is_installed_into(project: Project) -> None:
    venv = project.folder / ".venv"
    subprocess.run([PYTHON, "-m", "venv", "--without-pip", venv], check=True)
    (venv / "mine").touch()
    assert project.install("base", "--", *VERSION).status == 0
    assert (venv / "mine").exists()


def test_a_file_in_the_place_of_the_environment_is_left_alone(project: Project) -> None:
    (project.folder / ".venv").write_text("pulsewatch-3.11")
    assert project.install("base").sentence() == (
        f"pulsewatch: {project.folder}/.venv is not a folder, and Pulsewatch installs itself there: move it away and "
        "start again."
    )


def test_an_unwritable_place_is_named(project: Project) -> None:
    (project.folder / ".venv" / "install.log").mkdir(parents=True)
    subprocess.run([PYTHON, "-m", "venv", "--without-pip", project.folder / ".venv"], check=True)
    assert project.install("base").sentence() == (
        f"pulsewatch: Cannot write {project.folder}/.venv/install.log (Is a directory): Pulsewatch installs itself "
        f"into {project.folder}/.venv. Give yourself the right to write there, or put the clone where you have it."
    )


def test_packages_in_use_are_not_exchanged(project: Project) -> None:
    project.install("base")
    sharing = "import sys, time; sys.path.insert(0, 'pulsewatch'); import install; install.keep_installers_out(); "
    running = project.start("base", "--", "-c", sharing + "print(flush=True); time.sleep(60)")
    assert running.stdout
    running.stdout.readline()
    try:
        assert project.install("base", "--", *VERSION).status == 0
        project.write_lock("base", "alpha", version="2.0")
        assert project.install("base").sentence() == (
            "pulsewatch: Pulsewatch runs in this folder and its requirements have changed: stop it, then start again."
        )
    finally:
        running.kill()
        running.communicate()


# --- What cannot be installed -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("with_uv", [True, False])
def test_a_missing_network_is_named_and_what_was_installed_still_works(project: Project, with_uv: bool) -> None:
    project.install("base")
    if not with_uv:
        (project.bin / "uv").unlink()
    lock = project.folder / "requirements" / "base.txt"
    good = lock.read_text()
    lock.write_text(f"{good}beta==1.0 --hash=sha256:{'0' * 64}\n")
    nowhere = "http://127.0.0.1:1/simple"
    away = {"PIP_NO_INDEX": "0", "PIP_INDEX_URL": nowhere, "UV_NO_INDEX": "0", "UV_OFFLINE": "0"}
    ended = project.install("base", **away, UV_INDEX_URL=nowhere, UV_HTTP_RETRIES="0", PIP_RETRIES="0")
    assert ended.sentence() == (
        "pulsewatch: The package index cannot be reached: check the network (or the proxy), then start again."
    )
    lock.write_text(good)
    ended = project.install("base", "--", *VERSION)
    assert (ended.status, ended.said) == (0, [])


def test_a_package_with_another_hash_is_refused(project: Project) -> None:
    with (project.shelf / "alpha-1.0-py3-none-any.whl").open("ab") as wheel:
        wheel.write(b"more")
    assert project.install("base").sentence() == (
        "pulsewatch: A package is not the one that requirements/base.txt was made with; see "
        f"{project.folder}/.venv/install.log. Do not go on with it."
    )


def test_a_package_that_is_nowhere_leads_to_the_log(project: Project) -> None:
    (project.shelf / "alpha-1.0-py3-none-any.whl").unlink()
    assert project.install("base").sentence() == (
        "pulsewatch: The packages of requirements/base.txt cannot be installed; what the installer said is in "
        f"{project.folder}/.venv/install.log."
    )
    assert "alpha" in (project.folder / ".venv" / "install.log").read_text()


def test_a_package_without_a_hash_is_refused(project: Project) -> None:
    (project.folder / "requirements" / "base.txt").write_text("alpha==1.0\n")
    project.install("base").sentence()
    assert not list(project.folder.glob(".venv/lib/*/site-packages/alpha*"))


def test_an_installer_that_fails_halfway_makes_the_next_start_begin_anew(project: Project) -> None:
    project.install("base")
    good = (project.folder / "requirements" / "base.txt").read_text()
    project.write_lock("base", "alpha", "beta")
    (project.shelf / "beta-1.0-py3-none-any.whl").unlink()
    project.replace("uv", "cd .venv/lib/python*/site-packages && touch half; exit 1")
    project.install("base").sentence()
    (project.folder / "requirements" / "base.txt").write_text(good)
    project.replace("uv", f'exec {UV} "$@"')
    ended = project.install("base", "--", *VERSION)
    assert ended.status == 0
    assert ended.said[0] == "pulsewatch: Making .venv anew: its installation was interrupted."


def test_a_full_disk_is_named() -> None:
    said = "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device"
    assert install.diagnosis("base", said).startswith("The disk that holds ")


# --- MySQL ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("variables", "wanted"),
    [
        ({}, False),
        ({"DATABASE_URL": "mysql://a:b@db/c"}, True),
        ({"DATABASE_URL": "sqlite:////tmp/db"}, False),
        ({"DATABASE_URL": "sqlite:////tmp/db", "MYSQL_HOST": "db"}, False),
        ({"MYSQL_HOST": "db"}, True),
        ({"MYSQL_HOST": ""}, False),
        ({"MYSQL_PASSWORD_FILE": "/run/secrets/password"}, True),
    ],
)
def test_mysql_is_configured_by_the_rules_of_the_settings(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variables: dict[str, str], wanted: bool
) -> None:
    monkeypatch.setattr(install, "BASE", tmp_path)
    monkeypatch.setattr(os, "environ", variables)
    assert install.mysql_is_configured() is wanted


@pytest.mark.parametrize(
    "line", ["DATABASE_URL=mysql://a:b@db/c", " export DATABASE_URL = 'mysql://a:b@db/c' ", "MYSQL_USER=a"]
)
def test_the_env_file_counts_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, line: str) -> None:
    (tmp_path / ".env").write_text(f"# settings\n\n{line}\n")
    monkeypatch.setattr(install, "BASE", tmp_path)
    monkeypatch.setattr(os, "environ", {})
    assert install.mysql_is_configured()
    monkeypatch.setattr(os, "environ", {"DATABASE_URL": "sqlite:////tmp/db"})
    assert not install.mysql_is_configured()
    monkeypatch.setattr(os, "environ", {"ENV_FILE": ""})
    assert not install.mysql_is_configured()


def test_a_database_url_in_a_file_counts_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "url").write_text("mysql://a:b@db/c\n")
    monkeypatch.setattr(install, "BASE", tmp_path)
    monkeypatch.setattr(os, "environ", {"DATABASE_URL_FILE": str(tmp_path / "url")})
    assert install.mysql_is_configured()
    monkeypatch.setattr(os, "environ", {"DATABASE_URL_FILE": str(tmp_path / "missing")})
    assert not install.mysql_is_configured()


def test_the_driver_of_mysql_is_installed_only_when_it_is_needed(project: Project) -> None:
    project.write_lock("mysql", "gamma")
    assert project.install("base", "--", "-c", "import gamma").status == 1
    assert project.install("base", "--", "-c", "import gamma", MYSQL_HOST="db").status == 0


def test_what_the_driver_of_mysql_lacks_is_named_and_the_rest_stays_installed(project: Project) -> None:
    project.install("base")
    lock = project.folder / "requirements" / "mysql.txt"
    lock.write_text(f"mysqlclient==1.0 --hash=sha256:{'0' * 64}\n")
    project.replace("gcc", "exit 0")
    assert project.install("base", MYSQL_HOST="db").sentence() == (
        "pulsewatch: The database is MySQL, whose driver has to be compiled, and this is missing: pkg-config, "
        "libmariadb-dev. Install it: sudo apt install pkg-config libmariadb-dev"
    )
    assert project.install("base", "--", *VERSION).said == []


# --- The way to the command -------------------------------------------------------------------------------------------
def test_the_password_reaches_the_command_but_no_list_of_processes(project: Project) -> None:
    show = (
        "import os; print(open('/proc/self/environ').read().count('Secr3t'), 'PULSEWATCH_ADMIN_PASSWORD' in os.environ,"
        "*(open(os.environ['PULSEWATCH_ADMIN_PASSWORD_FILE']).read() for _ in range(2)))"
    )
    ended = project.install("base", "--", "-c", show, PULSEWATCH_ADMIN_PASSWORD="Secr3t-phrase")
    assert ended.out == "0 False Secr3t-phrase Secr3t-phrase\n"


# --- Python -----------------------------------------------------------------------------------------------------------
# The file as a Python 3.9 would run it.
AS_OLD = (
    "import runpy, sys; sys.version_info = (3, 9, 2); sys.argv = sys.argv[1:]; "
    "runpy.run_path(sys.argv[0], run_name='__main__')"
)


def test_an_old_python_can_parse_the_file() -> None:
    ast.parse(SOURCE.read_text(), feature_version=(3, 6))


def test_an_old_python_is_told_apart_and_the_remedy_named(project: Project) -> None:
    old = [PYTHON, "-c", AS_OLD, str(project.folder / "pulsewatch" / "install.py"), "base"]
    for name in ("python3.13", "python3.12", "python3.11"):
        project.replace(name, "exit 127")  # what a version manager leaves on PATH
    ended = subprocess.run(old, env=project.environment(), capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert ended.stderr == (
        f"pulsewatch: Python 3.9.2 ({PYTHON}) is too old: Pulsewatch needs 3.11 or newer. Install one and name it, for "
        "example: make run PYTHON=python3.12\n"
    )
    assert not (project.folder / ".venv").exists()


def test_an_old_python_steps_aside_for_a_newer_one_on_path(project: Project) -> None:
    old = [PYTHON, "-c", AS_OLD, str(project.folder / "pulsewatch" / "install.py"), "base", "--", *VERSION]
    project.replace("python3.13", "exit 127")
    project.replace("python3.12", f'exec {PYTHON} "$@"')
    ended = subprocess.run(old, env=project.environment(), capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (0, f"{project.folder}/.venv 1.0\n")
