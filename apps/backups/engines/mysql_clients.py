"""MySQL's and MariaDB's client programs: which one a server needs, how it signs in, what its errors mean."""

import re
from dataclasses import dataclass
from pathlib import Path

from apps.backups.engines.base import EngineError
from apps.backups.engines.clients import CREDENTIALS, programs, version_text
from apps.inventory.addresses import Address, AddressInvalid, mysql_ssl_mode

CONNECT_SECONDS = 5  # a server that takes longer to greet is as good as down

_PROGRAMS = {
    ("MariaDB", "dump"): ("mariadb-dump", "mysqldump"),
    ("MariaDB", "restore"): ("mariadb", "mysql"),
    ("MySQL", "dump"): ("mysqldump",),
    ("MySQL", "restore"): ("mysql",),
}
_PACKAGE = {
    "MariaDB": "Install MariaDB's client (Debian and Ubuntu: mariadb-client)",
    "MySQL": "Install Oracle's MySQL client of that version or newer (mysql-client)",
}
# What the other vendor's client does to a server, found by trying.
_WHY_NOT = {
    "MariaDB": "MySQL's client cannot sign in to it (since 9.0) and knows neither sequences nor packages",
    "MySQL": "MariaDB's client dumps the values of generated columns, which MySQL refuses on restore (error 3105)",
}
_MARIADB_VERSION = re.compile(r"(\d+\.\d+\.\d+)-MariaDB", re.IGNORECASE)
_MYSQL_VERSION = re.compile(r"(?:Distrib|Ver) (\d+\.\d+\.\d+)")


@dataclass(frozen=True, slots=True)
class Version:
    """Who made a server or a client, and when."""

    vendor: str  # MariaDB, MySQL
    number: str  # 10.11.19

    def __str__(self) -> str:
        return f"{self.vendor} {self.number}"

    @property
    def key(self) -> tuple[int, ...]:
        """For comparisons within one vendor."""
        return tuple(int(part) for part in self.number.split("."))


@dataclass(frozen=True, slots=True)
class Program:
    """A client program on this machine."""

    path: Path
    version: Version

    def __str__(self) -> str:
        return f"{self.path.name} {self.version.number}"


def server_version(text: str) -> Version:
    """From what the server answers to VERSION(): `10.11.19-MariaDB-0+deb12u1`, `8.4.3`."""
    number = re.search(r"\d+\.\d+(?:\.\d+)?", text.removeprefix("5.5.5-"))
    if number is None:
        raise EngineError("The server does not tell its version as MySQL and MariaDB do; no other kind is supported.")
    return Version("MariaDB" if "mariadb" in text.lower() else "MySQL", number[0])


def client_version(text: str) -> Version | None:
    """From what a client answers to `--version`: its name says nothing, Debian's `mysqldump` is MariaDB's."""
    if match := _MARIADB_VERSION.search(text):
        return Version("MariaDB", match[1])
    if match := _MYSQL_VERSION.search(text):
        return Version("MySQL", match[1])
    return None


def client_for(server: Version, task: str) -> Program:
    """The program of the server's own vendor for a `dump` or a `restore`; EngineError names what is there instead."""
    others = []
    for path in programs(
        *dict.fromkeys(name for (_, kind), names in _PROGRAMS.items() if kind == task for name in names)
    ):
        version = client_version(version_text(path))
        if version and version.vendor == server.vendor and path.name in _PROGRAMS[server.vendor, task]:
            return Program(path, version)
        if version:
            others.append(f"{path.name} of {version}")
    found = f"PATH has only {' and '.join(others)}: {_WHY_NOT[server.vendor]}" if others else "PATH has no such program"
    wanted = " or ".join(_PROGRAMS[server.vendor, task])
    raise EngineError(
        f"The server is {server} and needs {server.vendor}'s {wanted}; {found}. {_PACKAGE[server.vendor]}."
    )


def dump_command(client: Program, database: str) -> list[str]:
    """Writes a dump of the schema that can be compared with a later one."""
    # GTIDs and masking policies belong to the server: restoring them beside the source would change the source's.
    # Statistics are made anew. Options that an older client does not know are marked as loose.
    oracle = ["--set-gtid-purged=OFF", "--loose-skip-column-statistics", "--loose-skip-masking-policies"]
    return [
        str(client.path),
        f"--defaults-file={CREDENTIALS}",
        "--opt",
        "--single-transaction",
        "--skip-lock-tables",
        "--quick",
        "--routines",
        "--events",
        "--triggers",
        "--hex-blob",
        "--default-character-set=utf8mb4",
        "--max-allowed-packet=1G",
        "--tz-utc",
        "--comments",
        "--order-by-primary",
        "--skip-dump-date",
        "--no-tablespaces",
        *(oracle if client.version.vendor == "MySQL" else []),
        "--",
        database,
    ]


def restore_command(client: Program, database: str) -> list[str]:
    """Runs a dump in the schema."""
    # Rows have no place in a message. Older clients of MariaDB do not know the option; MySQL's has no such habit.
    quiet = ["--loose-skip-print-query-on-error"] if client.version.vendor == "MariaDB" else []
    return [
        str(client.path),
        f"--defaults-file={CREDENTIALS}",
        "--default-character-set=utf8mb4",
        "--max-allowed-packet=1G",
        "--comments",  # else those in routines are lost
        "--binary-mode",  # else \0 and \r\n in values are changed, and \! would run a program
        "--skip-reconnect",  # a new session would lack the settings at the dump's head
        *quiet,
        f"--database={database}",
    ]


