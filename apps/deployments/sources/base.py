"""What other systems tell about deployments, as plain values: no rows, no Django, nothing fetched.

A payload is somebody else's: every field may be missing, of another type, or hold anything. Reading one never raises.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from apps.deployments.rules.transitions import is_semantic
from apps.inventory.rules import http_url_fault

QUEUED, IN_PROGRESS, COMPLETED, FAILED, CANCELLED = "queued", "in_progress", "completed", "failed", "cancelled"

MAX_VERSION = 64  # characters of a version
MAX_MESSAGE = 500  # of a commit message or an error
MAX_NAME = 150  # of whoever did it
MAX_LINK = 500
MAX_ID = 128  # of what the sender calls the deployment

# What environments are usually called, in lower case.
ENVIRONMENTS = {
    **dict.fromkeys(("production", "prod", "live"), "production"),
    **dict.fromkeys(("staging", "stage", "stg", "pre-production", "preprod"), "staging"),
    **dict.fromkeys(("development", "develop", "dev"), "development"),
}

_COMMIT = re.compile(r"[0-9a-fA-F]{7,40}")
# Git's addresses: https://host/owner/name.git, ssh://git@host:22/owner/name, git@host:owner/name.git
_ADDRESS = re.compile(
    r"(?:[a-z][a-z+]*://(?:[^/@\s]*@)?(?P<host>[^/:\s]+|\[[^\]\s]*\])(?::\d+)?/|(?:[^/@:\s]+@)(?P<scp>[^/:\s]+):/?)"
    r"(?P<path>[^?#\s]+)"
)
_BELOW_ROOT = re.compile(r"/(?:-/)?(?:tree|blob|commit|commits|actions|pull|releases)(?:/.*)?\Z")


@dataclass(frozen=True, slots=True)
class Report:
    """What a sender says became of one deployment."""

    external_id: str  # what the sender calls the deployment; all reports about it carry the same
    status: str  # queued, in_progress, completed, failed or cancelled
    repository: str  # as `repository_key` gives it; empty when the sender names none
    environment: str  # the sender's own name for it
    version: str
    commit_sha: str
    commit_message: str = ""
    triggered_by: str = ""
    claimed_at: datetime | None = None  # when the sender says it happened; the order of reports does not rest on it
    committed_at: datetime | None = None  # when the commit was made
    github_run_id: str | None = None
    log_url: str | None = None
    deployment_url: str | None = None
    error_message: str = ""
    service: str = ""  # a service's slug, where several come from one repository
    place: tuple[str, str] | None = None  # Zeabur's ids of service and environment


@dataclass(frozen=True, slots=True)
class RunEnded:
    """A CI run has ended, and with it whatever deployment it had started and not finished."""

    repository: str
    run_id: str
    status: str  # completed, failed or cancelled
    detail: str
    attempt: int | None = None  # 1 for the first; a run that is repeated keeps its id
    claimed_at: datetime | None = None
    log_url: str | None = None
    commit_sha: str = ""  # what it ran for, with the time it was made
    committed_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Ignored:
    """Nothing to do, and why."""

    reason: str


Event = Report | RunEnded | Ignored


def repository_key(address: str) -> str:
    """One name for a repository however its address is written, such as `github.com/acme/shop`; empty if it is none."""
    found = _ADDRESS.match(address.strip().lower())
    if found is None:
        return ""
    host = (found["host"] or found["scp"]).removeprefix("www.")
    path = _BELOW_ROOT.sub("", found["path"]).strip("/").removesuffix(".git").strip("/")
    return f"{host}/{path}" if "/" in path else ""


def environment_of(name: str, known: Mapping[str, str]) -> str:
    """Our environment for a sender's name; empty when it has none.

    `known` maps names in lower case and comes before ENVIRONMENTS. Platforms write "Production - shop" for the
    environment of a project: what stands before a dash or slash with spaces around it counts too.
    """
    whole = " ".join(name.lower().split())
    first = re.split(r" [-–—/|] ", whole, maxsplit=1)[0]  # noqa: RUF001  (dashes as Vercel and others write them)
    names = {**ENVIRONMENTS, **known}
    return names.get(whole) or names.get(first) or ""


def version_of(ref: str, commit_sha: str, named: str = "") -> str:
    """The version: what the sender names, else the tag, else the commit. One that is not semantic is none of ours."""
    tag = ref.removeprefix("refs/tags/")
    return next(filter(is_semantic, (named, tag)), commit_sha)


def mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def text(value: object, limit: int) -> str:
    """A text without control characters and halves of characters, which no database takes; else an empty one."""
    if not isinstance(value, str):
        return ""
    kept = "".join(letter if letter.isprintable() else " " for letter in value[: 4 * limit])
    return " ".join(kept.split())[:limit]


def identifier(value: object) -> str:
    """A number or short word that names something of the sender's; else an empty text."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63:
        return str(value)
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9_-]{1,64}", value):
        return value
    return ""


def commit(value: object) -> str:
    """A commit in lower case, or an empty text."""
    return value.lower() if isinstance(value, str) and _COMMIT.fullmatch(value) else ""


def link(value: object) -> str | None:
    """A web address without credentials, or None."""
    fits = isinstance(value, str) and len(value) <= MAX_LINK and value.isprintable() and not http_url_fault(value)
    return str(value) if fits else None


def moment(value: object) -> datetime | None:
    """A time with its zone that a database can hold, in UTC; else None."""
    if not isinstance(value, str) or len(value) > 40:
        return None
    try:
        given = datetime.fromisoformat(value)
        given = given.astimezone(UTC) if given.tzinfo is not None else given
    except (ValueError, OverflowError):
        return None
    return given if given.tzinfo is not None and 1970 <= given.year <= 9000 else None
