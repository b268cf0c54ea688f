"""Reads JSON as a stream, value by value: what nobody asks for is passed over and never held."""

from collections.abc import Callable, Iterator
from typing import Any

import ijson

from apps.builds.parsers.base import BLOCK, BadReport, Bounded
from apps.builds.rules import MAX_MESSAGE, MAX_NUMBER

MAX_DEPTH = 200  # of nested values; property bags of real tools have fewer than ten
MAX_TABLE = 200_000  # entries of one array
MAX_TEXT = 300  # characters kept of a name or id
# What reading a damaged text may raise.
ERRORS = (ijson.JSONError, ValueError, OverflowError)


class _Unmarked:
    """The stream without a byte order mark, which JSON does not have and some tools write."""

    def __init__(self, stream: Bounded) -> None:
        self._stream, self._begun = stream, False

    def read(self, size: int, /) -> bytes:
        block = self._stream.read(size)
        if self._begun or not size:  # ijson asks for nothing first, to see whether it gets bytes
            return block
        self._begun = True
        return block.removeprefix(b"\xef\xbb\xbf") or self._stream.read(size)


class Reader:
    """Pulls values out of the stream of JSON events. Each method reads exactly one value; null reads as its absence."""

    def __init__(self, stream: Bounded) -> None:
        self._events = ijson.basic_parse(_Unmarked(stream), buf_size=BLOCK, use_float=True)
        self._next: Callable[[], tuple[str, Any]] = self._events.__next__
        self._ahead: tuple[str, Any] | None = None

    def _take(self) -> tuple[str, Any]:
        if self._ahead is not None:
            event, self._ahead = self._ahead, None
            return event
        return self._next()

    def skip(self) -> None:
        event, _ = self._take()
        if event not in ("start_map", "start_array"):
            return
        depth, advance = 1, self._next
        while depth:
            event, _ = advance()
            if event in ("start_map", "start_array"):
                depth += 1
                if depth > MAX_DEPTH:
                    raise BadReport(f"The report is nested deeper than {MAX_DEPTH} levels.")
            elif event in ("end_map", "end_array"):
                depth -= 1

    def members(self, what: str) -> Iterator[str]:
        """The keys of an object; the caller reads each one's value."""
        event, _ = self._take()
        if event == "null":
            return
        if event != "start_map":
            raise BadReport(f"In the report {what} must be an object.")
        while True:
            event, key = self._take()
            if event == "end_map":
                return
            yield key

    def items(self, what: str, limit: int = MAX_TABLE) -> Iterator[int]:
        """The numbers of an array's items; the caller reads each one."""
        event, _ = self._take()
        if event == "null":
            return
        if event != "start_array":
            raise BadReport(f"In the report {what} must be an array.")
        number = 0
        while True:
            ahead = self._take()
            if ahead[0] == "end_array":
                return
            if number >= limit:
                raise BadReport(f"In the report {what} has more than {limit:,} entries: report in parts.")
            self._ahead = ahead
            yield number
            number += 1

    def null(self) -> bool:
        """Whether the next value is null; then it is read."""
        event = self._take()
        self._ahead = None if event[0] == "null" else event
        return event[0] == "null"

    def text(self, what: str, limit: int = MAX_MESSAGE * 2) -> str:
        event, value = self._take()
        if event == "null":
            return ""
        if event != "string":
            raise BadReport(f"In the report {what} must be a text.")
        return str(value[:limit])

    def number(self, what: str) -> int | None:
        event, value = self._take()
        if event == "null":
            return None
        if event != "number" or value != int(value) or abs(value) > MAX_NUMBER:
            raise BadReport(f"In the report {what} must be a whole number below 2^31.")
        return int(value)

    def index(self, what: str) -> int:
        number = self.number(what)
        return -1 if number is None else number

    def place(self, what: str) -> int | None:
        """A line or column. Some tools write 0 where they know none."""
        number = self.number(what)
        if number is not None and number < 0:
            raise BadReport(f"In the report {what} must not be negative.")
        return number or None

    def flag(self, what: str) -> bool | None:
        event, value = self._take()
        if event not in ("boolean", "null"):
            raise BadReport(f"In the report {what} must be true or false.")
        return bool(value) if event == "boolean" else None

    def end(self) -> None:
        for _ in self._events:
            raise BadReport("The report goes on after the end of its JSON text.")
