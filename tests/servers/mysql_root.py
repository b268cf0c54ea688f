"""A real MySQL beside the system: stable Debian has MariaDB only, unstable has MySQL."""

import platform
import shutil
import tempfile
from functools import cache
from pathlib import Path

from tests.servers.packages import APT_SECONDS, ServerError, cache_folder, checked, locked, run

MYSQL_PACKAGES = ("mysql-server-core", "mysql-client-core")


@cache
def mysql_root() -> Path:
    """The root folder of an unpacked MySQL, downloaded at first need: about 10 s, 77 MB fetched, 410 MB kept.

    Raises ServerError where it cannot be had. Processes that ask at the same time wait for the first one.
    """
    folder = cache_folder()
    with locked(folder / "mysql.lock"):
        for server in sorted(folder.glob("mysql-*/usr/sbin/mysqld"), reverse=True):
            return server.parents[2]
        for leftover in folder.glob("draft-*"):  # of a download that was killed: ours is the only one now
            shutil.rmtree(leftover, ignore_errors=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix="draft-") as draft:
            release = _unpack_mysql(Path(draft))
            root = folder / f"mysql-{release}"
            Path(draft, "root").rename(root)
            return root


def _unpack_mysql(draft: Path) -> str:
    """Fill `draft/root` with MySQL and every library it needs; answers its release.

    An apt of our own, with nothing installed as far as it knows and unstable as its only source, resolves and checks
    what the system's apt would have to mix into the system.
    """
    for folder in ("sources", "lists/partial", "archives/partial", "root"):
        (draft / folder).mkdir(parents=True)
    (draft / "status").touch()
    (draft / "sources" / "unstable.sources").write_text(_unstable_source())
    options = {
        "Dir::Etc::SourceList": "/dev/null",
        "Dir::Etc::SourceParts": draft / "sources",
        "Dir::Etc::Preferences": "/dev/null",
        "Dir::Etc::PreferencesParts": "/dev/null",
        "Dir::State": draft,
        "Dir::State::Lists": draft / "lists",
        "Dir::State::Status": draft / "status",
        "Dir::Cache": draft,
        "Dir::Cache::Archives": draft / "archives",
        "APT::Install-Recommends": "false",
        "APT::Sandbox::User": "",  # that user could not write here
        "Acquire::Languages": "none",
        "Acquire::http::Timeout": "20",
        "Acquire::https::Timeout": "20",
    }
    apt = ["apt-get", "--yes", "--quiet", *(f"-o{name}={value}" for name, value in options.items())]
    checked([*apt, "update", "--error-on=any"], seconds=APT_SECONDS)
    checked([*apt, "install", "--download-only", *MYSQL_PACKAGES], seconds=APT_SECONDS)
    archives = sorted((draft / "archives").glob("*.deb"))
    for archive in archives:
        checked(["dpkg-deb", "--extract", archive, draft / "root"])
    checked([*mysqld(draft / "root"), "--no-defaults", "--version"])
    server = next(archive for archive in archives if archive.name.startswith(MYSQL_PACKAGES[0]))
    return server.stem.partition("_")[2]


def _unstable_source() -> str:
    """Debian unstable from the mirror that this system uses for its own Debian release."""
    system = platform.freedesktop_os_release()
    if system.get("ID") != "debian":
        raise ServerError("it comes from Debian unstable, and this system is not Debian")
    releases = {system.get("VERSION_CODENAME"), "oldstable", "stable", "testing", "unstable", "sid"}
    targets = run(["apt-get", "indextargets", "--no-release-info", "--format=$(COMPONENT) $(RELEASE) $(REPO_URI)"])
    for line in targets.stdout.splitlines():
        component, _, source = line.partition(" ")
        release, _, mirror = source.partition(" ")
        if component == "main" and release in releases:
            break
    else:
        raise ServerError("apt's sources name no Debian mirror")
    keyring = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
    signed = f"Signed-By: {keyring}\n" if keyring.exists() else ""
    return f"Types: deb\nURIs: {mirror}\nSuites: sid\nComponents: main\n{signed}"


def mysqld(root: Path) -> list[str | Path]:
    """Starts `mysqld` with the loader and the libraries it was built with, not with the system's."""
    for loader in (root / "usr/lib").glob("*-linux-gnu*/ld-linux*.so.*"):
        return [loader, "--library-path", loader.parent, root / "usr/sbin/mysqld"]
    raise ServerError(f"{root} holds no loader for this machine")
