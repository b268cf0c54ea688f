"""What files of targets have in common."""

from dataclasses import dataclass

MAX_BYTES = 1024 * 1024  # of a file: ten thousand endpoints and more
MAX_ROWS = 5_000  # of a file

Cell = str | int | float | bool | None


class Unreadable(Exception):
    """The file as a whole cannot be read. `row`: where, 0 when it is no one row's fault."""

    def __init__(self, message: str, *, row: int = 0) -> None:
        super().__init__(message)
        self.row = row


@dataclass(frozen=True, slots=True)
class Row:
    """What one row says. A column it does not have is missing; a cell that is empty is an empty text."""

    number: int  # as a spreadsheet counts them, the heading being 1; in YAML the line it begins at
    cells: dict[str, str]


def decoded(content: bytes) -> str:
    """The text of a file. Raises Unreadable when it is too long or not UTF-8."""
    if len(content) > MAX_BYTES:
        raise Unreadable("The file is larger than 1 MiB; import it in parts.")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Unreadable(
            'The file is not UTF-8; save it as "CSV UTF-8" or as plain text in UTF-8.',
            row=content.count(b"\n", 0, error.start) + 1,
        ) from None
    if "\0" in text:
        raise Unreadable("The file holds a NUL character; save it as plain text in UTF-8.")
    return text


def too_many() -> Unreadable:
    """The refusal of a file with more rows than one import takes."""
    return Unreadable(f"The file has more than {MAX_ROWS:,} rows; import it in parts.")
