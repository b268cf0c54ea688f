"""The image's roles run for real, without Docker: as process 1, as its user, on a root that is read-only but for /tmp.

What the files themselves say is tested in test_shipping.py.
"""

import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis

from tests.servers import MariaDB, Redis, free_port
from tests.servers.packages import program

ROOT = Path(__file__).parent.parent
DOCKERFILE = (ROOT / "docker/Dockerfile").read_text()
USER = re.findall(r"^USER (\d+):(\d+)$", DOCKERFILE, re.MULTILINE)[-1]
ENTRYPOINT: list[str] = json.loads(re.findall(r"^ENTRYPOINT (\[.*\])$", DOCKERFILE, re.MULTILINE)[-1])
HEALTHCHECK: list[str] = json.loads(re.findall(r"^HEALTHCHECK .*CMD (\[.*\])$", DOCKERFILE, re.MULTILINE)[-1])
STAGE = DOCKERFILE.rpartition("\nFROM ")[2]
ENV = dict(re.findall(r'\b([A-Z_]+)="?([^\s"\\]*)"?', STAGE.partition("\nENV ")[2].partition("\nWORKDIR")[0]))

START_SECONDS = 30  # until a role does its work; 2 to 5 s on an idle machine
DOCKER_KILLS_AFTER = 10  # seconds after TERM, Docker's own default

# As in Docker: no user but the image's, no capability, no way to gain one.
UNPRIVILEGED = [
    *("setpriv", f"--reuid={USER[0]}", f"--regid={USER[1]}", "--clear-groups"),
    *("--no-new-privs", "--inh-caps=-all", "--bounding-set=-all", "--"),
]
# $1 is an empty folder, $2 the project, $3 the virtual environment, which the image has in /opt/venv: its own place may
# be hidden below /tmp. The other arguments up to `--` are folders seen at their own place.
SCRIPT = """
root=$1 project=$2 environment=$3; shift 3
mount -t tmpfs -o mode=755 root "$root"
cd "$root"
mkdir -p app dev opt/venv proc tmp
while [ "$1" != -- ]; do
    mkdir -p ".$1"; mount --rbind "$1" ".$1"; mount -o remount,bind,ro ".$1"; shift
done; shift
mount --bind "$project" app; mount -o remount,bind,ro app
mount --bind "$environment" opt/venv; mount -o remount,bind,ro opt/venv
for name in bin lib lib64 sbin; do
    if [ -L "/$name" ]; then ln -s "$(readlink "/$name")" "$name"; fi
done
mount --rbind /dev dev
mount -t proc proc proc
mount -t tmpfs -o mode=1777,nosuid,nodev,noexec tmp tmp
mount -o remount,ro "$root"
exec chroot . sh -c 'cd /app && exec "$@"' sh "$@"
"""


def obstacle() -> str:
    """Why this machine cannot set up such a root; empty when it can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "needs Linux and root, to mount a read-only root in a namespace"
    trial = ["unshare", "--mount", "--pid", "--fork", "mount", "-t", "tmpfs", "tmpfs", "/tmp"]
    if not shutil.which("unshare") or subprocess.run(trial, capture_output=True, check=False).returncode:
        return "this machine (a container?) does not allow mount namespaces"
    return ""


OBSTACLE = obstacle()
pytestmark = pytest.mark.skipif(bool(OBSTACLE), reason=OBSTACLE)


def children(pid: int) -> list[int]:
    """The processes that a process of one thread has started."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@dataclass(frozen=True, slots=True)
