"""A filled database in a private server, and everybody's way of backing it up and of restoring it."""

import json
import os
import resource
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from apps.backups.engines.address import parse_url
from apps.backups.engines.clients import CREDENTIALS
from apps.backups.engines.mysql import MySQLEngine
from apps.backups.engines.mysql_clients import Version, client_for, defaults_file, dump_command, restore_command
from apps.core.keys import new_keyset
from bench.dataset import script
from bench.measure import Cost
from tests.servers import MariaDB, run_folder

ROOM = 5  # times the dump's size: the data, their restored copy, logs
# A server that is given some memory: a small one would be what everybody waits for.
OPTIONS = ("--innodb-buffer-pool-size=1G", "--innodb-log-file-size=512M", "--max-allowed-packet=64M")


@contextmanager
def server(folder: Path, size: int) -> Iterator[MariaDB]:
    """A server for `size` bytes of SQL. Its data are in memory where they fit, so that no disk hides our own cost."""
    database = MariaDB(*OPTIONS)
    if shutil.disk_usage(run_folder()).free < ROOM * size:
        database.folder = folder / "mariadb"
    with database:
        yield database


class Shop:
    """The database. Every method that answers with a Cost has its result on the disk (fsync) when it ends."""

    def __init__(self, folder: Path, database: MariaDB) -> None:
        self._folder = folder
        self._url = database.url.rpartition("/")[0]
        self._keyset = new_keyset()
        self._number = 0  # of the next backup
        self.engine = MySQLEngine(parse_url(f"{self._url}/shop"))
        mariadb = Version("MariaDB", "")
        self._dumper, self._restorer = client_for(mariadb, "dump"), client_for(mariadb, "restore")
        self._credentials = self._secret("client.cnf", defaults_file(self.engine.address, self._dumper))
        self._passphrase = self._secret("passphrase", "of the peer, who needs one")
        self.compressed = folder / "peer.sql.zst"

    def fill(self, size: int) -> None:
        """Make the tables and their rows."""
        self.engine.create()
        client = subprocess.Popen(self._restore_command("shop"), stdin=subprocess.PIPE)
        assert client.stdin is not None
        with client.stdin as statements:
            for statement in script(size):
                statements.write(statement)
        if client.wait():
            raise RuntimeError("The database could not be filled.")

    # ---- Pulsewatch --------------------------------------------------------------------------------------------------

    def back_up(self, recorded: str = "") -> dict[str, Any]:
        """A backup and its check in a process of their own. `recorded` is a shell command that stands for the dump."""
        self._number += 1
        return self._process(
            step="backup",
            url=f"{self._url}/shop",
            backup_id=f"backup_{self._number}",
            recorded=["bash", "-c", recorded] if recorded else None,
        )

    def restore(self, sidecar: str) -> dict[str, Any]:
        """Verify a backup and restore it into a new schema."""
        with self._new_schema("restored") as name:
            return self._process(step="restore", url=f"{self._url}/{name}", sidecar=sidecar)

    def forget(self) -> None:
        """Delete our backups, for their space."""
        shutil.rmtree(self._folder / "ours", ignore_errors=True)

    def _process(self, **order: Any) -> dict[str, Any]:
        order |= {"folder": str(self._folder / "ours"), "keyset": self._keyset}
        command = [sys.executable, "-m", "bench.backup_process"]
        done = subprocess.run(command, input=json.dumps(order), stdout=subprocess.PIPE, text=True, check=True)
        answer = json.loads(done.stdout)
        return {name: Cost(**part) if isinstance(part, dict) else part for name, part in answer.items()}

    # ---- Peers -------------------------------------------------------------------------------------------------------

    def zstd(self) -> Cost:
        """What our bound is measured against."""
        return self._shell(f"{self._dump_command()} | zstd -3 --quiet > {self.compressed}", self.compressed)

    def gzip_openssl(self) -> Cost:
        target = self._folder / "peer.sql.gz.enc"
        encrypt = f"openssl enc -aes-256-ctr -pbkdf2 -pass file:{self._passphrase}"
        return self._shell(f"{self._dump_command()} | gzip | {encrypt} > {target}", target)

    def django_dbbackup(self) -> Cost:
        """With its compression; Python's start is in it."""
        folder = self._folder / "dbbackup"
        folder.mkdir(exist_ok=True)
        environment = {
            "DATABASE_URL": f"{self._url}/shop",
            "DBBACKUP_FOLDER": str(folder),
            "DJANGO_SETTINGS_MODULE": "bench.peers.dbbackup",
        }
        return self._shell(
            f"{sys.executable} -m django dbbackup --compress --noinput --quiet", f"{folder}/*.gz", environment
        )

    def restore_zstd(self) -> Cost:
        with self._new_schema("restored") as name:
            return self._shell(f"zstd -dc {self.compressed} | {shlex.join(self._restore_command(name))}")

    def _shell(self, command: str, written: Path | str = "", environment: dict[str, str] | None = None) -> Cost:
        """Run a pipeline, and have what it wrote on the disk."""
        if written:
            command += f" && sync {written}"
        started, used = time.perf_counter(), _cpu_of_children()
        subprocess.run(["bash", "-o", "pipefail", "-c", command], env=os.environ | (environment or {}), check=True)
        return Cost(time.perf_counter() - started, _cpu_of_children() - used)

    def _dump_command(self) -> str:
        return shlex.join(self._signed_in(dump_command(self._dumper, "shop")))

    def _restore_command(self, schema: str) -> list[str]:
        return self._signed_in(restore_command(self._restorer, schema))

    def _signed_in(self, command: Iterable[str]) -> list[str]:
        return [part.replace(CREDENTIALS, str(self._credentials)) for part in command]

    @contextmanager
    def _new_schema(self, name: str) -> Iterator[str]:
        target = self.engine.at(name)
        target.create()
        try:
            yield name
        finally:
            target.drop()

    def _secret(self, name: str, text: str) -> Path:
        path = self._folder / name
        path.touch(mode=0o600)
        path.write_text(text)
        return path


def _cpu_of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
