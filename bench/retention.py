"""What it takes to delete an hour of raw checks: ours, in small portions, against one DELETE of as many rows."""

import os
from collections.abc import Callable
from datetime import datetime, timedelta

from bench import tables
from bench.measure import Cost, Report, median

HOUR = timedelta(hours=1)
PAIRS = 3  # of hours, one deleted each way; before them one of each that is not counted
HOURS = 2 * (PAIRS + 1)  # that a table must have for this


def compare(report: Report, *, table: str, at: str, oldest: datetime, rows: int, at_most: float | None = None) -> None:
    """Delete the oldest hours by turns, `rows` each and all summed up. `at_most`: seconds for an hour of ours."""
    pairs, longest = [], 0.0
    for turn in range(PAIRS + 1):
        hour = oldest + 2 * turn * HOUR
        ours, statements = _cost(lambda hour=hour: _delete(hour, rows))
        statement = f"DELETE FROM {table} WHERE {at} >= %s AND {at} < %s"
        bare, _ = _cost(lambda hour=hour, statement=statement: tables.execute(statement, hour + HOUR, hour + 2 * HOUR))
        pairs.append((ours, bare))
        longest = max(longest, *statements) if turn else 0.0
    ours, bare = (median(costs) for costs in zip(*pairs[1:], strict=True))
    title = f"an hour of {table}, {rows:,} rows"
    report.note(f"load of the machine: {os.getloadavg()[0]:.1f}; CPU with what the server clears away afterwards")
    report.cost(f"{title}, deleted", ours)
    report.cost("one DELETE of as many", bare)
    if at_most is not None:
        report.ratio(f"seconds to delete {title}", ours.seconds, at_most=at_most)
    report.ratio(f"CPU to delete {title}, against one DELETE of as many", ours.cpu / bare.cpu, at_most=2)
    report.ratio("seconds of the longest of our statements, which is what others wait for", longest, at_most=1)


def _delete(hour: datetime, rows: int) -> None:
    from apps.health import retention

    # As if it were the time at which this hour, and no later one, has to go.
    deleted = retention.delete_old(hour + 25 * HOUR)
    assert deleted == rows, deleted


def _cost(work: Callable[[], object]) -> tuple[Cost, list[float]]:
    """What it takes, CPU until the server has cleared away; and the seconds of each statement."""
    tables.rest()
    with tables.statements() as taken:
        cost = tables.cost(work)
    there = tables.server_cpu()
    tables.rest()
    return Cost(cost.seconds, cost.cpu + tables.server_cpu() - there), taken
