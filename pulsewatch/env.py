"""Strict readers of environment variables.

Every reader answers a usable value even when the variable is wrong, and notes the fault, so that one start reports all
faults at once. No message ever repeats a value: it may be a secret.
"""

import importlib.util
import io
import ipaddress
import os
import re
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit

import environ
import redis
from environ.fileaware_mapping import FileAwareMapping

TRUE = frozenset({"1", "true", "yes", "on"})
FALSE = frozenset({"0", "false", "no", "off"})
_HOST = re.compile(r"^(\*|\.?[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:]+\])\Z")
# One host; with underscores, which containers have in their names.
_HOST_NAME = re.compile(r"^[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9_])?\Z")
_SPACE_OR_CONTROL = re.compile(r"[\s\x00-\x1f\x7f]")
MAX_URL = 300  # characters of an address the inventory stores


@dataclass(frozen=True, slots=True)
class Fault:
    """One wrong variable: its name, what is wrong with it, and an example of a right one. Never its value."""

    name: str
    problem: str
    example: str

    def __str__(self) -> str:
        return f"  {self.name}: {self.problem}. Example: {self.name}={self.example}"


class Reader:
    """Reads variables from a mapping; `NAME_FILE` names a file that holds the value of `NAME`."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = variables
        # Read directly: django-environ's own readers take a value that begins with $ for another variable's name.
        self._values = FileAwareMapping(env=dict(variables), cache=False)
        self.faults: list[Fault] = []

    def fault(self, name: str, problem: str, example: str) -> None:
        """Note what is wrong with a variable."""
        self.faults.append(Fault(name, problem, example))

    def given(self, name: str) -> bool:
        """Whether the variable (or its `_FILE` form) is set to something."""
        return bool(self._variables.get(name) or self._variables.get(f"{name}_FILE"))

    def file_of(self, name: str) -> Path | None:
        """The file that holds the variable's value, when it is given by its `_FILE` form."""
        path = self._variables.get(f"{name}_FILE")
        return Path(path).absolute() if path and not self._variables.get(name) else None

    def text(self, name: str, default: str = "", *, example: str, required: bool = False, min_length: int = 0) -> str:
        """A string, stripped of white space around it; `default` when it is not set."""
        if not self.given(name):
            if required:
                self.fault(name, "is required and not set", example)
            return default
        if self._variables.get(name) and self._variables.get(f"{name}_FILE"):
            self.fault(name, f"is set twice, as {name} and as {name}_FILE; keep one of them", example)
            return default
        try:
            value = str(self._values[name]).strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            self.fault(f"{name}_FILE", f"names a file that cannot be read ({reason})", "/run/secrets/name")
            return default
        if not value and required:
            self.fault(name, "is empty", example)
        elif len(value) < min_length:
            self.fault(name, f"must have at least {min_length} characters", example)
        return value

    def boolean(self, name: str, default: bool) -> bool:
        """true/false, 1/0, yes/no, on/off in any case; anything else is a fault, never silently false."""
        value = self.text(name, str(default), example="true").lower()
        if value in TRUE | FALSE:
            return value in TRUE
        self.fault(name, "must be true or false", "true")
        return default

    def integer(self, name: str, default: int, *, minimum: int, maximum: int) -> int:
        """A whole number within bounds, both included."""
        value = self.text(name, str(default), example=str(default))
        if re.fullmatch(r"-?[0-9]{1,18}", value) and minimum <= int(value) <= maximum:
            return int(value)
        self.fault(name, f"must be a whole number from {minimum} to {maximum}", str(default))
        return default

    def number(self, name: str, default: float, *, minimum: float, maximum: float) -> float:
        """A decimal number within bounds, both included."""
        value = self.text(name, str(default), example=str(default))
        if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", value) and minimum <= float(value) <= maximum:
            return float(value)
        self.fault(name, f"must be a number from {minimum:g} to {maximum:g}", str(default))
        return default

    def choice(self, name: str, default: str, choices: Collection[str]) -> str:
        """One of a few words."""
        value = self.text(name, default, example=default)
        if value in choices:
            return value
        self.fault(name, f"must be one of {', '.join(choices)}", default)
        return default

    def words(self, name: str, default: str = "", *, example: str) -> list[str]:
        """A comma-separated list without its empty parts."""
        value = self.text(name, default, example=example)
        return [word.strip() for word in value.split(",") if word.strip()]

    def pairs(self, name: str, *, values: Collection[str], example: str) -> dict[str, str]:
        """A comma-separated list of `name=value` with values from a few words; names come back in lower case."""
        pairs = {}
        for word in self.words(name, example=example):
            key, _, value = word.partition("=")
            if not key.strip() or value.strip() not in values:
                self.fault(
                    name, f"must be pairs of a name and one of {', '.join(values)}, separated by commas", example
                )
                return {}
            pairs[" ".join(key.lower().split())] = value.strip()
        return pairs

    def hosts(self, name: str, default: str) -> list[str]:
        """Host names without scheme, port or path."""
        example = "pulsewatch.example.com,10.0.0.5"
        words = self.words(name, default, example=example)
        if not words or not all(_HOST.match(word) for word in words):
            self.fault(name, "must be host names without scheme, port or path, separated by commas", example)
        return words

    def host(self, name: str, default: str, *, example: str) -> str:
        """One host name or address, IPv6 without its brackets."""
        value = self.text(name, default, example=example)
        host = value[1:-1] if value.startswith("[") and value.endswith("]") else value
        if _is_address(host) or (host == value and _HOST_NAME.match(host)):
            return host
        self.fault(name, "must be one host name or address without scheme, port or path", example)
        return default

    def word(self, name: str, default: str, *, max_length: int, example: str) -> str:
        """A name the inventory accepts: letters, digits and _ . : - after a letter or digit."""
        value = self.text(name, default, example=example)
        if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.:-]*", value) and len(value) <= max_length:
            return value
        self.fault(
            name, f"must be up to {max_length} letters, digits and _ . : - that begin with a letter or digit", example
        )
        return default

    def origins(self, name: str) -> list[str]:
        """Web origins: scheme and host, optionally a port, and nothing behind."""
        example = "https://pulsewatch.example.com"
        words = self.words(name, example=example)
        for word in words:
            parts = _split(word)
            bare = parts is not None and not (parts.path or parts.query or parts.fragment or parts.username)
            if parts is None or parts.scheme not in ("http", "https") or not parts.hostname or not bare:
                self.fault(name, "must be origins such as scheme and host, separated by commas", example)
                return []
        return words

    def url(
        self, name: str, default: str = "", *, schemes: Collection[str], example: str, required: bool = False
    ) -> str:
        """A URL of one of the schemes, with a host unless the scheme names a file or a socket."""
        value = self.text(name, default, example=example, required=required)
        if not value:
            return value
        parts = _split(value)
        if parts is None or parts.scheme not in schemes:
            self.fault(name, f"must be a URL that starts with {' or '.join(s + '://' for s in schemes)}", example)
            return default
        local = parts.scheme in {"sqlite", "unix"}
        if (not local and not parts.hostname) or (local and not parts.path.strip("/")):
            self.fault(name, "is a URL without a path" if local else "is a URL without a host name", example)
            return default
        return value

    def http_url(self, name: str, default: str, *, example: str) -> str:
        """A web address that may be shown: without user and password."""
        value = self.url(name, default, schemes=("http", "https"), example=example)
        parts = urlsplit(value)
        if parts.username is not None or parts.password is not None:
            self.fault(name, "must be a URL without user and password: the console shows it", example)
        elif _SPACE_OR_CONTROL.search(value) or parts.port == 0 or len(value) > MAX_URL:
            self.fault(name, f"must be a URL of up to {MAX_URL} characters without spaces", example)
        else:
            return value
        return default

    def redis(self, name: str, default: str = "", *, example: str, required: bool = False) -> str:
        """A URL that redis-py can make a connection from; none is opened."""
        value = self.url(name, default, schemes=("redis", "rediss", "unix"), example=example, required=required)
        if not value:
            return value
        parts = urlsplit(value)
        if parts.scheme != "unix" and not re.fullmatch(r"/?|/[0-9]{1,9}", parts.path):
            self.fault(name, "is a URL whose path is no database number", example)
            return default
        try:
            pool = redis.ConnectionPool.from_url(value)
            pool.make_connection()
            number = int(pool.connection_kwargs.get("db", 0))
        except (ValueError, TypeError, redis.RedisError):
            self.fault(name, "is a URL with a parameter behind ? that is unknown or has a wrong value", example)
            return default
        if number < 0:
            self.fault(name, "is a URL whose database number is negative", example)
            return default
        return value

    def database(self, url: str) -> dict[str, object]:
        """Django's settings for a database URL that `url()` has accepted; user and password are percent-decoded."""
        return dict(environ.Env.db_url_config(url))

    def exit_on_faults(self) -> None:
        """Print every fault on standard error and end the process with status 1; nothing when all is well."""
        if self.faults:
            _exit_with(self.faults)


