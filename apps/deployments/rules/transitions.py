"""Which status follows which, and what a version, a commit and a report may look like."""

import re
from collections.abc import Mapping
from datetime import datetime, timedelta

from apps.core.errors import Conflict, Invalid

# The words are those of apps.deployments.choices; plain strings here keep the rules free of Django.
QUEUED, IN_PROGRESS, COMPLETED = "queued", "in_progress", "completed"
FAILED, CANCELLED, ROLLED_BACK = "failed", "cancelled", "rolled_back"
DEPLOYMENT, ROLLBACK = "deployment", "rollback"
OPEN = (QUEUED, IN_PROGRESS)

# Other systems' words for the same.
ALIASES: Mapping[str, str] = {"deploying": IN_PROGRESS, "success": COMPLETED}

_NEXT: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    DEPLOYMENT: {QUEUED: (IN_PROGRESS, CANCELLED), IN_PROGRESS: (COMPLETED, FAILED)},
    ROLLBACK: {QUEUED: (IN_PROGRESS,), IN_PROGRESS: (ROLLED_BACK, FAILED)},
}
# How far along a status is. A report that would lead back is late, whatever time it claims.
_PROGRESS: Mapping[str, int] = {QUEUED: 0, IN_PROGRESS: 1, COMPLETED: 2, FAILED: 2, CANCELLED: 2, ROLLED_BACK: 2}

MAX_VERSION = 64  # characters, as a health sample's column has
MAX_ATTEMPT = 32_767  # of a CI run; GitHub allows fewer
MAX_MESSAGE = 500  # characters of a commit message that are kept
# A worker that asks a platform records within this time how it ended, or is dead: all attempts together take 60 s.
ASKING = timedelta(seconds=90)
CLOCK_SKEW = timedelta(minutes=5)  # another machine's clock may run ahead of ours by this much

_SEMVER = re.compile(
    r"v?(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)"
    r"(-(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)(\.(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*))*)?"
    r"(\+[0-9a-zA-Z-]+(\.[0-9a-zA-Z-]+)*)?",
    re.ASCII,
)
_HEX = re.compile(r"[0-9a-fA-F]{7,40}")


def status_of(word: str) -> str:
    """The status a word means, aliases included. Raises Invalid for an unknown one."""
    status = ALIASES.get(word, word)
    if status not in _PROGRESS:
        raise Invalid(f"There is no such status; use one of {', '.join((*_PROGRESS, *ALIASES))}.", field="status")
    return status


def next_statuses(kind: str, status: str) -> tuple[str, ...]:
    """What may follow; empty once a deployment has ended."""
    return _NEXT[kind].get(status, ())


def check_move(kind: str, status: str, to: str) -> None:
    """Raises Conflict, which names the legal statuses, unless `to` may follow `status`."""
    legal = next_statuses(kind, status)
    if to in legal:
        return
    if not legal:
        raise Conflict(f"This {kind} has ended as {status}; nothing follows. Start a new one.", facts={"legal": []})
    raise Conflict(
        f"A {kind} that is {status} cannot become {to}; it may become {' or '.join(legal)}.",
        facts={"legal": list(legal)},
    )


def is_late(status: str, reported: str) -> bool:
    """Whether a report of `reported` tells nothing new about a deployment that is `status` already."""
    return _PROGRESS[reported] <= _PROGRESS[status]


def is_semantic(text: str) -> bool:
    """Whether it is a semantic version, with or without v, that can be kept."""
    return len(text) <= MAX_VERSION and _SEMVER.fullmatch(text) is not None


def check_version(text: str) -> str:
    """The version as given. Raises Invalid unless it is a semantic version or a commit."""
    if not is_semantic(text) and not _HEX.fullmatch(text):
        raise Invalid(
            f"Give a semantic version such as v1.2.3, or a commit of 7 to 40 hexadecimal digits "
            f"(at most {MAX_VERSION} characters).",
            field="version",
        )
    return text


def spellings(version: str, commit: str) -> tuple[str, ...]:
    """The ways people write one version: with and without v; a commit short, as given and in full."""
    if is_semantic(version):
        bare = version.removeprefix("v")
        return (bare, f"v{bare}")
    return tuple(dict.fromkeys((version, commit[:7], commit)))


def check_commit(text: str) -> str:
    """The commit in lower case. Raises Invalid unless it has 7 to 40 hexadecimal digits."""
    if not _HEX.fullmatch(text):
        raise Invalid("Give the commit as 7 to 40 hexadecimal digits.", field="commit_sha")
    return text.lower()


def cut_message(text: str) -> str:
    """A commit message as it is kept: without what no database stores, cut at 500 characters."""
    return text.replace("\x00", "")[:MAX_MESSAGE]


def check_past(moment: datetime | None, *, now: datetime, field: str) -> datetime | None:
    """The moment as given. Raises Invalid for one in the future, or without a zone."""
    if moment is None:
        return None
    if moment.tzinfo is None:
        raise Invalid("Give the time with its zone, such as 2025-10-20T14:30:52Z.", field=field)
    if moment > now + CLOCK_SKEW:
        raise Invalid("This time lies in the future; give one that has passed, with its zone.", field=field)
    return min(moment, now)
