"""The private servers themselves: what tests rely on when they stop, freeze and kill them."""

import os
import re
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import MySQLdb
import psutil
import pytest
import redis

from tests.servers import MariaDB, MySQL, Redis, ServerError, free_port, packages, process
from tests.servers.__main__ import main as servers_command

Database = MariaDB | MySQL
NO_ANSWER = (MySQLdb.OperationalError, redis.ConnectionError, redis.TimeoutError)
PATIENCE_SECONDS = 60  # a bound for a failure only: on a busy machine a Python takes ten seconds to start


@pytest.fixture(params=[pytest.param("private_database", marks=pytest.mark.engine), "redis_server"])
def server(request: pytest.FixtureRequest) -> Database | Redis:
    started: Database | Redis = request.getfixturevalue(request.param)
    return started


def connect(database: Database, **changes: object) -> "closing[MySQLdb.Connection]":
    url = urlsplit(database.url)
    options: dict[str, object] = {
        "host": url.hostname,
        "port": url.port,
        "user": url.username,
        "password": url.password,
        "database": url.path.strip("/"),
        "connect_timeout": 1,
        "read_timeout": 1,
        "autocommit": True,
    }
    return closing(MySQLdb.connect(**options | changes))


def query(database: Database, *statements: str) -> list[tuple[object, ...]]:
    """The rows of the last statement, on a new connection."""
    with connect(database) as connection, closing(connection.cursor()) as cursor:
        for statement in statements:
            cursor.execute(statement)
        return list(cursor.fetchall())


def write(server: Database | Redis, text: str) -> None:
    if isinstance(server, Redis):
        with redis.Redis.from_url(server.url, socket_timeout=1) as client:
            client.set("note", text)
    else:
        query(server, "CREATE TABLE IF NOT EXISTS note (text TEXT)", f"INSERT INTO note VALUES ('{text}')")


def read(server: Database | Redis) -> str:
    if isinstance(server, Redis):
        with redis.Redis.from_url(server.url, socket_timeout=1, retry=None, decode_responses=True) as client:
            return str(client.get("note"))
    return str(query(server, "SELECT text FROM note")[0][0])


def is_gone(pid: int) -> bool:
    """Whether a process has ended; one that its parent has not yet buried has."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def wait_until(condition: Callable[[], bool], seconds: float = PATIENCE_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


# --- Starting and ending ----------------------------------------------------------------------------------------------


def test_a_killed_server_refuses_and_returns_at_the_same_url_with_its_data(server: Database | Redis) -> None:
    write(server, "before")
    url, pid = server.url, server.pid
    server.kill()
    assert is_gone(pid)
    with pytest.raises(NO_ANSWER):
        read(server)
    server.start()
    assert (server.url, read(server)) == (url, "before")
    assert server.pid != pid


def test_a_restarted_server_keeps_its_url_and_its_data(server: Database | Redis) -> None:
    write(server, "before")
    url, pid = server.url, server.pid
    server.restart()
    assert (server.url, read(server)) == (url, "before")
    assert server.pid != pid


def test_a_clean_stop_can_keep_the_data_for_the_next_start(server: Database | Redis) -> None:
    write(server, "before")
    server.stop(keep_data=True)
    assert not server.running
    assert server.folder.exists()
    server.start()
    assert read(server) == "before"


def test_a_frozen_server_keeps_its_process_and_answers_only_when_thawed(server: Database | Redis) -> None:
    write(server, "before")
    server.freeze()
    assert server.running
    assert psutil.Process(server.pid).status() == psutil.STATUS_STOPPED
    with pytest.raises(NO_ANSWER):
        read(server)
    server.thaw()
    assert read(server) == "before"


def test_stopping_a_frozen_server_ends_it_cleanly_and_leaves_neither_process_nor_folder(
    server: Database | Redis,
) -> None:
    pid = server.pid
    server.freeze()
    server.stop(keep_data=True)
    assert is_gone(pid)
    assert re.search("Shutdown complete|bye bye", server.log.read_text())
    server.stop()
    assert not server.folder.exists()
    with pytest.raises(RuntimeError, match="is not running"):
        _ = server.pid


def test_leaving_the_block_of_a_frozen_server_leaves_neither_process_nor_folder() -> None:
    with Redis() as server:
        pid = server.pid
        server.freeze()
    assert is_gone(pid)
    assert not server.folder.exists()


def test_a_server_stopped_for_good_starts_empty_at_the_same_url(redis_server: Redis) -> None:
    write(redis_server, "before")
    url = redis_server.url
    redis_server.stop()
    redis_server.start()
    assert (redis_server.url, read(redis_server)) == (url, "None")


def test_a_started_server_is_not_started_twice(redis_server: Redis) -> None:
    pid = redis_server.pid
    assert redis_server.start().pid == pid


@pytest.mark.parametrize("kind", [MariaDB, Redis])
def test_a_server_that_cannot_start_says_why_and_leaves_nothing(kind: type[MariaDB | Redis]) -> None:
    broken = kind("--no-such-option", "1")
    with pytest.raises(ServerError, match=f"(?s){kind.name} ended with status .* when it was started.*no-such-option"):
        broken.start()
    assert not broken.running
    assert not broken.folder.exists()


def test_a_stranger_on_the_port_is_not_taken_for_the_server(redis_server: Redis) -> None:
    impostor = Redis()
    impostor.port = redis_server.port
    with pytest.raises(ServerError, match="Address already in use"):
        impostor.start()


@contextmanager
def owner_of_a_redis() -> "Iterator[tuple[subprocess.Popen[str], int, Path]]":
    """A process with a run of its own, the id of its Redis, and the folder of its run. It ends with its input."""
    script = """