class Container:
    """A running role."""

    process: subprocess.Popen[bytes]
    environment: dict[str, str]
    log: Path

    @property
    def init(self) -> int:
        """Process 1 of the container, as this machine counts, once the entrypoint runs in its new root."""

        def runs() -> bool:
            roots = [Path(f"/proc/{child}/root") for child in children(self.process.pid)]
            return any((root / "app/docker").exists() and (root / "tmp/pulsewatch-role").exists() for root in roots)

        self.wait(runs)
        return children(self.process.pid)[0]

    def execute(self, *command: str, as_root: bool = False, **more: str) -> subprocess.CompletedProcess[str]:
        """`docker exec`: run a command beside the role."""
        return subprocess.run(
            [
                *("nsenter", f"--target={self.init}", "--mount", "--pid", "--root", "--wd"),
                *([] if as_root else UNPRIVILEGED),
                *command,
            ],
            env={**self.environment, **more},
            capture_output=True,
            text=True,
            timeout=START_SECONDS,
            check=False,
        )

    def healthy(self, **more: str) -> bool:
        """What Docker would find out."""
        return self.execute(*HEALTHCHECK, **more).returncode == 0

    def wait(self, condition: Callable[[], bool]) -> None:
        """Return as soon as the condition holds."""
        deadline = time.monotonic() + START_SECONDS
        while not condition():
            assert self.process.poll() is None, f"ended with {self.process.returncode}:\n{self.log.read_text()}"
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.05)

    def stop(self) -> int:
        """`docker stop`: the exit status after TERM. Fails where Docker would lose patience and kill."""
        os.kill(self.init, signal.SIGTERM)
        return self.process.wait(DOCKER_KILLS_AFTER)


