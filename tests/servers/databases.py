"""A private MariaDB, a private MySQL."""

import os
import secrets
import shutil
import socket
import subprocess
import sys
from abc import abstractmethod
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from tests.servers.mysql_root import mysql_root, mysqld
from tests.servers.packages import MARIADB_PACKAGES, ServerError, checked, locked, program
from tests.servers.process import ANSWER_SECONDS, Server, run_folder

PROJECT = Path(__file__).parent.parent.parent


class _DatabaseServer(Server):
    """What MariaDB and MySQL share. User and database are both called `pulsewatch`; the user may do everything."""

    _more_sql = ""  # run at every start, after the user exists

    def __init__(self, *options: str, migrated: bool = False) -> None:
        """With `migrated` the database has Pulsewatch's tables: the first such server of a run makes them."""
        super().__init__(*options)
        self._password = secrets.token_urlsafe(24)
        self._migrated = migrated

    @property
    def url(self) -> str:
        return f"mysql://pulsewatch:{self._password}@127.0.0.1:{self.port}/pulsewatch"

    @abstractmethod
    def _create_data(self, folder: Path) -> None:
        """Make a data folder that holds the system tables only."""

    def _create_migrated(self, folder: Path) -> None:
        """Make a data folder in which Pulsewatch's tables are there."""
        server = type(self)()
        try:
            own = {"DATABASE_URL": server.start().url, "SECRET_KEY": secrets.token_urlsafe(50), "ENV_FILE": ""}
            migrate = [sys.executable, str(PROJECT / "manage.py"), "migrate", "--verbosity", "0"]
            subprocess.run(migrate, check=True, env={**os.environ, **own, "VAR_DIR": str(server.folder)})
            server.stop(keep_data=True)  # cleanly: what is copied needs no recovery
            shutil.copytree(server.folder / "data", folder)
        finally:
            server.stop()

    def _prepare(self) -> None:
        kind = "migrated" if self._migrated else "data"
        template = run_folder() / f"{self.name.lower()}-{kind}"
        with locked(template.with_suffix(".lock")):
            if not template.exists():  # the first server of a run makes it, all others copy it
                draft = template.with_suffix(".draft")
                shutil.rmtree(draft, ignore_errors=True)
                (self._create_migrated if self._migrated else self._create_data)(draft)
                draft.rename(template)
        shutil.copytree(template, self.folder / "data")
        # The server runs this at every start, before it accepts a connection. The folder is ours alone (0700).
        (self.folder / "init.sql").write_text(
            "CREATE DATABASE IF NOT EXISTS pulsewatch;\n"
            f"CREATE USER IF NOT EXISTS pulsewatch@'%' IDENTIFIED BY '{self._password}';\n"
            f"ALTER USER pulsewatch@'%' IDENTIFIED BY '{self._password}';\n"  # a copied one has its own
            "GRANT ALL PRIVILEGES ON *.* TO pulsewatch@'%' WITH GRANT OPTION;\n" + self._more_sql
        )

    def _serving(self) -> list[str]:
        return [
            f"--datadir={self.folder / 'data'}",
            f"--socket={self.folder / 'socket'}",
            f"--pid-file={self.folder / 'pid'}",
            f"--tmpdir={self.folder}",
            f"--init-file={self.folder / 'init.sql'}",
            f"--port={self.port}",
            "--bind-address=127.0.0.1",
            "--skip-name-resolve",
            "--character-set-server=utf8mb4",
            "--performance-schema=OFF",
            "--innodb-buffer-pool-size=64M",
            "--innodb-buffer-pool-dump-at-shutdown=OFF",
            "--innodb-use-native-aio=OFF",  # the kernel lends few, and many servers run side by side
            # A commit is written but not forced to disk: it survives the death of the server, not that of the machine.
            "--innodb-flush-log-at-trx-commit=2",
            "--sync-binlog=0",
            *self.options,
        ]

    def _answers(self) -> bool:
        # The socket in our own folder proves that the server is ours. It accepts once `init.sql` has run.
        return _greets(socket.AF_UNIX, str(self.folder / "socket")) and _greets(
            socket.AF_INET, ("127.0.0.1", self.port)
        )


def _greets(family: socket.AddressFamily, address: "str | tuple[str, int]") -> bool:
    """Whether a server opens the MySQL protocol there: after a header of four bytes, its version 10."""
    with socket.socket(family) as connection:
        connection.settimeout(ANSWER_SECONDS)
        connection.connect(address)
        return connection.recv(5)[4:] == b"\n"


def _as_root(option: str) -> list[str]:
    """What lets the database servers run as root, where the tests do."""
    return [option] if os.geteuid() == 0 else []


class MariaDB(_DatabaseServer):
    """The system's MariaDB."""

    name = "MariaDB"

    def _create_data(self, folder: Path) -> None:
        checked(
            [
                program("mariadb-install-db", *MARIADB_PACKAGES),
                "--no-defaults",
                f"--datadir={folder}",
                "--skip-test-db",  # which would bring anonymous users along
                "--skip-name-resolve",
                "--auth-root-authentication-method=socket",
                "--auth-root-socket-user=root",
                "--innodb-log-file-size=32M",
                # The script's own --user also hands a folder in /usr over to that user; this one reaches the server.
                *_as_root("--loose-user=root"),
            ]
        )

    def _command(self) -> Sequence[str | Path]:
        return [
            program("mariadbd", *MARIADB_PACKAGES),
            "--no-defaults",
            "--innodb-log-file-size=32M",
            *_as_root("--user=root"),
            *self._serving(),
        ]


class MySQL(_DatabaseServer):
    """Debian unstable's MySQL, unpacked into the cache folder beside the system. It has no binary log unless asked."""

    name = "MySQL"
    _more_sql = "ALTER USER IF EXISTS root@localhost ACCOUNT LOCK;\n"  # it was made without a password

    @staticmethod
    @cache
    def unavailable_reason() -> str | None:
        """One line that says why MySQL cannot be had here; None when it can. The first call may download it."""
        try:
            mysql_root()
        except (ServerError, OSError) as error:
            what, *said = str(error).splitlines()
            complaint = [line for line in said if line.startswith("E: ")] or said
            return " ".join(["MySQL cannot be had here:", what, *complaint[:1]])
        return None

    def _create_data(self, folder: Path) -> None:
        checked([*self._base(), f"--datadir={folder}", "--initialize-insecure"])

    def _command(self) -> Sequence[str | Path]:
        return [*self._base(), *self._serving()]

    def _base(self) -> list[str | Path]:
        usr = mysql_root() / "usr"
        return [
            *mysqld(mysql_root()),
            "--no-defaults",
            f"--basedir={usr}",
            f"--lc-messages-dir={usr / 'share/mysql'}",
            f"--character-sets-dir={usr / 'share/mysql/charsets'}",
            f"--plugin-dir={usr / 'lib/mysql/plugin'}",
            "--secure-file-priv=NULL",
            "--mysqlx=OFF",
            "--skip-log-bin",
            "--innodb-redo-log-capacity=32M",
            *_as_root("--user=root"),
        ]
