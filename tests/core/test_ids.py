"""Identifiers differ, also between processes that are forks of one."""

import os
from datetime import UTC, datetime, timedelta

import pytest

from apps.core import ids


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")  # as Python 3.12 says
def test_forked_processes_do_not_go_on_with_the_same_suffixes():
    ids.suffix(source=ids.fast)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, ids.suffix(source=ids.fast).encode())
        os._exit(0)
    os.waitpid(child, 0)
    theirs = os.read(reading, 100).decode()
    os.close(reading)
    os.close(writing)

    assert len(theirs) == ids.SUFFIX_LENGTH
    assert theirs != ids.suffix(source=ids.fast)


def test_suffixes_in_order_sort_as_the_moments_of_a_second_do():
    start = datetime(2026, 3, 1, tzinfo=UTC)
    moments = [start + timedelta(microseconds=n) for n in (0, 1, 35, 36, 999_999)]
    found = [ids.in_order(moment) for moment in moments]

    assert found == sorted(found) == ["0000", "0001", "000z", "0010", "lflr"]
    assert ids.in_order(moments[-1], 7) > found[-1]
