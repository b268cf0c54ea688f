"""Database URLs: `mysql://user:password@host:3306/schema`, `postgresql://…`, `sqlite:////srv/app.sqlite3`, `redis://…`."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from apps.core.errors import Invalid


class AddressInvalid(Invalid):
    """The URL names no database. The text says what is wrong with it and carries no part of it."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a database is and how to sign in; made from a URL by `parse_url`. The password never shows in repr."""

    engine: str  # mysql, postgresql, sqlite, redis
    host: str
    port: int
    user: str
    password: str = field(repr=False)
    database: str  # schema name; for SQLite the path of the file, for Redis the number
    options: Mapping[str, str] = field(default_factory=dict)  # TLS: ssl_ca, ssl_mode …; Redis over TLS: tls=yes


SCHEMES = {
    "mysql": "mysql",
    "mariadb": "mysql",
    "postgresql": "postgresql",
    "postgres": "postgresql",
    "sqlite": "sqlite",
    "redis": "redis",
    "rediss": "redis",
}
PORTS = {"mysql": 3306, "postgresql": 5432, "redis": 6379}
OPTIONS = {
    "mysql": frozenset({"ssl_mode", "ssl_ca", "ssl_cert", "ssl_key", "unix_socket"}),
    "postgresql": frozenset({"sslmode", "sslrootcert", "sslcert", "sslkey"}),
    "sqlite": frozenset[str](),
    "redis": frozenset({"ssl_ca"}),
}
EXAMPLES = {
    "mysql": "mysql://user:password@db.example.com:3306/shop",
    "postgresql": "postgresql://user:password@db.example.com:5432/shop",
    "sqlite": "sqlite:////srv/shop/db.sqlite3",
    "redis": "redis://:password@cache.example.com:6379/0",
}

LOCAL = frozenset({"localhost", "localhost.localdomain", "127.0.0.1", "::1", "ip6-localhost"})

_ENCODE = "write @ : / ? # % in a user name or password as %40 %3A %2F %3F %23 %25"
_BAD_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")


def parse_url(url: str) -> Address:
    """The address a URL names. Raises AddressInvalid."""
    parts, engine = _split(url.strip())
    options = _options(parts.query, engine)
    if engine == "sqlite":
        return Address("sqlite", "", 0, "", "", _sqlite_path(parts))
    if engine == "redis":
        return _redis(parts, options)
    database = parts.path.removeprefix("/")
    if "/" in database or "@" in database:
        raise AddressInvalid(f"The database URL's schema name holds a / or an @; {_ENCODE}.")
    needed = {"schema": database, "host": parts.hostname or options.get("unix_socket"), "user": parts.username}
    for what, value in needed.items():
        if not value:
            raise AddressInvalid(f"The database URL names no {what}; an example is {EXAMPLES[engine]}")
    return Address(
        engine=engine,
        host=parts.hostname or "localhost",
        port=parts.port or PORTS[engine],
        user=_decoded(parts.username or ""),
        password=_decoded(parts.password or ""),
        database=_decoded(database),
        options=options,
    )


def mysql_ssl_mode(options: Mapping[str, str]) -> str:
    """How the connection to MySQL or MariaDB is encrypted, in MySQL's own words. Raises AddressInvalid."""
    mode = options.get("ssl_mode", "").upper().replace("-", "_")
    if mode not in ("", "DISABLED", "PREFERRED", "REQUIRED", "VERIFY_CA", "VERIFY_IDENTITY"):
        raise AddressInvalid("ssl_mode is none of DISABLED, PREFERRED, REQUIRED, VERIFY_CA, VERIFY_IDENTITY.")
    return mode or ("VERIFY_CA" if "ssl_ca" in options else "PREFERRED")


def place(engine: str, host: str, port: int | None, database: str) -> str:
    """One spelling for each place a restore can write to: `mysql://127.0.0.1:3306/shop`, `sqlite:///srv/app.sqlite3`.

    Case and a closing dot of the host do not count, a port that is left out is the usual one, all names of this machine
    are one, and so are all paths to a file.
    """
    if engine == "sqlite":
        return f"sqlite://{os.path.realpath(database)}"
    name = host.lower().rstrip(".")
    return f"{engine}://{'127.0.0.1' if name in LOCAL else name}:{port or PORTS[engine]}/{database}"


def _split(url: str) -> tuple[SplitResult, str]:
    """The parts of a well-formed URL, and the engine its scheme stands for."""
    if any(ord(letter) <= 32 or ord(letter) == 127 for letter in url):
        raise AddressInvalid("The database URL holds white space; write a space as %20.")
    if _BAD_PERCENT.search(url):
        raise AddressInvalid("The database URL holds a % that no two hexadecimal digits follow; write % itself as %25.")
    if "#" in url:
        raise AddressInvalid(f"The database URL holds a #; {_ENCODE}.")
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise AddressInvalid(f"The database URL has no valid host and port; {_ENCODE}.") from None
    engine = SCHEMES.get(parts.scheme, "")
    if not engine or not url[len(parts.scheme) :].startswith("://"):
        known = ", ".join(f"{scheme}://" for scheme in SCHEMES)
        raise AddressInvalid(f"The database URL begins with none of {known}; an example is {EXAMPLES['mysql']}")
    return parts, engine


def _redis(parts: SplitResult, options: dict[str, str]) -> Address:
    number = parts.path.strip("/") or "0"
    if not (number.isascii() and number.isdigit() and len(number) <= 4) or not parts.hostname:
        raise AddressInvalid(f"A Redis URL names a host and, if any, a number; an example is {EXAMPLES['redis']}")
    user, password = _decoded(parts.username or ""), _decoded(parts.password or "")
    encrypted = {"tls": "yes"} if parts.scheme == "rediss" else {}
    return Address("redis", parts.hostname, parts.port or PORTS["redis"], user, password, number, options | encrypted)


def _decoded(text: str) -> str:
    try:
        decoded = unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise AddressInvalid("The database URL's percent-encoded characters are not UTF-8.") from None
    if any(letter in "\0\r\n" for letter in decoded):
        raise AddressInvalid(
            "The database URL holds a line break or a NUL; no server accepts them in a name or password."
        )
    return decoded


def _options(query: str, engine: str) -> dict[str, str]:
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query), errors="strict")
    except ValueError:
        raise AddressInvalid(
            "What follows the ? of the database URL is not of the form name=value&name=value."
        ) from None
    options = {name: value for name, value in pairs if name != "charset"}  # always utf8mb4; Django's URLs carry it
    if unknown := options.keys() - OPTIONS[engine]:
        known = ", ".join(sorted(OPTIONS[engine])) or "none"
        count = "an option" if len(unknown) == 1 else f"{len(unknown)} options"
        raise AddressInvalid(f"The database URL has {count} that {engine} does not know; known are: {known}.")
    return options


def _sqlite_path(parts: SplitResult) -> str:
    path = _decoded(parts.path.removeprefix("/"))
    if parts.netloc or not PurePosixPath(path).is_absolute():
        # Relative to what is anybody's guess, and SQLite makes an empty file where it finds none.
        raise AddressInvalid(f"A SQLite URL holds the absolute path after three slashes, as in {EXAMPLES['sqlite']}")
    return path
