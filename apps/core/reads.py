"""Reads of single rows where each millisecond counts.

Django's QuerySet makes its statement anew each time, and a raw one looks up for each row how its columns are read. Here
a statement is written by hand, and both are found out once.
"""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, Generic, TypeVar

from django.db import DEFAULT_DB_ALIAS, connections
from django.db.models import Model

Row = TypeVar("Row", bound=Model)


class Reader(Generic[Row]):
    """Finds one row of a table. `end` is what follows its name in the statement; `extra`: expressions read with it."""

    def __init__(self, model: type[Row], end: str, *, extra: Sequence[str] = ()) -> None:
        self._model, self._end, self._extra = model, end, extra

    def first(self, parameters: Sequence[Any]) -> tuple[Row, tuple[Any, ...]] | None:
        """The row, and the values of `extra` as the driver gives them; None when there is none."""
        link = connections[DEFAULT_DB_ALIAS]
        with link.cursor() as cursor:
            cursor.execute(self._statement, parameters)
            found = cursor.fetchone()
        if found is None:
            return None
        count = len(self._names)
        values = list(found[:count])
        for place, expression, convert in self._converters:
            values[place] = convert(values[place], expression, link)
        return self._model.from_db(link.alias, self._names, values), tuple(found[count:])

    @cached_property
    def _names(self) -> list[str]:
        return [field.attname for field in self._model._meta.concrete_fields]

    @cached_property
    def _statement(self) -> str:
        quote = connections[DEFAULT_DB_ALIAS].ops.quote_name
        table = quote(self._model._meta.db_table)
        columns = [f"{table}.{quote(str(field.column))}" for field in self._model._meta.concrete_fields]
        return " ".join(("SELECT", ", ".join([*columns, *self._extra]), "FROM", table, self._end))

    @cached_property
    def _converters(self) -> list[tuple[int, Any, Callable[[Any, Any, Any], Any]]]:
        """Place, column and converter, for each that changes what the driver gives."""
        link = connections[DEFAULT_DB_ALIAS]
        found = []
        for place, field in enumerate(self._model._meta.concrete_fields):
            column = field.get_col(self._model._meta.db_table)
            converters = (*link.ops.get_db_converters(column), *column.get_db_converters(link))
            found += [(place, column, convert) for convert in converters]
        return found
