"""What the dump of a MySQL or MariaDB schema contains: a digest for each table, and counts."""

import hashlib
from collections import Counter

from apps.backups.engines.base import Content, Objects, TableDigest
from apps.backups.engines.mysql_sections import Buffer, Kind, Role, Section, Sections

# The session's settings follow the client's version, not what it dumps.
_NO_CONTENT = (Kind.HEAD, Kind.FOOT)


class MySQLReader:
    """Reads the dump of a schema. The dump of a restored copy has the same content, whatever the copy is called.

    Left out of the digests: names of the schema, versions, hosts, and whether an event is enabled, for in a copy made
    for a test none may be.
    """

    def __init__(self) -> None:
        self._sections = Sections()
        self._tables: dict[str, _Digest] = {}
        self._other = _Digest()
        self._views: set[str] = set()
        self._section = Section(Kind.HEAD)
        self._digest: _Digest | None = None

    def feed(self, block: memoryview) -> None:
        """Read the next block, of any size."""
        for section, role, data in self._sections.feed(block):
            self._take(section, role, data)

    def close(self) -> Content:
        """After the last block: what was seen."""
        for section, role, data in self._sections.close():
            self._take(section, role, data)
        bodies = Counter(self._sections.bodies)
        return Content(
            tables={
                name: TableDigest(digest.sha256.hexdigest(), digest.bytes) for name, digest in self._tables.items()
            },
            other=self._other.sha256.hexdigest(),
            objects=Objects(
                tables=len(self._tables),
                views=len(self._views),
                routines=bodies[Kind.ROUTINES],
                triggers=bodies[Kind.TABLE],
                events=self._sections.events,
            ),
            complete=self._sections.complete,
        )

    def _take(self, section: Section, role: Role, data: Buffer) -> None:
        if section is not self._section:
            self._section, self._digest = section, self._digest_of(section)
        if role is Role.TEXT and self._digest:
            self._digest.update(data)

    def _digest_of(self, section: Section) -> "_Digest | None":
        if section.kind in _NO_CONTENT:
            return None
        if section.kind is Kind.TABLE:
            return self._tables.setdefault(section.name, _Digest())
        if section.kind is Kind.VIEW:
            self._views.add(section.name)
        return self._other


class _Digest:
    """The digest and the length of a text that comes in pieces."""

    def __init__(self) -> None:
        self.sha256 = hashlib.sha256()
        self.bytes = 0

    def update(self, data: Buffer) -> None:
        self.sha256.update(data)
        self.bytes += len(data)
