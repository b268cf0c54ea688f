"""What reaches the client when a dump is restored: all of it, one table, or all with its events asleep."""

import re
from types import TracebackType
from typing import Self

from apps.backups.engines.base import EngineError
from apps.backups.engines.clients import RestoreClient
from apps.backups.engines.mysql_clients import Version
from apps.backups.engines.mysql_sections import Kind, Piece, Role, Sections

HEAD_BYTES = 512  # hold the two lines looked at here

# Newer clients of MariaDB begin a dump with this; older ones, and MySQL's, take it for a command they do not know.
_SANDBOX = re.compile(rb"/\*M?!999999\\- enable the sandbox mode \*/ ?\r?\n")
_MAKER = re.compile(rb"-- (?:MySQL|MariaDB) dump [^\n]*")


class MySQLRestoring:
    """A running restore."""

    def __init__(self, client: RestoreClient, server: Version, *, events: bool, table: str | None) -> None:
        self._client = client
        self._server = server
        self._events = events
        self._table = table
        self._found = False
        self._head: bytes | None = b""  # until there is enough of it to look at
        self._sections = Sections()

    @property
    def pid(self) -> int:
        """The process id of the client."""
        return self._client.pid

    def write(self, block: memoryview) -> None:
        """Restore the next block of the dump. EngineError when the client has died or the dump is not for it."""
        if self._head is not None:
            self._head += block
            if len(self._head) < HEAD_BYTES:
                return
            block = self._checked_head()
        for piece in self._sections.feed(block):
            self._pass_on(piece)

    def finish(self) -> None:
        """After the last block: EngineError unless the client has done all of it."""
        if self._head is not None:
            for piece in self._sections.feed(self._checked_head()):
                self._pass_on(piece)
        for piece in self._sections.close():
            self._pass_on(piece)
        if self._table is not None and not self._found:
            raise EngineError("The backup holds no table of that name; `backup verify` lists its tables.")
        self._client.finish()

    def _checked_head(self) -> memoryview:
        head, self._head = self._head or b"", None
        if sandbox := _SANDBOX.match(head):
            head = head[sandbox.end() :]
        maker = _MAKER.match(head)
        if maker is None:
            raise EngineError("This is no dump of mysqldump or mariadb-dump: its first line is another.")
        vendor = "MariaDB" if b"MariaDB" in maker[0] else "MySQL"
        if vendor != self._server.vendor:
            raise EngineError(
                f"This dump was made from {vendor} and the server is {self._server}: each writes what the other does "
                f"not accept. Restore it to a {vendor} server."
            )
        return memoryview(head)

    def _pass_on(self, piece: Piece) -> None:
        section, role, data = piece
        if self._table is not None and section.kind is not Kind.HEAD:
            if section.kind is not Kind.TABLE or section.name != self._table:
                return
            self._found = True
        if not self._events:
            if self._sections.strange_events:  # rather none restored than one that runs
                raise EngineError("The dump writes an event in an unknown way, so it cannot be kept from running.")
            if role is Role.EVENT_STATUS:
                data = b"DISABLE"
        # Without a name the statement is about the schema that is being restored, not about the one dumped.
        if role is not Role.SCHEMA_NAME:
            self._client.write(memoryview(data))

    def __enter__(self) -> Self:
        self._client.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.__exit__(kind, error, trace)
