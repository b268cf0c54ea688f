"""Inserts that are cheap: single rows where each millisecond counts, and thousands in one statement.

Django's `save` and `bulk_create` serve every case there is: signals, parents, keys that come back. A row here is a row
of one table and nothing is read back, which costs a third. The columns are told once for a table, and the rows of a
report, which are never objects, come as the driver takes them.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from itertools import chain
from typing import Any, TypeVar

from django.db import DEFAULT_DB_ALIAS, IntegrityError, OperationalError, connection, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import AutoField, BooleanField, CharField, Field, ForeignKey, IntegerField, Model, TextField
from django.db.models.constants import OnConflict

Item = TypeVar("Item")

SLICE = 1000  # rows of one statement; 2,000 are no faster, and a statement stays far below max_allowed_packet


def insert(objects: Iterable[Model]) -> None:
    """Insert new objects of one model, their times of change set. They do not learn a key the database gives them."""
    rows = list(objects)
    if not rows:
        return
    link = connections[DEFAULT_DB_ALIAS]  # itself: its stand-in `connection` looks it up for each thing it is asked
    model = type(rows[0])
    columns = _columns(model)
    values = [[column.of(row, link) for column in columns] for row in rows]
    Inserter(model, [column.field.name for column in columns]).insert(values)
    for row in rows:
        row._state.adding, row._state.db = False, link.alias


_waiting: ContextVar[list[tuple[str, list[Any]]] | None] = ContextVar("inserts_waiting", default=None)


@contextmanager
def together() -> Iterator[None]:
    """Write at its end what is inserted inside, on MariaDB and MySQL in one round trip.

    Until then nothing of it can be read, and a constraint it violates is met only then.
    """
    waiting: list[tuple[str, list[Any]]] = []
    mark = _waiting.set(waiting)
    try:
        yield
    finally:
        _waiting.reset(mark)
    link = connections[DEFAULT_DB_ALIAS]
    with link.cursor() as cursor:
        if waiting and link.vendor == "mysql":
            statements, values = zip(*waiting, strict=True)
            cursor.execute("; ".join(statements), list(chain.from_iterable(values)))
            _meet(cursor)
        else:
            for statement, parameters in waiting:
                cursor.execute(statement, parameters)


def _meet(cursor: Any) -> None:
    """What a second statement has met is told when its result is asked for, there without Django's names for it."""
    try:
        while cursor.nextset():
            pass
    except OperationalError as error:
        if error.args[0] in cursor.cursor.codes_for_integrityerror:
            raise IntegrityError(*error.args) from error
        raise


@dataclass(frozen=True, slots=True)
class _Column:
    """What a new row is given in one place."""

    field: "Field[Any, Any]"
    attname: str
    plain: frozenset[type]  # what the driver takes as it is
    stamped: bool  # with the time of the change

    def of(self, row: Model, link: BaseDatabaseWrapper) -> Any:
        value = self.field.pre_save(row, True) if self.stamped else getattr(row, self.attname)
        return value if type(value) in self.plain else self.field.get_db_prep_save(value, link)


_STAMPS = ("auto_now", "auto_now_add")


@cache
def _columns(model: type[Model]) -> tuple[_Column, ...]:
    """The columns a new row is given; the others are the database's own."""
    return tuple(
        _Column(field, field.attname, _plain(field), any(getattr(field, kind, False) for kind in _STAMPS))
        for field in model._meta.concrete_fields
        if not (field.generated or isinstance(field, AutoField))
    )


def _plain(field: "Field[Any, Any]") -> frozenset[type]:
    """Exactly these types: what only looks like one of them, such as a choice's name, goes the long way."""
    while isinstance(field, ForeignKey):
        field = field.target_field
    for kind, taken in ((CharField, str), (TextField, str), (IntegerField, int), (BooleanField, bool)):
        if isinstance(field, kind):
            return frozenset({taken, type(None)})
    return frozenset()


class Inserter:
    """Writes rows of one table. `names`: the fields in the order of a row's values, which are as the driver takes them.

    What is the same in all rows of a report stands behind what differs: a row may then be made of two tuples.
    """

    def __init__(self, model: type[Model], names: Sequence[str]) -> None:
        self._target, self._row = _shape(model, tuple(names), connection.vendor)
        self._model = model

    def insert(self, rows: Sequence[Sequence[Any]]) -> int:
        """Insert all of them; how many."""
        statement, waiting = connection.ops.insert_statement(), _waiting.get()
        if waiting is None:
            return self._write(rows, statement, "")
        waiting += [self._statement(part, statement, "") for part in sliced(rows)]
        return len(rows)

    def insert_missing(self, rows: Sequence[Sequence[Any]]) -> int:
        """Insert those that violate no unique constraint, and pass the others over; how many were inserted."""
        statement = connection.ops.insert_statement(on_conflict=OnConflict.IGNORE)
        return self._write(rows, statement, connection.ops.on_conflict_suffix_sql((), OnConflict.IGNORE, (), ()))

    def upsert(self, rows: Sequence[Sequence[Any]], written: Sequence[str]) -> None:
        """Insert them; of a row whose primary key is there already, these fields are written."""
        columns = [_column(self._model, name) for name in written]
        end = connection.ops.on_conflict_suffix_sql((), OnConflict.UPDATE, columns, [self._model._meta.pk.column])
        self._write(rows, connection.ops.insert_statement(), f" {end}")

    def _write(self, rows: Sequence[Sequence[Any]], statement: str, end: str) -> int:
        written = 0
        for part in sliced(rows):
            with connections[DEFAULT_DB_ALIAS].cursor() as cursor:
                cursor.execute(*self._statement(part, statement, end))
                written += cursor.rowcount
        return written

    def _statement(self, rows: Sequence[Sequence[Any]], statement: str, end: str) -> tuple[str, list[Any]]:
        values = ", ".join([self._row] * len(rows))
        return f"{statement} {self._target} VALUES {values}{end}", list(chain.from_iterable(rows))


@cache
def _shape(model: type[Model], names: tuple[str, ...], vendor: str) -> tuple[str, str]:
    """The table with its columns, and the places of one row's values."""
    quote = connection.ops.quote_name
    columns = ", ".join(quote(_column(model, name)) for name in names)
    places = ", ".join(["%s"] * len(names))
    return f"{quote(model._meta.db_table)} ({columns})", f"({places})"


def _column(model: type[Model], name: str) -> str:
    return str(model._meta.get_field(name).column)  # type: ignore[union-attr]  # a field of the row itself


def sliced(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    """The items in parts of as many as one statement takes."""
    for start in range(0, len(items), SLICE):
        yield items[start : start + SLICE]
