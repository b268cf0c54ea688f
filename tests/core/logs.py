"""A logger whose lines can be looked at, and errors as they chain."""

import io
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from apps.core.logging import (
    EVENT_TYPES,
    JsonFormatter,
    RedactionFilter,
)

ROOT = Path(__file__).parent.parent.parent
ALWAYS = ["timestamp", "level", "logger", "message", "event", "event_type", "module", "function"]
# Ours, and one that knows nothing: the filter alone must do.
FORMATTERS = (JsonFormatter(), logging.Formatter("%(levelname)s %(message)s"))
ANY_FORMATTER = st.sampled_from(FORMATTERS)


class Log:
    """A logger of its own, outside pytest's, that keeps what it wrote."""

    def __init__(self, name: str = "apps.core.x", formatter: logging.Formatter | None = None, *, filtered: bool = True):
        self.stream = io.StringIO()
        handler = logging.StreamHandler(self.stream)
        handler.setFormatter(formatter or JsonFormatter())
        if filtered:
            handler.addFilter(RedactionFilter())
        self.logger = logging.Logger(name, logging.DEBUG)  # noqa: LOG001  (it shall not be the one that others configure)
        self.logger.addHandler(handler)

    def raw(self) -> str:
        text = self.stream.getvalue()
        self.stream.seek(0)
        self.stream.truncate()
        return text

    def lines(self) -> list[dict[str, Any]]:
        return [strict(line) for line in self.raw().splitlines()]

    def line(self) -> dict[str, Any]:
        [line] = self.lines()
        return line


def strict(line: str) -> dict[str, Any]:
    """The object of a line that every JSON reader would accept."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    assert line.isascii()
    value = json.loads(line, parse_constant=refuse)
    assert isinstance(value, dict)
    assert list(value)[: len(ALWAYS)] == ALWAYS
    assert all(isinstance(value[name], str) for name in ALWAYS)
    assert value["event_type"] in EVENT_TYPES
    return value


def record_of(**attributes: object) -> logging.LogRecord:
    return logging.makeLogRecord({"name": "x", "levelno": logging.INFO, "levelname": "INFO", **attributes})


def everything(value: object) -> str:
    """All keys and texts of a line, unescaped."""
    if isinstance(value, dict):
        return "\n".join(everything(item) for pair in value.items() for item in pair)
    if isinstance(value, list):
        return "\n".join(map(everything, value))
    return str(value)


def raised(error: BaseException, cause: BaseException | None = None) -> BaseException:
    try:
        raise error from cause
    except BaseException as caught:
        return caught


def during(first: BaseException, second: BaseException) -> BaseException:
    try:
        try:
            raise first
        except BaseException:
            raise second  # noqa: B904  (the missing `from` is what is tested)
    except BaseException as caught:
        return caught


def noted(text: str) -> BaseException:
    error = raised(ValueError("bad"))
    error.add_note(text)
    return error


def group(text: str) -> BaseException:
    inner = ExceptionGroup("inner", [raised(KeyError("x"), raised(ValueError(text))), noted(text)])
    return raised(ExceptionGroup(text, [TypeError("y"), inner]))


CHAINS: dict[str, Callable[[str], BaseException]] = {
    "message": lambda text: raised(ValueError(text)),
    "cause": lambda text: raised(RuntimeError("outer"), raised(ValueError(text))),
    "context": lambda text: during(ValueError(text), KeyError("outer")),
    "cause of a context": lambda text: during(raised(KeyError("x"), raised(ValueError(text))), TypeError("outer")),
    "note": noted,
    "cause with a note": lambda text: raised(RuntimeError("outer"), noted(text)),
    "group": group,
    "several arguments": lambda text: raised(OSError(2003, text, "file")),
    "argument of another type": lambda text: raised(ValueError({"password": text}, text)),
    "never raised": ValueError,
}
