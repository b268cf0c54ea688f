"""A real Docker engine in namespaces of its own: it shares neither network, processes nor mounts with the machine.

Debian's packages are unpacked beside the system, as its MySQL is, so no service is installed or started.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from tests.servers.packages import APT_SECONDS, ServerError, cache_folder, checked, locked, program, run, tail

PACKAGES = (
    "docker.io",
    "containerd",
    "runc",
    "iptables",
    "libnftnl11",
    "libnetfilter-conntrack3",
    "libdevmapper1.02.1",
)
START_SECONDS = 30  # it takes half a second
NAMESPACES = ("--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
CGROUPS = Path("/sys/fs/cgroup")


def unavailable_reason() -> str:
    """Why no engine can be started here; empty where one can."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        return "only root on Linux may start a Docker engine"
    if shutil.which("unshare") is None or run(["unshare", *NAMESPACES, "true"]).returncode != 0:
        return "namespaces cannot be made here"
    try:
        engine_root()
    except ServerError as error:
        return f"Debian's docker.io cannot be had: {error}"
    return ""


@cache
def engine_root() -> Path:
    """The root folder of an unpacked engine, downloaded at first need: about 6 s, 66 MB fetched, 240 MB kept."""
    folder = cache_folder()
    root = folder / "docker"
    with locked(folder / "docker.lock"):
        if root.exists():
            return root
        with tempfile.TemporaryDirectory(dir=folder, prefix="engine-") as draft:
            archives = Path(draft, "archives")
            archives.mkdir()
            checked(["sh", "-c", 'cd "$0" && exec apt-get download --quiet "$@"', archives, *PACKAGES],
                    seconds=APT_SECONDS)  # fmt: skip
            for archive in sorted(archives.glob("*.deb")):
                checked(["dpkg-deb", "--extract", archive, Path(draft, "root")])
            Path(draft, "root").rename(root)
            return root


@contextmanager
def docker_engine(folder: Path) -> Iterator[Path]:
    """The socket of an engine whose data lies in the folder; it and all its containers end with the block."""
    root = engine_root()
    socket, log = folder / "docker.sock", folder / "docker.log"
    parent = f"pulsewatch-tests-{os.getpid()}"
    script = (
        "ip link set lo up && exec dockerd --iptables=false --ip6tables=false --bridge=none --storage-driver=vfs "
        '--cgroup-parent="/$0" --data-root="$1/data" --exec-root="$1/exec" --pidfile="$1/pid" --host="unix://$1/docker.sock"'
    )
    environment = {
        "PATH": f"{root}/usr/bin:{root}/usr/sbin:{root}/sbin:{os.environ['PATH']}:/usr/sbin:/sbin",
        "LD_LIBRARY_PATH": ":".join(map(str, root.glob("usr/lib/*-linux-gnu"))),
    }
    command = ["unshare", *NAMESPACES, "sh", "-c", script, parent, str(folder)]
    with log.open("w") as output, subprocess.Popen(command, env=environment, stdout=output, stderr=output) as process:
        try:
            deadline = time.monotonic() + START_SECONDS
            while not socket.exists():
                if process.poll() is not None or time.monotonic() > deadline:
                    raise ServerError(f"dockerd did not start:\n{tail(log.read_text())}")
                time.sleep(0.05)
            yield socket
        finally:
            process.kill()  # and with the first process of their namespace all the others
            process.wait()
            _remove_cgroups(parent)


def _remove_cgroups(name: str) -> None:
    """The kernel keeps the folders of containers that have ended, and takes a moment until they are empty."""
    deadline = time.monotonic() + START_SECONDS
    while left := [*CGROUPS.glob(name), *CGROUPS.glob(f"*/{name}")]:
        for parent in left:
            for folder, _, _ in os.walk(parent, topdown=False):
                with suppress(OSError):
                    Path(folder).rmdir()
        if time.monotonic() > deadline:
            return
        time.sleep(0.02)


def sleeping_image(folder: Path) -> bytes:
    """A container's file system, as a tar archive, that holds one program: `/sleep` does nothing for ever."""
    (folder / "sleep.c").write_text("#include <unistd.h>\nint main(void) { for (;;) pause(); }\n")
    checked([program("gcc", "gcc", "libc6-dev"), "-static", "-o", folder / "sleep", folder / "sleep.c"])
    checked(["tar", "-C", folder, "-cf", folder / "image.tar", "sleep"])
    return (folder / "image.tar").read_bytes()