def require_settings_module() -> None:
    """Set `DJANGO_SETTINGS_MODULE` where it is missing; end the process with a sentence when it names no module."""
    name = os.environ.setdefault("DJANGO_SETTINGS_MODULE", "pulsewatch.settings")
    try:
        found = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        found = None
    if found is None:
        sys.exit(
            "pulsewatch: DJANGO_SETTINGS_MODULE names a module that cannot be found: leave it out for "
            "pulsewatch.settings, or correct it."
        )


def read_env_file(path: Path) -> str:
    """Add the variables of a file to the environment where they are not set; a missing file has none.

    Answers why the file cannot be read, empty when all is well.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return ""
    except OSError as error:
        return f"names a file that cannot be read ({error.strerror})"
    except UnicodeDecodeError:
        return "names a file that is not UTF-8 text"
    if "\0" in text:
        return "names a file that is not UTF-8 text"
    environ.Env.read_env(io.StringIO(text))
    return ""


def bracketed(host: str) -> str:
    """A host as it stands before the port: IPv6 addresses in brackets."""
    return f"[{host}]" if ":" in host else host


def reachable(host: str) -> str:
    """The host at which this machine reaches a server that listens on `host`: the loopback for all addresses."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  (compared with, not bound)


def celery_url(url: str) -> str:
    """Celery's spelling of a URL that `Reader.redis()` has accepted.

    It names Unix sockets otherwise than redis-py, demands to be told how to check certificates, and takes no other
    parameter for its broker.
    """
    if not url:
        return url
    parts = urlsplit(url)
    number = redis.ConnectionPool.from_url(url).connection_kwargs.get("db", 0)
    if parts.scheme == "unix":
        spelled = f"redis+socket://{parts.netloc}{parts.path}?virtual_host={number}"
    elif parts.scheme == "rediss":
        given = {name: value for name, value in parse_qsl(parts.query) if name.startswith("ssl_")}
        tls = urlencode({"ssl_cert_reqs": "required", **given})
        spelled = f"rediss://{parts.netloc}/{number}?{tls}"
    else:
        spelled = f"redis://{parts.netloc}/{number}"
    return spelled.replace(";", "%3B")  # it separates several brokers


def _is_address(host: str) -> bool:
    try:
        return "%" not in host and bool(ipaddress.ip_address(host))
    except ValueError:
        return False


def _exit_with(faults: list[Fault]) -> NoReturn:
    count = "one setting is" if len(faults) == 1 else f"{len(faults)} settings are"
    print(f"Pulsewatch cannot start: {count} wrong. Correct them and start again.", file=sys.stderr)
    for fault in faults:
        print(fault, file=sys.stderr)
    print("docs/configure.md explains every variable.", file=sys.stderr)
    sys.exit(1)


def _split(value: str) -> SplitResult | None:
    """The parts of a URL, or None when it is malformed (unbalanced bracket, port that is no port)."""
    try:
        parts = urlsplit(value)
        _ = parts.port
    except ValueError:
        return None
    return parts
