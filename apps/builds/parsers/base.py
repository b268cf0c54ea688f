"""What a parser is: bytes in, plain values out, in bounded memory, and no error but BadReport."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from apps.builds.paths import BadPath, Place
from apps.core.errors import Invalid

MAX_BYTES = 32 * 1024 * 1024  # of one report; the API's own limit
MAX_FOUND = 200_000  # diagnostics of one report, twice what was asked of a large one: bounds the memory it takes
BLOCK = 64 * 1024  # bytes read at once


class BadReport(Invalid):
    """The report cannot be read. The text says where it is wrong; nothing of it is kept."""

    def __init__(self, message: str, *, field: str = "report") -> None:
        super().__init__(message, field=field)


class Stream(Protocol):
    """Anything with read(): a file, a request's body."""

    def read(self, size: int, /) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Found:
    """One diagnostic. `file` is the path from the root, empty when it belongs to no file; line and column begin at 1
    and are None when the tool names no place.
    """

    file: str
    line: int | None
    column: int | None
    level: str
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Run:
    """What one tool says. `doubts` are sentences that tell why this may not be all it had to say."""

    tool: str
    found: Sequence[Found]
    doubts: tuple[str, ...] = ()
    suppressed: int = 0  # left out, because the source itself says so


class Parser(Protocol):
    """Reads a report to its end, at most once for each tool. Raises BadReport and nothing else."""

    def __call__(self, stream: Stream, place: Place) -> list[Run]: ...


class Bounded:
    """A stream that ends with BadReport when it turns out too long."""

    def __init__(self, stream: Stream) -> None:
        self._stream, self._left = stream, MAX_BYTES

    def read(self, size: int = BLOCK, /) -> bytes:
        block = self._stream.read(size)
        self._left -= len(block)
        if self._left < 0:
            raise BadReport(f"The report is larger than {MAX_BYTES // 1024**2} MiB: report in parts.")
        return block


def located(place: Place, path: str) -> str:
    """The path from the root; BadReport when there is none."""
    try:
        return place.relative(path)
    except BadPath as error:
        raise BadReport(str(error)) from error


def too_many() -> BadReport:
    return BadReport(f"The report holds more than {MAX_FOUND:,} diagnostics: report in parts.")
