"""Splits the dump of mysqldump or mariadb-dump into its sections, in blocks of any size, at the speed of memory.

Rows are not read: within them line breaks are written as `\\n`, so that the end of a table's rows can be searched for.
Everything else is read as the server reads SQL, with its quotes and comments, for the body of a routine may hold any
text, also text that looks like a mark of the dump.
"""

import re
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from enum import Enum, auto

VISIBLE = 4096  # bytes behind a mark's first one: the longest (an event's head with long names) ends within 2 KiB
TAIL = 256  # bytes kept to look at the dump's last line
SEARCHED = 64 << 10  # bytes of rows copied at once to be searched: they stay in the processor's cache

ROWS_END = b"\nUNLOCK TABLES;\n"


class Kind(Enum):
    """What a section holds."""

    HEAD = auto()  # names of the client, the server and the schema, and settings of the session
    TABLE = auto()  # definition, rows, triggers; also a sequence
    PLACEHOLDER = auto()  # stands for a view until all tables are there
    VIEW = auto()
    ROUTINES = auto()
    EVENTS = auto()
    OTHER = auto()
    FOOT = auto()  # settings of the session again


class Role(Enum):
    """What a piece of a section is."""

    TEXT = auto()
    TITLE = auto()  # the comment that opens a section; may name the schema
    SCHEMA_CHANGE = auto()  # ALTER DATABASE around an object made under another collation; names the schema
    SCHEMA_NAME = auto()  # the name in it
    EVENT_STATUS = auto()  # ENABLE, DISABLE or DISABLE ON …


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a dump; `name` is a table's or a view's."""

    kind: Kind
    name: str = ""


Buffer = bytes | memoryview
Piece = tuple[Section, Role, Buffer]

_NAME = rb"(?:`(?:[^`]|``){1,300}`|\"(?:[^\"]|\"\"){1,300}\")"
_ACCOUNT = _NAME + rb"@" + _NAME
# Where quotes and comments begin. `/*!` and `/*M!` begin none: the server runs what they hold.
_OPENING = rb"['\"`]|/\*(?!M?!)|\#|--(?=[\x00-\x20])"
_SQL_MODE = rb"\n/\*!50003\ SET\ sql_mode\s+=\s'(?P<mode>[A-Z_0-9,]{0,1000})'\ \*/\ "
_STATEMENT = re.compile(
    rb"\n--\n--\ (?P<title>[^\n]{1,1500})\n--(?=\n)"
    rb"|\nLOCK\ TABLES\ " + _NAME + rb"\ WRITE;(?P<rows>(?=\n))"
    rb"|(?P<body>\nDELIMITER\ ;;(?=\n))"
    rb"|(?P<foot>\n/\*!40103\ SET\ TIME_ZONE=@OLD_TIME_ZONE\ \*/;)"
    rb"|(?P<schema>\nALTER\ DATABASE\ )"
    rb"|" + _SQL_MODE + rb";(?=\n)"
    rb"|" + _OPENING,
    re.VERBOSE,
)
_BODY = re.compile(
    rb"(?P<end>;;\nDELIMITER\ ;(?=\n))"
    rb"|(?P<schema>\nALTER\ DATABASE\ )"
    rb"|(?P<event>\n/\*!50106\ CREATE\*/\ )"
    rb"|" + _SQL_MODE + rb"(?=;;\n)"  # which no body can hold: it is an empty statement
    rb"|" + _OPENING,
    re.VERBOSE,
)
_EVENT_HEAD = re.compile(
    rb"\n/\*!50106\ CREATE\*/\ (?:/\*!50117\ DEFINER="
    + _ACCOUNT
    + rb"\*/\ )?/\*!50106\ EVENT\ "
    + _NAME
    + rb"\ ON\ SCHEDULE\ (?:AT\ '[^'\n]{1,40}'|EVERY\ (?:'[^'\n]{1,60}'|\d{1,20})\ [A-Z_]{1,20}"
    rb"(?:\ STARTS\ '[^'\n]{1,40}')?(?:\ ENDS\ '[^'\n]{1,40}')?)\ ON\ COMPLETION\ (?:NOT\ )?PRESERVE\ "
    rb"(?P<status>ENABLE|DISABLE(?:\ ON\ [A-Z]{1,10})?)\b",
    re.VERBOSE,
)
# In a body a single `;` would be the body's own statement.
_SCHEMA_NAME = re.compile(rb"(" + _NAME + rb") CHARACTER SET \w+ COLLATE \w+ ;(?=\n)")
_SCHEMA_NAME_IN_BODY = re.compile(rb"(" + _NAME + rb") CHARACTER SET \w+ COLLATE \w+(?= ;;\n)")
_END_OF = {
    b"'": re.compile(rb"\\.|'", re.DOTALL),
    b'"': re.compile(rb'\\.|"', re.DOTALL),
    b"`": re.compile(rb"`"),
    b"/*": re.compile(rb"\*/"),
    b"#": re.compile(rb"(?=\n)"),
    b"--": re.compile(rb"(?=\n)"),
}
_PLAIN_END_OF = {b"'": re.compile(rb"'"), b'"': re.compile(rb'"')}  # where a backslash is a character like any other
_COMPLETE = re.compile(rb"\n-- Dump completed(?: on [^\n]{1,100})?\n\Z")

_TITLES = (
    (re.compile(rb"(?:Table structure for table|Sequence structure for|Dumping data for table) (.+)"), Kind.TABLE),
    (re.compile(rb"Temporary (?:table|view) structure for view (.+)"), Kind.PLACEHOLDER),
    (re.compile(rb"Final view structure for view (.+)"), Kind.VIEW),
    (re.compile(rb"Dumping (routines) for database .+"), Kind.ROUTINES),
    (re.compile(rb"Dumping (events) for database .+"), Kind.EVENTS),
)


class Sections:
    """Feed it the blocks of a dump, then `close()`; both give the pieces in order, together every byte of the dump."""

    def __init__(self) -> None:
        self.section = Section(Kind.HEAD)
        self.bodies: dict[Kind, int] = dict.fromkeys(Kind, 0)  # triggers, routines, events with their own delimiter
        self.events = 0
        self.strange_events = 0  # whose head is not as any known client writes it
        self._held: bytes = b""  # not yet read text
        self._seen: bytes = b""  # the last of the rows, to find an end that two blocks share
        self._tail: bytes = b"\n"  # before the first line stands nothing
        self._rows = False
        self._body = False
        self._inside = b""  # the quote or comment that is open
        self._backslash = True  # escapes within '…'
        self._ansi = False  # "…" is a name

    def feed(self, block: Buffer) -> Iterator[Piece]:
        """The pieces that this block completes. They are views of it: use them before the next call."""
        self._tail = (self._tail + bytes(block[-TAIL:]))[-TAIL:]
        if self._held:
            block, self._held = self._held + block, b""
        view = memoryview(block)
        yield from self._split(view, max(0, len(view) - VISIBLE))

    def close(self) -> Iterator[Piece]:
        """The last pieces."""
        view, self._held = memoryview(self._held), b""
        yield from self._split(view, len(view))

    @property
    def complete(self) -> bool:
        """After `close()`: whether the end mark is the last line, outside of any quote, body or rows."""
        return not (self._rows or self._body or self._inside) and _COMPLETE.search(self._tail) is not None

    def _split(self, view: memoryview, safe: int) -> Iterator[Piece]:
        """Read up to `safe`, behind which a mark may be cut off; rows are read to the end."""
        at = 0
        while at < len(view):
            if self._rows:
                end = self._end_of_rows(view, at)
                yield self.section, Role.TEXT, view[at:end]
                at = end
            elif at < safe:
                at = yield from self._text(view, at, safe)
            else:
                self._held = bytes(view[at:])
                return

    def _end_of_rows(self, view: memoryview, at: int) -> int:
        overlap = len(ROWS_END) - 1
        joint = self._seen + view[at : at + overlap]
        if (found := joint.find(ROWS_END)) >= 0:
            end = at + found + len(ROWS_END) - len(self._seen)
        elif (found := _found(view, at)) >= 0:
            end = found + len(ROWS_END)
        else:
            self._seen = (self._seen + view[max(at, len(view) - overlap) :])[-overlap:]
            return len(view)
        self._rows = False
        return end - 1  # a title begins with the line break that ends the rows

    def _text(self, view: memoryview, at: int, safe: int) -> Generator[Piece, None, int]:
        """Read text until rows begin or `safe` is reached; answers where."""
        start = at
        while at < safe and not self._rows:
            if self._inside:
                at = self._leave(view, at, safe)
                continue
            match = (_BODY if self._body else _STATEMENT).search(view, at)
            if match is None or match.start() >= safe:
                at = safe
            elif cut := self._cut(view, match):
                yield self.section, Role.TEXT, view[start : cut.start]
                yield from cut.pieces
                start = at = cut.end
                self.section = cut.pieces[-1][0]
            else:
                self._note(match)
                at = match.end()
        yield self.section, Role.TEXT, view[start:at]
        return at

    def _cut(self, view: memoryview, match: re.Match[bytes]) -> "_Cut | None":
        """What a mark sets apart from the text around it; None when it does not."""
        what = match.lastgroup
        if what in ("title", "foot"):
            section = Section(Kind.FOOT) if what == "foot" else _opened(match["title"])
            return _Cut(match.start(), [(section, Role.TITLE, match[0])], match.end())
        schema_name = _SCHEMA_NAME_IN_BODY if self._body else _SCHEMA_NAME
        if what == "schema" and (name := schema_name.match(view, match.end())):
            pieces: list[Piece] = [
                (self.section, Role.SCHEMA_CHANGE, match[0]),
                (self.section, Role.SCHEMA_NAME, name[1]),
                (self.section, Role.SCHEMA_CHANGE, view[name.end(1) : name.end()]),
            ]
            return _Cut(match.start(), pieces, name.end())
        if what == "event":
            if head := _EVENT_HEAD.match(view, match.start()):
                self.events += 1
                return _Cut(head.start("status"), [(self.section, Role.EVENT_STATUS, head["status"])], head.end())
            self.strange_events += 1
        return None

    def _note(self, match: re.Match[bytes]) -> None:
        """Remember what a mark says about the text behind it."""
        match match.lastgroup:
            case None:
                self._inside = b"--" if match[0].startswith(b"--") else match[0]
            case "mode":
                modes = match["mode"].split(b",")
                self._backslash, self._ansi = b"NO_BACKSLASH_ESCAPES" not in modes, b"ANSI_QUOTES" in modes
            case "body":
                self.bodies[self.section.kind] += 1
                self._body = True
            case "end":
                self._body, self._backslash, self._ansi = False, True, False
            case "rows":
                self._rows, self._seen = True, b""

    def _leave(self, view: memoryview, at: int, safe: int) -> int:
        """Move to the end of the open quote or comment."""
        plain = not self._backslash or (self._ansi and self._inside == b'"')
        closing = (plain and _PLAIN_END_OF.get(self._inside)) or _END_OF[self._inside]
        while match := closing.search(view, at):
            if match.start() >= safe:
                break
            at = match.end()
            if not match[0].startswith(b"\\"):
                self._inside = b""
                return at
        return max(at, safe)


def _found(view: memoryview, at: int) -> int:
    """Where ROWS_END begins, from `at`, or -1. Python finds bytes in bytes a third sooner than a pattern in a view."""
    for begin in range(at, len(view), SEARCHED):
        if (found := bytes(view[begin : begin + SEARCHED + len(ROWS_END) - 1]).find(ROWS_END)) >= 0:
            return begin + found
    return -1


@dataclass(frozen=True, slots=True)
class _Cut:
    """Pieces in the midst of text, which ends at `start` and goes on at `end`."""

    start: int
    pieces: list[Piece]
    end: int


def _opened(title: bytes) -> Section:
    for pattern, kind in _TITLES:
        if match := pattern.fullmatch(title):
            named = kind in (Kind.TABLE, Kind.PLACEHOLDER, Kind.VIEW)
            return Section(kind, unquoted(match[1]) if named else "")
    return Section(Kind.OTHER)


def unquoted(name: bytes) -> str:
    """A name as it is, from how SQL writes it."""
    mark = name[:1]
    if mark in (b"`", b'"') and name.endswith(mark) and len(name) > 1:
        name = name[1:-1].replace(mark * 2, mark)
    return name.decode("utf-8", "replace")
