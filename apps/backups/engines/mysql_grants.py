"""Which privileges a dump needs that an account lacks, from what SHOW GRANTS answers."""

import re
from collections.abc import Iterable, Iterator

from apps.backups.engines.base import Finding
from apps.backups.engines.mysql_clients import Version

# Without it … Two of these losses are silent: the dump ends well, and lacks something.
_NEEDED = {
    "SELECT": "tables it may not read are missing from the backup",
    "SHOW VIEW": "views cannot be dumped",
    "TRIGGER": "triggers are missing from the backup, without any error",
    "EVENT": "events cannot be dumped",
}
_ROUTINES = "routines it did not make itself are missing from the backup, without any error"

_NAME = r"(?:`(?:[^`]|``)*`|\*)"
_GRANT = re.compile(
    rf"(?P<verb>GRANT|REVOKE) (?P<what>.+?) ON (?:TABLE )?(?P<schema>{_NAME})\.(?P<object>{_NAME}) (?:TO|FROM) "
)
_ACCOUNT = re.compile(r" TO (`(?:[^`]|``)*`@`(?:[^`]|``)*`)")


class Grants:
    """What an account may do."""

    def __init__(self, lines: Iterable[str]) -> None:
        """`lines` are the rows of SHOW GRANTS, those of active roles included."""
        self._lines = list(lines)

    def allows(self, privilege: str, schema: str, table: str = "*") -> bool:
        """Whether a privilege is held on a whole schema, on one table, or with schema `*` on everything."""
        held = False
        for verb, what, on_schema, on_table in self._parsed():
            if on_table not in ("*", table) or not _names(what, privilege):
                continue
            if on_schema == "*" or (schema != "*" and _matches(on_schema, schema)):
                if verb == "REVOKE" and schema == "*":
                    continue
                held = verb == "GRANT"  # a partial revoke stands behind the grant it takes from
        return held

    @property
    def account(self) -> str:
        """The account as a GRANT statement names it."""
        return next((match[1] for line in self._lines if (match := _ACCOUNT.search(line))), "CURRENT_USER()")

    def _parsed(self) -> Iterator[tuple[str, str, str, str]]:
        for line in self._lines:
            if match := _GRANT.match(line):
                yield match["verb"], match["what"], _plain(match["schema"]), _plain(match["object"])


def missing(grants: Grants, server: Version, schema: str) -> list[Finding]:
    """One error for each privilege that a whole dump of the schema needs and the account lacks, with its GRANT."""
    quoted = "`" + schema.replace("`", "``").replace("\\", "\\\\").replace("_", "\\_").replace("%", "\\%") + "`"
    findings = [
        Finding("error", f"{privilege} is missing: {loss}.", f"GRANT {privilege} ON {quoted}.* TO {grants.account};")
        for privilege, loss in _NEEDED.items()
        if not grants.allows(privilege, schema)
    ]
    if not _reads_routines(grants, server, schema):
        privilege = "SHOW_ROUTINE ON *.*" if _shows_routines(server) else "SELECT ON `mysql`.`proc`"
        if server.vendor == "MySQL" and (8,) <= server.key < (8, 0, 20):
            privilege = "SELECT ON *.*"
        what = privilege.replace("`", "").replace(" ON *.*", "")
        findings.append(Finding("error", f"{what} is missing: {_ROUTINES}.", f"GRANT {privilege} TO {grants.account};"))
    return findings


def _reads_routines(grants: Grants, server: Version, schema: str) -> bool:
    if grants.allows("SELECT", "*"):
        return True
    if server.vendor == "MySQL" and server.key >= (8,):
        return _shows_routines(server) and grants.allows("SHOW_ROUTINE", "*")
    if server.vendor == "MariaDB" and server.key >= (11, 3) and grants.allows("SHOW CREATE ROUTINE", schema):
        return True
    return grants.allows("SELECT", "mysql", "proc")


def _shows_routines(server: Version) -> bool:
    return server.vendor == "MySQL" and server.key >= (8, 0, 20)


def _names(what: str, privilege: str) -> bool:
    """Whether a list of privileges holds this one; those on single columns do not count."""
    return privilege in what.split(", ") or what in ("ALL", "ALL PRIVILEGES")


def _matches(pattern: str, schema: str) -> bool:
    """Whether a grant's schema, in which % and _ are wildcards, covers this one."""
    expression = re.sub(
        r"\\(.)|(%)|(_)|(.)",
        lambda part: ".*" if part[2] else "." if part[3] else re.escape(part[1] or part[4]),
        pattern,
        flags=re.DOTALL,
    )
    return re.fullmatch(expression, schema, re.DOTALL) is not None


def _plain(name: str) -> str:
    return name if name == "*" else name[1:-1].replace("``", "`")
