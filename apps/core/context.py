"""What the running request or task is called, so that every log line can say so.

The middleware binds the fields of a request, the Celery hooks bind the id of a task; the log formatter reads them. Who
is signed in turns out in the middle of a request, so a request binds a way to find out, which must cost no query.
The fields live in a context variable: each thread and each asyncio task sees its own.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True, slots=True)
class Context:
    """The request or task that is running; a field is None where it does not apply."""

    request_id: str | None = None
    user_id: str | None = None
    ip_address: str | None = None
    method: str | None = None
    path: str | None = None
    task_id: str | None = None
    find_user_id: Callable[[], str | None] | None = None


_NOTHING = Context()
_current: ContextVar[Context] = ContextVar("pulsewatch_context", default=_NOTHING)


def current() -> Context:
    """The context of the code that runs now; all fields None outside of requests and tasks."""
    now = _current.get()
    if now.user_id is None and now.find_user_id is not None and (user_id := now.find_user_id()) is not None:
        return replace(now, user_id=user_id)
    return now


@contextmanager
def bind(**fields: Any) -> Iterator[Context]:
    """Set fields for the block, on top of those already bound; the former ones return when it ends.

    Raises TypeError for a name that is no field of `Context`.
    """
    token = _current.set(replace(_current.get(), **fields))
    try:
        yield _current.get()
    finally:
        _current.reset(token)