def defaults_file(address: Address, client: Program) -> str:
    """The option file that the client reads instead of all others."""
    options = {"user": address.user, "password": address.password}
    if socket := address.options.get("unix_socket"):
        options |= {"protocol": "SOCKET", "socket": socket}
    else:
        options |= {"protocol": "TCP", "host": address.host, "port": str(address.port)}
    options |= _tls(address, client.version.vendor)
    return "[client]\n" + "".join(f"{name}={_quoted(value)}\n" for name, value in options.items())


def _tls(address: Address, vendor: str) -> dict[str, str]:
    files = {
        name.replace("_", "-"): address.options[name]
        for name in ("ssl_ca", "ssl_cert", "ssl_key")
        if name in address.options
    }
    mode = ssl_mode(address)
    if vendor == "MySQL":
        unencrypted = {"get-server-public-key": "1"} if mode == "DISABLED" else {}
        return {"ssl-mode": mode} | files | unencrypted
    if mode == "DISABLED":
        return {"ssl": "0"}
    verify = "1" if mode.startswith("VERIFY") else "0"
    return {"ssl": "1"} | files | {"ssl-verify-server-cert": verify}


def ssl_mode(address: Address) -> str:
    """MySQL's word for how the connection is encrypted: by default if the server can."""
    try:
        return mysql_ssl_mode(address.options)
    except AddressInvalid as error:
        raise EngineError(str(error)) from None


def _quoted(value: str) -> str:
    """A value for an option file, where a backslash begins an escape and # a comment."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\t", "\\t").replace("\n", "\\n")
    return f'"{escaped}"'


# ---- What an error means ---------------------------------------------------------------------------------------------

UNREACHABLE = "Check that the server runs and that this machine may reach its host and port."
_GONE = (
    "The connection was lost: either a statement is longer than the server's max_allowed_packet (raise it: SET GLOBAL "
    "max_allowed_packet = 1073741824), or the server ended: see its log."
)
_ALTERED = "A table was altered while it was dumped: back up again when no migration runs."
_REMEDIES = {
    1040: "The server has no connection to spare: raise max_connections or try at another time.",
    1044: "The user may not use this schema, or it does not exist: grant it, or correct the URL's schema name.",
    1045: "Correct the user name or password; special characters in the URL are percent-encoded (@ is %40).",
    1049: "Create it, or correct the schema name at the end of the URL.",
    1102: "Choose a schema name of up to 64 characters, without emoji, . and /.",
    1114: "The table or the disk is full: free space on the server.",
    1021: "The server's disk is full: free space on it.",
    1129: "The server has blocked this host after failed connections: run FLUSH HOSTS on it.",
    1130: "The server lets no user sign in from this host: create the user for it (CREATE USER 'name'@'host').",
    1142: "Grant the user that privilege.",
    1153: "Raise the server's max_allowed_packet (SET GLOBAL max_allowed_packet=1073741824) and try again.",
    1205: "A session keeps a table locked, be it by a transaction that only read it. Stop the programs that use this "
    "schema, then try again.",
    1227: "The dump holds objects of another DEFINER: restore as a user with SUPER (MariaDB: also SET USER; "
    "MySQL: SET_ANY_DEFINER or SET_USER_ID).",
    1273: "The server does not know a collation of the dump: restore to a server of the same vendor and version.",
    1356: "A view refers to something that is gone: repair or drop the view; until then no dump can be made.",
    1412: _ALTERED,
    1419: "The server has a binary log: SET GLOBAL log_bin_trust_function_creators = 1, or restore with SUPER.",
    1449: "The dump names a DEFINER that this server lacks: create that user first.",
    1698: "The server wants this user to sign in by another method than a password: use a user with a password.",
    1820: "The password has expired: set a new one.",
    2002: UNREACHABLE,
    2003: UNREACHABLE,
    2005: "The host name cannot be resolved: correct it.",
    2006: _GONE,
    2013: _GONE,
    2026: "No encrypted connection could be agreed on: check ssl_mode and ssl_ca in the URL.",
    2059: "The client lacks the sign-in method of this user: use a client of the server's own vendor.",
    2061: "The user's sign-in method needs encryption: leave ssl_mode at PREFERRED or above.",
    3105: "The dump holds values of generated columns: it was made by MariaDB's client, and MySQL cannot restore it.",
    3118: "The account is locked: unlock it.",
}
_CODE = re.compile(r"(?:\b(?:ERROR|error:|Error|errno:) ?|\()(\d{4})\b")


def remedy(code: int) -> str:
    """What to do about an error of the server or of a client; empty when that has no general answer."""
    return _REMEDIES.get(code, "")


def explain(said: str) -> str:
    """The remedy for the last known error code in a client's words."""
    if "Error in field count" in said:  # MySQL's client has no code for it
        return _ALTERED
    codes = [int(code) for code in _CODE.findall(said)]
    return next((_REMEDIES[code] for code in reversed(codes) if code in _REMEDIES), "")
