"""CSV as spreadsheets write and read it: comma, semicolon or tab; with or without a byte order mark; any line ends."""

import csv
import io
import re
from collections.abc import Iterable, Mapping

from apps.inventory.parsers.base import MAX_ROWS, Cell, Row, Unreadable, too_many

# A spreadsheet takes a cell that begins so for a formula and runs it. An apostrophe before it makes it text again: one
# is put there and taken away, also where apostrophes and then such a sign stood already, so that nothing is lost.
_FORMULA = re.compile(r"'*[=+\-@\t\r\n]")
_DEFUSED = re.compile(r"'+[=+\-@\t\r\n]")
_SEPARATORS = (",", ";", "\t")


def read(text: str) -> list[Row]:
    """The rows below the heading; empty lines are counted and left out."""
    # A lone carriage return ends a line in files of old programs; inside quotes it stays what it is.
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=_separator(text), strict=True)
    rows: list[Row] = []
    heading: list[str] | None = None
    number = 0
    try:
        for cells in reader:
            number += 1
            if not any(cell.strip() for cell in cells):
                continue
            if heading is None:
                heading = _heading(cells, number)
                continue
            if len(cells) > len(heading) and any(cell.strip() for cell in cells[len(heading) :]):
                raise Unreadable(
                    f"The row has {len(cells)} cells and the heading {len(heading)}; put quotes around a cell that "
                    "holds the separator.",
                    row=number,
                )
            if len(rows) == MAX_ROWS:
                raise too_many()
            rows.append(Row(number, dict(zip(heading, map(_fused, cells), strict=False))))
    except csv.Error as error:
        raise Unreadable(f"This is not CSV: {error}.", row=number + 1) from None
    if heading is None:
        raise Unreadable("The file is empty; its first row must name the columns.")
    return rows


def write(rows: Iterable[Mapping[str, Cell]], columns: tuple[str, ...]) -> str:
    """A file with a heading; cells that a spreadsheet would run are made text."""
    target = io.StringIO(newline="")
    writer = csv.writer(target)
    writer.writerow(columns)
    writer.writerows([_defused(_text(row.get(column))) for column in columns] for row in rows)
    return target.getvalue()


def _heading(cells: list[str], number: int) -> list[str]:
    heading = [cell.strip().lower().replace(" ", "_") for cell in cells]
    while heading and not heading[-1]:
        heading.pop()  # a spreadsheet writes separators behind the last column it once had
    for place, name in enumerate(heading):
        if not name or name in heading[:place]:
            raise Unreadable(f"Column {place + 1} has {'the name of another' if name else 'no name'}.", row=number)
    return heading


def _separator(text: str) -> str:
    """The separator of the first line that is not empty; names of columns hold none."""
    first = text.lstrip().splitlines()[:1] or [""]
    return max(_SEPARATORS, key=first[0].count)


def _text(value: Cell) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return "" if value is None else str(value)


def _defused(text: str) -> str:
    return f"'{text}" if _FORMULA.match(text) else text


def _fused(text: str) -> str:
    return text[1:] if _DEFUSED.match(text) else text