@contextmanager
def started(folder: Path, *arguments: str, **environment: str) -> Iterator[Container]:
    """`docker run`: a role until the end of the block."""
    assert program("tini", "tini") == ENTRYPOINT[0]
    (folder / "root").mkdir(parents=True)
    virtual_environment = {**ENV, "PATH": "/opt/venv/bin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
    container_environment = {**virtual_environment, "HOST": "127.0.0.1", "LANG": "C.UTF-8", **environment}
    folders = [path for path in ("/usr", "/etc", sys.base_prefix) if Path(path).is_dir()]
    command = ["unshare", "--mount", "--pid", "--fork", "--kill-child=KILL", "/bin/sh", "-euc", SCRIPT, "sh"]
    command += [str(folder / "root"), str(ROOT), sys.prefix, *folders, "--", *UNPRIVILEGED, *ENTRYPOINT, *arguments]
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env=container_environment, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        yield Container(process, container_environment, log)
    finally:
        # Its process 1 takes all of it along. `--kill-child` does not: the kernel forgets that wish when the
        # role gives up root.
        for init in children(process.pid) if process.poll() is None else ():
            os.kill(init, signal.SIGKILL)
        process.kill()
        process.wait()


def finished(folder: Path, *arguments: str, **environment: str) -> tuple[int, str]:
    """Exit status and output of a container that ends by itself."""
    with started(folder, *arguments, **environment) as container:
        return container.process.wait(START_SECONDS * 2), container.log.read_text()


@pytest.fixture(scope="module")
def settings_of_production(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A database that the role `prepare` has made ready, a Redis, a secret: all that a role needs."""
    with MariaDB() as database, Redis() as broker:
        variables = {
            "SECRET_KEY": secrets.token_urlsafe(50),
            "DATABASE_URL": database.url,
            "REDIS_URL": broker.url,
            "PORT": str(free_port()),
        }
        status, output = finished(tmp_path_factory.mktemp("prepare"), "prepare", **variables)
        assert status == 0, output
        assert "The database is ready." in output
        yield variables


def test_without_settings_every_role_names_what_is_missing_and_exits_with_1(tmp_path: Path) -> None:
    for role in ((), ("worker-fast",), ("worker-long",), ("beat",), ("prepare",)):
        status, output = finished(tmp_path / "-".join(("role", *role)), *role)
        assert status == 1, output
        assert "SECRET_KEY: is required" in output
        assert "REDIS_URL: is required" in output
        assert "Traceback" not in output


def test_the_web_role_serves_and_ends_within_ten_seconds_of_term(
    tmp_path: Path, settings_of_production: dict[str, str]
) -> None:
    with started(tmp_path, **settings_of_production) as web:
        web.wait(web.healthy)
        get = "import sys, urllib.request as u; print(u.urlopen(sys.argv[1]).status)"
        ready = web.execute("python", "-c", get, f"http://127.0.0.1:{settings_of_production['PORT']}/ready")
        assert ready.stdout == "200\n", ready.stderr + web.log.read_text()
        assert not web.healthy(PORT=str(free_port())), "a web server that does not answer is not healthy"
        assert web.stop() == 0


@pytest.mark.parametrize("queue", ["fast", "long"])
def test_a_worker_takes_from_its_queue_and_ends_the_task_it_runs_before_it_ends_on_term(
    tmp_path: Path, settings_of_production: dict[str, str], queue: str
) -> None:
    # While the database is frozen the task cannot end. A database of its own, as the other tests need theirs.
    with MariaDB() as database, Redis() as broker:
        variables = {**settings_of_production, "DATABASE_URL": database.url, "REDIS_URL": broker.url}
        messages = redis.Redis.from_url(broker.url)
        with started(tmp_path, f"worker-{queue}", **variables) as worker:
            worker.wait(lambda: f"{queue}@" in worker.log.read_text())
            database.freeze()
            worker.execute("python", "-m", "celery", "--app", "pulsewatch", "call", "health.sample", "--queue", queue)
            worker.wait(lambda: messages.hlen("unacked") == 1)
            os.kill(worker.init, signal.SIGTERM)
            worker.wait(lambda: "Warm shutdown" in worker.log.read_text())
            assert messages.hlen("unacked") == 1
            database.thaw()
            assert worker.process.wait(DOCKER_KILLS_AFTER) == 0
        assert messages.hlen("unacked") == messages.llen(queue) == 0
        messages.close()


def test_a_worker_is_healthy_until_it_hangs(tmp_path: Path, settings_of_production: dict[str, str]) -> None:
    with started(tmp_path, "worker-long", **settings_of_production) as worker:
        worker.wait(lambda: "long@" in worker.log.read_text())
        assert worker.healthy()
        (main,) = children(worker.init)  # of tini
        os.kill(main, signal.SIGSTOP)
        assert not worker.healthy()
        os.kill(main, signal.SIGCONT)
        assert worker.stop() == 0


def test_beat_keeps_its_schedule_in_the_temporary_folder_and_ends_on_term(
    tmp_path: Path, settings_of_production: dict[str, str]
) -> None:
    def has_schedule() -> bool:
        return "celerybeat-schedule" in beat.execute("ls", ENV["VAR_DIR"]).stdout

    with started(tmp_path, "beat", **settings_of_production) as beat:
        beat.wait(has_schedule)
        assert beat.healthy()
        assert beat.stop() == 0


def test_any_command_of_manage_py_runs_and_ends_at_once_on_term(
    tmp_path: Path, settings_of_production: dict[str, str]
) -> None:
    # Python leaves TERM alone, and the kernel keeps it from a process 1 that does so: tini has to be in between.
    waiting = "import time; print('up', flush=True); time.sleep(600)"
    with started(tmp_path, "shell", "--no-imports", "--command", waiting, **settings_of_production) as command:
        command.wait(lambda: "up" in command.log.read_text())
        assert command.stop() == 128 + signal.SIGTERM


def test_nothing_but_the_temporary_folder_can_be_written_even_by_root(
    tmp_path: Path, settings_of_production: dict[str, str]
) -> None:
    places: Sequence[str] = ("/", "/app", "/etc", "/usr", "/tmp")
    with started(tmp_path, "beat", **settings_of_production) as container:
        tried = {place: container.execute("touch", f"{place}/x", as_root=True) for place in places}
        assert {place for place, touch in tried.items() if touch.returncode == 0} == {"/tmp"}
        assert "Read-only file system" in tried["/app"].stderr
        identity = container.execute("sh", "-c", "id -u; grep -E 'CapEff|CapBnd|NoNewPrivs' /proc/self/status").stdout
        assert int(USER[0]) > 0
        assert identity.split() == [USER[0], "CapEff:", "0" * 16, "CapBnd:", "0" * 16, "NoNewPrivs:", "1"]