from tests.servers import Redis
server = Redis().start()
print(server.pid, server.folder.parent, flush=True)
input()
"""
    environment = {name: value for name, value in os.environ.items() if name != process.RUN_FOLDER_VARIABLE}
    with subprocess.Popen(
        [sys.executable, "-c", script], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout
        pid, folder = owner.stdout.readline().split()
        yield owner, int(pid), Path(folder)


def test_an_owner_that_ends_takes_its_servers_and_its_folder_along() -> None:
    with owner_of_a_redis() as (owner, pid, folder):
        assert not is_gone(pid)
        owner.communicate("\n")
    wait_until(lambda: is_gone(pid))
    assert not folder.exists()


def test_an_owner_that_is_killed_takes_its_servers_along_and_the_next_one_clears_its_folder() -> None:
    with owner_of_a_redis() as (killed, pid, folder):
        killed.kill()
    wait_until(lambda: is_gone(pid))
    with owner_of_a_redis() as (living, _, folder_in_use):
        assert not folder.exists()
        with owner_of_a_redis() as (another, _, _):
            assert folder_in_use.exists()
            another.communicate("\n")
        living.communicate("\n")


# --- What a stranger on the machine sees ------------------------------------------------------------------------------


def test_a_server_listens_on_loopback_only(server: Database | Redis) -> None:
    sockets = psutil.Process(server.pid).net_connections(kind="inet")
    assert {entry.laddr for entry in sockets if entry.status == psutil.CONN_LISTEN} == {("127.0.0.1", server.port)}


def test_a_folder_is_closed_to_other_users(server: Database | Redis) -> None:
    assert stat.S_IMODE(server.folder.stat().st_mode) == 0o700


@pytest.mark.engine
def test_the_password_is_in_no_command_line(private_database: Database) -> None:
    password = urlsplit(private_database.url).password
    assert password
    assert shows(password) == set()
    script = "print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", script, password], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as careless:
        assert careless.stdout
        careless.stdout.readline()
        assert shows(password) == {careless.pid}
        careless.kill()


def shows(text: str) -> set[int]:
    """The processes whose command line, as everyone can read it, holds the text."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if text.encode() in path.read_bytes():
                found.add(int(path.parent.name))
        except OSError:  # the process has ended meanwhile
            continue
    return found


@pytest.mark.engine
def test_nobody_enters_without_the_password(private_database: Database) -> None:
    for user in ("root", "", "mysql", "pulsewatch"):
        with pytest.raises(MySQLdb.OperationalError, match=r"denied|locked"):
            connect(private_database, user=user, password="")


# --- The engines ------------------------------------------------------------------------------------------------------


@pytest.mark.engine
def test_the_engine_is_the_one_asked_for(private_database: Database, pytestconfig: pytest.Config) -> None:
    [(version, charset)] = query(private_database, "SELECT VERSION(), @@character_set_server")
    assert charset == "utf8mb4"
    assert ("MariaDB" in str(version)) == isinstance(private_database, MariaDB)
    if isinstance(private_database, MySQL):
        assert int(str(version).split(".")[0]) >= 8
        assert query(private_database, "SELECT @@server_uuid")  # MariaDB has none


@pytest.mark.engine
def test_the_user_may_make_and_drop_databases_and_users(private_database: Database) -> None:
    query(
        private_database,
        "CREATE DATABASE test_pulsewatch_gw0",
        "CREATE USER reader@'%' IDENTIFIED BY 'a password of its own'",
        "GRANT SELECT ON test_pulsewatch_gw0.* TO reader@'%'",
        "DROP DATABASE test_pulsewatch_gw0",
    )
    private_database.restart()
    assert query(private_database, "SELECT COUNT(*) FROM mysql.user WHERE user = 'reader'") == [(1,)]


def test_options_reach_the_server() -> None:
    with MariaDB("--log-bin=binlog", "--server-id=7") as server:
        assert query(server, "SELECT @@log_bin, @@server_id") == [(1, 7)]


def test_redis_is_redis_and_has_a_database_for_every_worker(redis_server: Redis) -> None:
    with redis.Redis.from_url(redis_server.url) as client:
        facts = client.info("server")
        assert "redis_version" in facts
        assert not [name for name in facts if "valkey" in name]
        assert client.config_get("databases") == {"databases": "256"}


# --- Ports and folders ------------------------------------------------------------------------------------------------


def test_a_free_port_can_be_bound_and_is_none_the_kernel_lends_out() -> None:
    port = free_port()
    assert 10_000 <= port < 32_768
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", port))


