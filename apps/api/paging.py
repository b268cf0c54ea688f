"""Pages of lists by keyset: a page stays what it is while rows are added before it, and no page is slower to reach."""

from collections.abc import Sequence
from typing import Any

from django.db.models import Model, Q, QuerySet

from apps.api import rules
from apps.api.refusals import Refused
from apps.api.schemas import Filters


def page(rows: QuerySet[Any], given: Filters, *, noun: str, order: Sequence[tuple[str, type]]) -> dict[str, Any]:
    """One page of rows, ordered by these columns; a column with a minus before it goes down.

    The last column must be unique. All columns go the same way. Raises Refused (422) for a cursor of another list.
    """
    names = [name for name, _ in order]
    columns = [name.removeprefix("-") for name in names]
    if given.cursor is not None:
        try:
            values = rules.read_cursor(noun, given.cursor, [kind for _, kind in order])
        except rules.Unreadable as error:
            raise Refused(422, str(error), errors=[{"field": "cursor", "message": str(error)}]) from error
        rows = rows.filter(_beyond(columns, values, down=names[0].startswith("-")))
    found: list[Model] = list(rows.order_by(*names)[: given.limit + 1])
    more = len(found) > given.limit
    items = found[: given.limit]
    mark = rules.write_cursor(noun, [getattr(items[-1], column) for column in columns]) if more else None
    return {"items": items, "next": mark}


def _beyond(columns: Sequence[str], values: Sequence[Any], *, down: bool) -> Q:
    """Rows behind the mark. The first column bounds them by itself, so that its index is used."""
    after, bound = ("lt", "lte") if down else ("gt", "gte")
    condition = Q()
    for place in range(len(columns)):
        equal = {columns[before]: values[before] for before in range(place)}
        condition |= Q(**equal, **{f"{columns[place]}__{after}": values[place]})
    return Q(**{f"{columns[0]}__{bound}": values[0]}) & condition
