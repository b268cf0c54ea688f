"""What the benchmarks of large tables share: statements, a server that has settled, what a piece of work costs it."""

import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.measure import Cost

CALLS = 20  # of what takes milliseconds
PAUSE = 0.5  # seconds between two looks at whether the server still works
DEADLINE = 120  # seconds until it has settled


def execute(statement: str, *values: object) -> None:
    """One statement."""
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute(statement, values)


def prepare(pool: int) -> None:
    """A buffer pool of so many bytes, and leave to write to the disk as fast as it goes."""
    execute(f"SET GLOBAL innodb_buffer_pool_size = {pool}")
    execute("SET GLOBAL innodb_io_capacity_max = 40000, GLOBAL innodb_io_capacity = 20000")


@contextmanager
def filling() -> Iterator[None]:
    """Rows of our own making are not checked one by one meanwhile."""
    checks = ("unique_checks", "foreign_key_checks", "check_constraint_checks")
    execute(f"SET {', '.join(f'{name} = 0' for name in checks)}")
    yield
    execute(f"SET {', '.join(f'{name} = 1' for name in checks)}")


def settle(*tables: str) -> None:
    """Wait until the server has done what it still owes: it would be measured with what comes next."""
    execute(f"ANALYZE TABLE {', '.join(tables)}")
    execute("SET GLOBAL innodb_max_dirty_pages_pct_lwm = 0.001, GLOBAL innodb_max_dirty_pages_pct = 0")
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline and _dirty_pages() >= 100:
        time.sleep(PAUSE)
    rest()
    execute("SET GLOBAL innodb_max_dirty_pages_pct = 90, GLOBAL innodb_max_dirty_pages_pct_lwm = 0")


def rest() -> None:
    """Wait until the server has cleared away the rows that were deleted: it does so after the statement."""
    execute("SET GLOBAL innodb_max_purge_lag_wait = 0")


def _dirty_pages() -> int:
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("SHOW GLOBAL STATUS LIKE 'Innodb_buffer_pool_pages_dirty'")
        return int(cursor.fetchone()[1])


def server_cpu() -> float:
    """Seconds of CPU the database server has taken so far."""
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("SELECT @@pid_file")
        pid = Path(cursor.fetchone()[0]).read_text().strip()
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def cost(work: Callable[[], object]) -> Cost:
    """What it takes: seconds, and the CPU of this process and of the server."""
    server, own, started = server_cpu(), time.process_time(), time.perf_counter()
    work()
    seconds = time.perf_counter() - started
    return Cost(seconds, time.process_time() - own + server_cpu() - server)


def milliseconds(work: Callable[[], object]) -> float:
    """The median of some calls."""
    return 1000 * statistics.median(_seconds(work) for _ in range(CALLS))


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


@contextmanager
def statements() -> Iterator[list[float]]:
    """The seconds each statement took meanwhile."""
    from django.db import connection

    taken: list[float] = []

    def timed(run: Callable[..., Any], *given: Any) -> Any:
        started = time.perf_counter()
        try:
            return run(*given)
        finally:
            taken.append(time.perf_counter() - started)

    with connection.execute_wrapper(timed):
        yield taken


def bytes_per_row(table: str, rows: int) -> tuple[float, float]:
    """Of the rows themselves, and of the indexes beside them."""
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT data_length, index_length FROM information_schema.tables"
            " WHERE table_schema = DATABASE() AND table_name = %s",
            [table],
        )
        data, indexes = cursor.fetchone()
    return data / rows, indexes / rows
