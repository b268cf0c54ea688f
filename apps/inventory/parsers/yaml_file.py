"""YAML: a list of mappings, alone or under `endpoints`.

Read from the parser's events, not loaded: every value is taken as the text that stands there, so that `on`, `022` or
`12:30` mean what they say, rows know their line, nothing is ever built, and there is neither depth nor alias to expand.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import yaml

from apps.inventory.parsers.base import MAX_ROWS, Cell, Row, Unreadable, too_many

ROOT = "endpoints"
# The ones written in C, where PyYAML has them: ten times as fast.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_DUMPER: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
_NULL = ("", "~", "null", "Null", "NULL")
_EXPECTED = f"a list of mappings such as `- path: /ready`, alone or under `{ROOT}:`"


def read(text: str) -> list[Row]:
    """The mappings of the list, each with the line it begins at."""
    events = _plain(yaml.parse(text, Loader=_LOADER))
    try:
        rows = _rows(events)
        next(events, None)  # what comes behind the list may be wrong too
        return rows
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        # What PyYAML says of the place repeats the text; of it nothing but the line is passed on.
        raise Unreadable(f"This is not YAML: {error.problem}.", row=mark.line + 1 if mark else 0) from None
    except yaml.YAMLError:
        raise Unreadable("This is not YAML: it holds a character that YAML does not allow.") from None


def write(rows: Iterable[Mapping[str, Cell]], columns: tuple[str, ...]) -> str:
    """A file of the list under its root."""
    found = [{column: row.get(column) for column in columns} for row in rows]
    text: str = yaml.dump({ROOT: found}, Dumper=_DUMPER, sort_keys=False, allow_unicode=True, width=120)
    return text


def _plain(events: Iterator[yaml.Event]) -> Iterator[yaml.Event]:
    """The events of the one document. Raises Unreadable for what is not part of so simple a file."""
    documents = 0
    for event in events:
        line = event.start_mark.line + 1
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > 1:
                raise Unreadable("The file holds more than one document; put all endpoints into one list.", row=line)
        elif isinstance(event, yaml.AliasEvent):
            raise Unreadable("Anchors and aliases are not read; write the values out.", row=line)
        elif isinstance(event, yaml.NodeEvent):
            if getattr(event, "tag", None) is not None and getattr(event, "tag", None) != "!":
                raise Unreadable("Tags (! or !!) are not read; write the value alone.", row=line)
            yield event
        elif isinstance(event, yaml.CollectionEndEvent):
            yield event


def _rows(events: Iterator[yaml.Event]) -> list[Row]:
    event = next(events, None)
    under_root = isinstance(event, yaml.MappingStartEvent)
    if under_root:
        key = next(events)
        if not isinstance(key, yaml.ScalarEvent) or key.value != ROOT:
            raise Unreadable(f"The file must be {_EXPECTED}.", row=key.start_mark.line + 1)
        event = next(events)
    if event is None or (isinstance(event, yaml.ScalarEvent) and event.value in _NULL):
        raise Unreadable(f"The file is empty; it must be {_EXPECTED}.")
    if not isinstance(event, yaml.SequenceStartEvent):
        raise Unreadable(f"The file must be {_EXPECTED}.", row=event.start_mark.line + 1)
    rows: list[Row] = []
    for event in events:
        if isinstance(event, yaml.SequenceEndEvent):
            break
        if not isinstance(event, yaml.MappingStartEvent):
            raise Unreadable("Each item of the list must be a mapping, such as `- path: /ready`.", row=_line(event))
        if len(rows) == MAX_ROWS:
            raise too_many()
        rows.append(_row(_line(event), events))
    if under_root and not isinstance(following := next(events), yaml.MappingEndEvent):
        raise Unreadable(f"Beside `{ROOT}` nothing else may stand.", row=_line(following))
    return rows


def _row(number: int, events: Iterator[yaml.Event]) -> Row:
    cells: dict[str, str] = {}
    for key in events:
        if isinstance(key, yaml.MappingEndEvent):
            break
        value = next(events)
        if not isinstance(key, yaml.ScalarEvent) or not isinstance(value, yaml.ScalarEvent):
            raise Unreadable("Names and values must be plain: no list and no mapping inside a row.", row=_line(key))
        if key.value in cells:
            raise Unreadable("A name stands twice in this row.", row=_line(key))
        cells[key.value] = "" if value.implicit[0] and value.value in _NULL else value.value
    return Row(number, cells)


def _line(event: yaml.Event) -> int:
    return int(event.start_mark.line) + 1
