"""Reads the plain SQL that pg_dump writes, in blocks of any size, without ever holding more than one statement."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from enum import Enum, auto
from hashlib import blake2b, sha256
from operator import methodcaller

from apps.backups.engines.base import Content, EngineError, Objects, TableDigest

STATEMENT_BYTES = 64 << 20  # a longer statement outside COPY is no work of pg_dump's, and would fill the memory
PIECE_BYTES = 128 << 10  # of rows digested at once: however short they are, their digests take a few MiB
END_MARKER = b"-- PostgreSQL database dump complete"
ROWS_END = b"\n\\.\n"

IDENTIFIER = rb'(?:"(?:[^"]|"")+"|[A-Za-z_\x80-\xff][\w\x80-\xff]*)'
NAME = rb"(" + IDENTIFIER + rb"\." + IDENTIFIER + rb")"  # pg_dump writes every name with its schema
# One statement up to its semicolon. Quoted text, whatever it holds, is one step; without its end nothing matches.
_STATEMENT = re.compile(
    rb"""(?:
        [^'"$;-]++
      | (?<=[^\w]E)'(?:[^'\\]++|\\.|'')*+'
      | (?<![^\w]E)'(?:[^']++|'')*+'
      | "[^"]*+"
      | \$(\w*+)\$.*?\$\1\$
      | \$(?!\w*+\$)
      | --[^\n]*+\n
      | -(?!-)
    )*+;""",
    re.VERBOSE | re.DOTALL,
)
_HEADER = re.compile(rb"-- (?:Data for |Statistics for )?Name: .*; Type: ([A-Z ]+); Schema: .*")
_COPY = re.compile(rb"COPY " + NAME + rb" .*FROM stdin;", re.DOTALL)
_OF_TABLE = re.compile(
    rb"(?:CREATE (?:UNLOGGED |FOREIGN )?TABLE|ALTER (?:FOREIGN )?TABLE(?: ONLY)?|COPY|COMMENT ON (?:TABLE|COLUMN)"
    rb"|CREATE (?:UNIQUE )?INDEX " + IDENTIFIER + rb" ON(?: ONLY)?"
    rb"|CREATE (?:CONSTRAINT )?TRIGGER " + IDENTIFIER + rb' (?:[^"]|"[^"]*")*? ON'
    rb"|(?:CREATE POLICY|COMMENT ON (?:CONSTRAINT|TRIGGER|POLICY)) " + IDENTIFIER + rb" ON) " + NAME
)
# What depends on the server that a dump is restored to: its roles and its disks.
_OF_SERVER = re.compile(rb"ALTER .* OWNER TO " + IDENTIFIER + rb";|SET default_tablespace = .*", re.DOTALL)
_OPENS_TABLE = (b"TABLE", b"FOREIGN TABLE", b"TABLE DATA")
PRIVILEGES = (b"ACL", b"DEFAULT ACL")
_STATISTICS = b"STATISTICS DATA"  # the planner's, which the server collects anew
_COUNTED = {
    b"TABLE": "tables",
    b"FOREIGN TABLE": "tables",
    b"VIEW": "views",
    b"MATERIALIZED VIEW": "views",
    b"FUNCTION": "routines",
    b"PROCEDURE": "routines",
    b"AGGREGATE": "routines",
    b"TRIGGER": "triggers",
}

_SUM_BYTES = 64  # of a BLAKE2b digest
_GAP_BYTES = 4  # beside each digest: room for what is carried over when 2**32 of them are added
_digest = methodcaller("digest")


class Part(Enum):
    """What a piece of a dump is."""

    COMMENT = auto()  # a line
    COMMAND = auto()  # a line for psql itself, such as \restrict
    STATEMENT = auto()
    ROWS = auto()  # of COPY, each with the line break before it; cut anywhere
    ROWS_END = auto()


class Scanner:
    """Splits a dump into its parts. What stands inside quotes or rows is never taken for anything else."""

    def __init__(self) -> None:
        self._rest = b""
        self._in_rows = False

    def feed(self, block: memoryview) -> Iterator[tuple[Part, bytes]]:
        """The parts that end within this block. Every one must be taken before the next call.

        EngineError when a statement is longer than any that pg_dump writes.
        """
        data, at = b"".join((self._rest, block)), 0
        while found := self._rows(data, at) if self._in_rows else self._part(data, at):
            part, start, at = found
            yield part, data[start:at]
            if part is Part.STATEMENT:
                self._in_rows = _COPY.fullmatch(data, start, at) is not None
            elif part is Part.ROWS_END:
                self._in_rows = False
        self._rest = data[at:]
        if len(self._rest) > STATEMENT_BYTES:
            raise EngineError(
                f"The dump holds a statement of more than {STATEMENT_BYTES >> 20} MiB, which pg_dump does not write:"
                " it is damaged or was made by another program."
            )

    @property
    def at_rest(self) -> bool:
        """Whether nothing that was begun is still open."""
        return not self._in_rows and not self._rest.strip()

    def _rows(self, data: bytes, at: int) -> tuple[Part, int, int] | None:
        if data.startswith(ROWS_END, at):
            return Part.ROWS_END, at, at + len(ROWS_END)
        end = data.find(ROWS_END, at)
        if end < 0:
            end = len(data) - len(ROWS_END) + 1  # the mark may have begun
        return (Part.ROWS, at, end) if end > at else None

    def _part(self, data: bytes, at: int) -> tuple[Part, int, int] | None:
        while data[at : at + 1].isspace():
            at += 1
        command = data.startswith(b"\\", at)
        if command or data.startswith(b"--", at):
            end = data.find(b"\n", at)
            return (Part.COMMAND if command else Part.COMMENT, at, end) if end >= 0 else None
        statement = _STATEMENT.match(data, at)
        return (Part.STATEMENT, at, statement.end()) if statement else None


class PostgreSQLReader:
    """Works out the content of a pg_dump. Neither the order of rows nor that of whole definitions counts.

    Left out are owners, privileges and tablespaces, which a restore keeps only where the server has them; versions; and
    the planner's statistics.
    """

    def __init__(self) -> None:
        self._scanner = Scanner()
        self._tables: defaultdict[bytes, _Table] = defaultdict(_Table)
        self._other = Bag()
        self._counts = dict.fromkeys(_COUNTED.values(), 0)
        self._kind = b""  # of the section; none before the first
        self._section: blake2b | None = None  # until something of it counts
        self._owner: bytes | None = None  # the table that the section belongs to
        self._copying = Rows()
        self._complete = False

    def feed(self, block: memoryview) -> None:
        for part, text in self._scanner.feed(block):
            if part is Part.ROWS:
                self._copying.feed(text)
            elif part is Part.STATEMENT:
                self._complete = False
                self._take(text)
            elif part is Part.COMMENT:
                self._open(text)
            elif part is Part.ROWS_END:
                self._copying.close()
            elif not text.startswith((b"\\restrict ", b"\\unrestrict ")):  # whose words are random
                self._complete = False
                self._add(text)

    def close(self) -> Content:
        self._close_section()
        return Content(
            tables={shown(name): table.digest() for name, table in self._tables.items()},
            other=sha256(self._other.digest()).hexdigest(),
            objects=Objects(**self._counts),
            complete=self._complete and self._scanner.at_rest,
        )

    def _open(self, comment: bytes) -> None:
        if comment == END_MARKER:
            self._complete = True
        if opened := section(comment):
            self._complete = False
            self._close_section()
            self._kind = opened

    def _take(self, statement: bytes) -> None:
        if self._kind in (*PRIVILEGES, _STATISTICS) or of_server(statement):
            return
        if not self._kind and not statement.startswith(b"SET client_encoding"):  # how this pg_dump prepares its session
            return
        if self._section is None and statement.startswith(b"CREATE ") and self._kind in _COUNTED:
            self._counts[_COUNTED[self._kind]] += 1
        self._add(statement)
        name = table_of(statement)
        if name and (name in self._tables or self._kind in _OPENS_TABLE):
            self._owner = self._owner or name
            self._copying = self._tables[name].rows

    def _add(self, text: bytes) -> None:
        self._section = self._section or blake2b()
        self._section.update(text)

    def _close_section(self) -> None:
        if self._section:
            bag = self._tables[self._owner].definitions if self._owner else self._other
            bag.add([self._section.digest()])
        self._section, self._owner = None, None


class _Table:
    """What was seen of one table."""

    def __init__(self) -> None:
        self.definitions = Bag()
        self.rows = Rows()

    def digest(self) -> TableDigest:
        both = sha256(self.definitions.digest() + self.rows.bag.digest())
        return TableDigest(both.hexdigest(), self.rows.bytes, ordered=False)


class Bag:
    """A digest of pieces that does not depend on their order: the sum of their BLAKE2b digests.

    It finds damage and difference; that nobody forged the dump is for the encryption to prove.
    """

    def __init__(self) -> None:
        self._sum = 0

    def add(self, digests: Iterable[bytes]) -> None:
        # All digests stand beside each other in one number; adding its halves, again and again, is far quicker than a
        # loop over them.
        joined = bytes(_GAP_BYTES).join(digests)
        lane = 8 * (_SUM_BYTES + _GAP_BYTES)
        count = (8 * len(joined) + 8 * _GAP_BYTES) // lane
        total = int.from_bytes(joined, "big")
        while count > 1:
            half = count // 2
            total = (total >> half * lane) + (total & (1 << half * lane) - 1)
            count -= half
        self._sum = (self._sum + total) % (1 << 8 * _SUM_BYTES)

    def digest(self) -> bytes:
        return self._sum.to_bytes(_SUM_BYTES, "big")


class Rows:
    """The bag of a table's rows, fed with pieces that are cut anywhere, even inside a row of a gigabyte."""

    def __init__(self) -> None:
        self.bag = Bag()
        self.bytes = 0
        self._begun: blake2b | None = None

    def feed(self, text: bytes) -> None:
        """Rows, each with the line break before it."""
        self.bytes += len(text)
        for start in range(0, len(text), PIECE_BYTES):
            head, *rows = text[start : start + PIECE_BYTES].split(b"\n")
            if self._begun:
                self._begun.update(head)
            if rows:
                self.close()
                self._begun = blake2b(rows.pop())
                self.bag.add(map(_digest, map(blake2b, rows)))

    def close(self) -> None:
        """The last row has ended."""
        if self._begun:
            self.bag.add([self._begun.digest()])
            self._begun = None


def section(comment: bytes) -> bytes | None:
    """The type of the section that a comment opens, such as `TABLE DATA`; None for any other comment."""
    match = _HEADER.fullmatch(comment)
    return match[1] if match else None


def table_of(statement: bytes) -> bytes | None:
    """The table, as the dump spells it, that a statement defines, fills or adds to. The same words may name a view."""
    match = _OF_TABLE.match(statement)
    return match[1] if match else None


def of_server(statement: bytes) -> bool:
    """Whether a statement sets an owner or a tablespace."""
    return _OF_SERVER.fullmatch(statement) is not None


def unquoted(name: bytes) -> list[str]:
    """The parts of a name: schema and table of `public."order"`."""
    return [
        (part[1:-1].replace(b'""', b'"') if part.startswith(b'"') else part).decode(errors="backslashreplace")
        for part in re.findall(IDENTIFIER, name)
    ]


def shown(name: bytes) -> str:
    """How people call a table: without quotes, and without the schema `public`."""
    schema, table = unquoted(name)
    if "." in schema + table:  # only quotes tell which is which
        return name.decode(errors="backslashreplace")
    return table if schema == "public" else f"{schema}.{table}"
