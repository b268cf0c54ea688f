"""Pages of lists by keyset: a page stays what it is while rows are added before it, and no page is slower to reach.

Nor is one slower to find. Of a large table one index gives the keys, in the order of the list, and only those rows are
read. What a client asks beyond that index is looked for among the next `WINDOW` of them: a page may be short of its
limit, even empty, although others follow. So each answer costs about the same, whatever is asked for.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.db.models import Case, Model, Q, QuerySet, Value, When

from apps.api import rules
from apps.api.refusals import Refused
from apps.api.schemas import Filters

WINDOW = 400  # keys; with a read of each of their rows and of what belongs to them, an answer stays below 1,000 rows

Order = Sequence[tuple[str, type]]


@dataclass(frozen=True, slots=True)
class Indexes:
    """Which columns an index serves together with the order of the list, the most telling first."""

    columns: Sequence[tuple[str, ...]]
    # What most rows are: it does not lead to few of them, so an index of it comes last.
    common: Mapping[str, Any] = field(default_factory=dict)

    def leading(self, equal: Mapping[str, Any]) -> tuple[str, ...]:
        """The columns of the index that is searched; none: the list's own order."""
        telling = {name for name, value in equal.items() if self.common.get(name) != value}
        for given in (telling, set(equal)):
            for columns in self.columns:
                if given.issuperset(columns):
                    return columns
        return ()


def page(rows: QuerySet[Any], given: Filters, *, noun: str, order: Order) -> dict[str, Any]:
    """One page of rows, ordered by these columns; a column with a minus before it goes down.

    The last column must be unique among these rows. All columns go the same way. Raises Refused (422) for a cursor of
    another list.
    """
    names = [name for name, _ in order]
    found: list[Model] = list(_behind(rows, given, noun, order).order_by(*names)[: given.limit + 1])
    items, more = found[: given.limit], len(found) > given.limit
    return {"items": items, "next": _mark(noun, order, items[-1]) if more else None}


def search(
    rows: QuerySet[Any], given: Filters, *, noun: str, order: Order, filters: Mapping[str, Any], indexes: Indexes
) -> dict[str, Any]:
    """One page of a large table. `filters`: by lookup; None is not asked for. Raises as `page` does."""
    names = [name for name, _ in order]
    columns = [name.removeprefix("-") for name in names]
    asked = {name: value for name, value in filters.items() if value is not None}
    bounds = {name: value for name, value in asked.items() if name.partition("__")[0] in columns}
    equal = {name: value for name, value in asked.items() if name not in bounds}
    leading = indexes.leading(equal)
    rest = {name: equal[name] for name in equal if name not in leading}
    looked_at = max(WINDOW, given.limit + 1) if rest else given.limit + 1
    # MariaDB reads all rows that equal something, from their end, to come to those below an identifier. Told of a range
    # that happens to hold one value, and of the order its index has, it goes there at once.
    narrow = {f"{name}__{side}": equal[name] for name in leading for side in ("gte", "lte")}
    keys = _behind(rows.model._default_manager.filter(**bounds, **narrow), given, noun, order)
    sign = "-" if names[0].startswith("-") else ""
    marks = list(keys.order_by(*(sign + name for name in leading), *names).values_list(*columns)[:looked_at])
    among = rows.filter(pk__in=[mark[-1] for mark in marks])
    if rest:
        # As a value, not as a condition, which would send the database to another index and all that it holds.
        among = among.alias(fits=Case(When(Q(**rest), then=Value(1)), default=Value(0))).filter(fits=1)
    found = list(among.order_by(*names)[: given.limit + 1])
    items, end = found[: given.limit], None
    if len(found) > given.limit:
        end = _mark(noun, order, items[-1])
    elif len(marks) == looked_at:
        end = rules.write_cursor(noun, marks[-1])
    return {"items": items, "next": end}


def _behind(rows: QuerySet[Any], given: Filters, noun: str, order: Order) -> QuerySet[Any]:
    """Those behind the cursor, if there is one."""
    if given.cursor is None:
        return rows
    try:
        values = rules.read_cursor(noun, given.cursor, [kind for _, kind in order])
    except rules.Unreadable as error:
        raise Refused(422, str(error), errors=[{"field": "cursor", "message": str(error)}]) from error
    names = [name for name, _ in order]
    return rows.filter(_beyond([name.removeprefix("-") for name in names], values, down=names[0].startswith("-")))


def _mark(noun: str, order: Order, row: Model) -> str:
    return rules.write_cursor(noun, [getattr(row, name.removeprefix("-")) for name, _ in order])


def _beyond(columns: Sequence[str], values: Sequence[Any], *, down: bool) -> Q:
    """Rows behind the mark. The first column bounds them by itself, so that its index is used."""
    after, bound = ("lt", "lte") if down else ("gt", "gte")
    condition = Q()
    for place in range(len(columns)):
        equal = {columns[before]: values[before] for before in range(place)}
        condition |= Q(**equal, **{f"{columns[place]}__{after}": values[place]})
    return Q(**{f"{columns[0]}__{bound}": values[0]}) & condition