def test_a_taken_port_is_never_given(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as listener:
        taken, free = free_port(), free_port()
        listener.bind(("127.0.0.1", taken))
        answers = iter([taken, taken, free])
        monkeypatch.setattr(process._random, "randrange", lambda *bounds: next(answers))
        assert free_port() == free


def test_servers_need_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "ROOM_BYTES", 1 << 60)
    with pytest.raises(ServerError, match="GiB free"):
        process._base_folder()


# --- Packages ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def fake_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of programs that is the whole PATH. Each program adds its command line to `calls`."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    fake(tmp_path, "env", 'shift; exec "$@"')
    fake(tmp_path, "dpkg-query", "[ -e $0.installed ] && echo one installed; echo two config-files")
    fake(
        tmp_path,
        "apt-get",
        "case $1 in update) : > $0.lists;; install) [ -e $0.lists ] && : > ${0%/*}/dpkg-query.installed;; esac",
    )
    (tmp_path / "calls").touch()
    return tmp_path


def fake(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f'#!/bin/sh\necho "${{0##*/}} $*" >> {folder}/calls\n{script}\n')
    path.chmod(0o755)


def calls(system: Path, program: str) -> list[str]:
    return [line for line in (system / "calls").read_text().splitlines() if line.startswith(program)]


INSTALL_ONE = "apt-get install --yes --quiet --no-install-recommends --no-remove one"


def test_what_is_installed_is_left_alone(fake_system: Path) -> None:
    (fake_system / "dpkg-query.installed").touch()
    packages.ensure_installed("one")
    assert calls(fake_system, "apt-get") == []
    packages.ensure_installed("one", "two")  # of which only the configuration is left
    assert calls(fake_system, "apt-get")[0] == INSTALL_ONE.removesuffix("one") + "two"


def test_what_another_process_installs_meanwhile_is_not_installed_again(
    fake_system: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def wait_for_the_other(lock: Path) -> Iterator[None]:
        (fake_system / "dpkg-query.installed").touch()
        yield

    monkeypatch.setattr(packages, "locked", wait_for_the_other)
    packages.ensure_installed("one")
    assert calls(fake_system, "apt-get") == []


def test_what_is_missing_is_installed_with_fresh_lists_only_when_the_present_ones_fail(fake_system: Path) -> None:
    packages.ensure_installed("one")
    assert calls(fake_system, "apt-get") == [INSTALL_ONE, "apt-get update --quiet", INSTALL_ONE]
    (fake_system / "dpkg-query.installed").unlink()
    packages.ensure_installed("one")
    assert calls(fake_system, "apt-get")[3:] == [INSTALL_ONE]


def test_an_ordinary_user_installs_through_sudo(fake_system: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    fake(fake_system, "sudo", 'shift; exec "$@"')
    (fake_system / "true").symlink_to("/bin/true")
    packages.ensure_installed("one")
    assert calls(fake_system, "sudo")[1] == f"sudo -n env DEBIAN_FRONTEND=noninteractive {INSTALL_ONE}"


@pytest.mark.parametrize("sudo", [None, "echo sudo: a password is required; exit 1"])
def test_who_may_not_install_is_told_the_command(
    fake_system: Path, monkeypatch: pytest.MonkeyPatch, sudo: str | None
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    if sudo:
        fake(fake_system, "sudo", sudo)
    with pytest.raises(ServerError, match=f"sudo {INSTALL_ONE}$"):
        packages.ensure_installed("one")
    assert calls(fake_system, "apt-get") == []


def test_a_failed_installation_shows_the_command_and_what_apt_said(fake_system: Path) -> None:
    fake(fake_system, "apt-get", "echo E: the mirror is gone >&2; exit 100")
    with pytest.raises(ServerError, match=f"(?s)sudo {INSTALL_ONE}\n.*E: the mirror is gone"):
        packages.ensure_installed("one")


def test_a_system_without_apt_is_told_what_is_needed(fake_system: Path) -> None:
    (fake_system / "apt-get").unlink()
    (fake_system / "dpkg-query").unlink()
    with pytest.raises(ServerError, match=r"no apt-get\. .* one, two\."):
        packages.ensure_installed("one", "two")


def test_a_missing_program_brings_its_packages_and_is_named_when_they_lack_it(fake_system: Path) -> None:
    with pytest.raises(ServerError, match="no-such-program is not on this machine, although one is installed"):
        packages.program("no-such-program", "one")
    assert calls(fake_system, "apt-get")[-1] == INSTALL_ONE


def test_the_install_command_installs_everything_the_suite_needs(
    fake_system: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert servers_command(["install"]) == 0
    asked = calls(fake_system, "apt-get")[-1].split()
    assert {"mariadb-server-core", "redis-tools", "chromium", "libmariadb-dev"} <= set(asked)
    fake(fake_system, "apt-get", "exit 100")
    assert servers_command(["install"]) == 1
    assert "sudo apt-get install" in capsys.readouterr().err
    assert servers_command(["remove"]) == 2
