"""Files of targets, read and written. Which format a file has is said by its name or its media type."""

from collections.abc import Callable, Iterable, Mapping

from apps.inventory.parsers import csv_file, yaml_file
from apps.inventory.parsers.base import MAX_BYTES, Cell, Row, Unreadable, decoded

__all__ = ["EXTENSIONS", "FORMATS", "MAX_BYTES", "MEDIA_TYPES", "Cell", "Row", "Unreadable", "read", "write"]

FORMATS: dict[
    str, tuple[Callable[[str], list[Row]], Callable[[Iterable[Mapping[str, Cell]], tuple[str, ...]], str]]
] = {
    "csv": (csv_file.read, csv_file.write),
    "yaml": (yaml_file.read, yaml_file.write),
}
EXTENSIONS = {".csv": "csv", ".yaml": "yaml", ".yml": "yaml"}
MEDIA_TYPES = {"text/csv": "csv", "application/yaml": "yaml"}


def read(content: bytes, *, kind: str) -> list[Row]:
    """The rows of a file: each cell as text, each row with its number. Raises Unreadable for what is none."""
    return FORMATS[kind][0](decoded(content))


def write(rows: Iterable[Mapping[str, Cell]], *, kind: str, columns: tuple[str, ...]) -> str:
    """A file of these rows, which `read` takes back."""
    return FORMATS[kind][1](rows, columns)
