"""The recorded minutes of workloads, as the rules know them, and a window's figures as they are stored."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from django.db.models import Case, Func, IntegerField, Q, Value, When

from apps.health.models import UtilisationMinute
from apps.inventory.models import Workload
from apps.scaling.rules.usage import Load, Minute, Window

__all__ = ["Minute", "figures", "last_count", "minutes_of", "note_units"]

_COLUMNS = (
    *("workload_id", "expected", "reported", "units", "samples"),
    *("cpu_sum", "cpu_count", "warming_cpu_sum", "warming_cpu_count"),
    *("memory_sum", "memory_count", "warming_memory_sum", "warming_memory_count"),
)


def minutes_of(spans: Mapping[int, tuple[int, int]]) -> dict[int, list[Minute]]:
    """The minutes of each workload from a start to an end, in seconds since 1970, in one query."""
    groups: dict[tuple[int, int], list[int]] = {}
    for workload_id, span in spans.items():
        groups.setdefault(span, []).append(workload_id)
    wanted = Q()
    for (start, end), workload_ids in groups.items():
        wanted |= Q(workload__in=workload_ids, minute__gte=_moment(start), minute__lt=_moment(end))
    found: dict[int, list[Minute]] = {}
    if not groups:
        return found
    # Numbers all the way: of ninety days each moment would cost more as a datetime than the rest of its row.
    rows = UtilisationMinute.objects.filter(wanted).order_by().values_list(_Seconds("minute"), *_COLUMNS)
    # The table keeps warming instances apart; the rules want them as a part of all.
    for at, key, expected, ran, units, samples, c, cn, wc, wcn, m, mn, wm, wmn in rows.iterator(chunk_size=10_000):
        cpu, memory = Load(c + wc, cn + wcn, wc), Load(m + wm, mn + wmn, wm)
        found.setdefault(key, []).append(Minute(at, expected, ran, cpu, memory, units, samples))
    return found


class _Seconds(Func):
    """A moment as seconds since 1970."""

    output_field = IntegerField()

    def as_mysql(self, compiler: Any, connection: Any, **context: Any) -> Any:
        template = "TIMESTAMPDIFF(SECOND, '1970-01-01', %(expressions)s)"
        return self.as_sql(compiler, connection, template=template, **context)

    def as_sqlite(self, compiler: Any, connection: Any, **context: Any) -> Any:
        template = "CAST(strftime('%%%%s', %(expressions)s) AS INTEGER)"
        return self.as_sql(compiler, connection, template=template, **context)


def note_units(counts: Mapping[tuple[int, int], int]) -> None:
    """Write down how many instances the platform ran at the end of each workload's window, for replays."""
    if not counts:
        return
    whens, wanted = [], Q()
    for (workload_id, end), count in counts.items():
        place = Q(workload=workload_id, minute=_moment(end - 60))
        whens.append(When(place, then=Value(count)))
        wanted |= place
    UtilisationMinute.objects.filter(wanted).update(units=Case(*whens))


def last_count(workload: Workload) -> int:
    """How many instances ran in the newest minute that is known; 0 when none is."""
    newest = UtilisationMinute.objects.filter(workload=workload).order_by("-minute").first()
    return 0 if newest is None else (newest.expected if newest.units is None else newest.units)


def figures(window: Window) -> dict[str, Any]:
    """A window as a decision keeps it."""
    return {
        "start": _moment(window.start).isoformat().replace("+00:00", "Z"),
        "reported": round(window.reported, 2),
        "expected": round(window.expected, 2),
        **{
            metric: {
                "measured": None if usage.measured is None else round(usage.measured, 2),
                "up": round(usage.up, 2),
                "down": round(usage.down, 2),
            }
            for metric, usage in window.usage.items()
        },
    }


def _moment(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
