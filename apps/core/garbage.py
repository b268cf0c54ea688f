"""Python's look for garbage, where it costs more than it finds: among many objects that live long and make no cycle."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

# Objects before a look for garbage, and looks before one at older objects (Python: 700, 10, 10).
SELDOM = (50_000, 10, 20)
_usual: list[tuple[int, int, int]] = []  # what held before, for each part of this process that wants it seldom


@contextmanager
def seldom() -> Iterator[None]:
    """Look for garbage seldom, until the last part of this process that asked for it ends; what was frozen thaws."""
    _usual.append(_usual[0] if _usual else gc.get_threshold())
    gc.set_threshold(*SELDOM)
    try:
        yield
    finally:
        before = _usual.pop()
        if not _usual:
            gc.unfreeze()
            gc.set_threshold(*before)


@contextmanager
def never() -> Iterator[None]:
    """Do not look for it meanwhile."""
    searched = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if searched:
            gc.enable()
