"""Turns a pg_dump into what psql is given for a restore: all of it, or one table.

Owners, privileges and tablespaces are kept where the server has the roles and tablespaces, else left out: a backup must
restore on a new server too, which has none of them yet.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from apps.backups.engines.base import EngineError
from apps.backups.engines.postgresql_reader import (
    END_MARKER,
    IDENTIFIER,
    NAME,
    PRIVILEGES,
    Part,
    Scanner,
    section,
    shown,
    table_of,
    unquoted,
)

_OWNER = re.compile(rb"ALTER .* OWNER TO (" + IDENTIFIER + rb");", re.DOTALL)
_ROLES = re.compile(rb"(?:FOR ROLE|TO|FROM|AUTHORIZATION) (" + IDENTIFIER + rb")")
_SETTING = re.compile(rb"SET (\w+) = (.*);")
_PRIVILEGE_ON = re.compile(rb" ON (?:TABLE|SEQUENCE) " + NAME + rb" (?:TO|FROM) ")
_SEQUENCE = re.compile(rb"(?:CREATE|ALTER) SEQUENCE " + NAME)
_OWNED_BY = re.compile(rb"ALTER SEQUENCE " + NAME + rb" OWNED BY " + NAME + rb"\.")
_IDENTITY = re.compile(rb"\bSEQUENCE NAME " + NAME)
_SETVAL = re.compile(rb"SELECT pg_catalog\.setval\('((?:[^']|'')+)'")
_REFERENCES = re.compile(rb"\bREFERENCES " + NAME)
_EXECUTES = re.compile(rb"\bEXECUTE (?:FUNCTION|PROCEDURE) " + NAME)
_RESTRICT = (b"\\restrict ", b"\\unrestrict ")
_ATTACHING = (b"TABLE ATTACH", b"INDEX ATTACH")


@dataclass(frozen=True, slots=True)
class Target:
    """What the server that is restored to offers, and what its psql knows."""

    own_roles: frozenset[str]  # which the user may act as, and so may make owners
    roles: frozenset[str]  # all of them, and `public`
    tablespaces: frozenset[str]
    settings: frozenset[str]
    restricts: bool  # psql knows \restrict, which forbids all its other commands


class Script:
    """The whole dump, less what the server cannot take."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._scanner = Scanner()
        self._kind = b""
        self._complete = False
        self._foreign_grantor = False

    def feed(self, block: memoryview) -> Iterator[bytes]:
        """What psql is given for this block. EngineError where the dump would command psql itself."""
        for part, text in self._scanner.feed(block):
            if part is Part.STATEMENT:
                yield from self._statement(text)
            elif part is Part.COMMENT:
                self._comment(text)
            elif part is Part.COMMAND:
                yield from self._command(text)
            elif self._copies():
                yield text

    def close(self) -> None:
        """EngineError unless the dump was whole."""
        if not (self._complete and self._scanner.at_rest):
            raise EngineError("The dump ends before its end marker, so nothing of it was kept; choose another backup.")

    def _comment(self, text: bytes) -> None:
        self._complete = text == END_MARKER or (self._complete and text == b"--")
        if opened := section(text):
            self._kind = opened

    def _command(self, text: bytes) -> Iterator[bytes]:
        if not text.startswith(_RESTRICT):
            raise EngineError(
                "The dump holds a command for psql itself, which pg_dump does not write;"
                " nothing was restored, for the command could run any program here."
            )
        if self._target.restricts:
            yield text + b"\n"

    def _copies(self) -> bool:
        return True

    def _statement(self, text: bytes) -> Iterator[bytes]:
        if self._possible(text):
            # psql is given the line break after a COPY with the rows.
            yield text if text.startswith(b"COPY ") else text + b"\n"

    def _possible(self, text: bytes) -> bool:
        """Whether this server can carry a statement out."""
        if owner := _OWNER.fullmatch(text):
            return unquoted(owner[1])[0] in self._target.own_roles
        if self._kind in PRIVILEGES:
            return self._privilege_possible(text)
        if setting := _SETTING.fullmatch(text):
            name, value = setting[1].decode(), setting[2]
            if name == "client_min_messages":  # the session is set to errors: no warning of a trigger's looks like one
                return False
            if name == "default_tablespace" and value != b"''":
                return unquoted(value)[0] in self._target.tablespaces
            return name in self._target.settings
        # Around large objects: the restore is one transaction already, which this would end early.
        return text not in (b"BEGIN;", b"COMMIT;")

    def _privilege_possible(self, text: bytes) -> bool:
        """Privileges that another than the owner has granted stand between two statements that change the session."""
        named = {unquoted(name)[0].lower() if name == b"PUBLIC" else unquoted(name)[0] for name in _ROLES.findall(text)}
        if text.startswith(b"SET SESSION AUTHORIZATION"):
            self._foreign_grantor = not named <= self._target.own_roles
            return not self._foreign_grantor
        if text.startswith(b"RESET SESSION AUTHORIZATION"):
            foreign, self._foreign_grantor = self._foreign_grantor, False
            return not foreign
        acting = _ROLES.match(text, len(b"ALTER DEFAULT PRIVILEGES ")) if text.startswith(b"ALTER DEFAULT") else None
        if acting and unquoted(acting[1])[0] not in self._target.own_roles:
            return False
        return not self._foreign_grantor and named <= self._target.roles


class TableScript(Script):
    """One table: definition, rows, own sequences, indexes, constraints, triggers, policies, comments, privileges.

    It takes the place of a table of that name. A foreign key or trigger is left out where the target lacks the table or
    the function it refers to.
    """

    def __init__(self, target: Target, table: str) -> None:
        super().__init__(target)
        self._table = table
        self._wanted: bytes | None = None  # as the dump spells it, once it was met
        self._sequences: dict[bytes, list[bytes]] = {}  # their statements, until an owner is known
        self._sequence = b""
        self._own_sequences: set[bytes] = set()
        self._copying = False

    def close(self) -> None:
        super().close()
        if self._wanted is None:
            raise EngineError(f"The dump holds no table {self._table}; nothing was restored.")

    def _copies(self) -> bool:
        return self._copying

    def _statement(self, text: bytes) -> Iterator[bytes]:
        name = table_of(text)
        self._copying = name is not None and text.startswith(b"COPY ") and self._is_wanted(name)
        for statement in self._chosen(text, name):
            yield from super()._statement(statement)

    def _is_wanted(self, name: bytes) -> bool:
        if self._wanted is None and self._table in (shown(name), name.decode(errors="backslashreplace")):
            self._wanted = name
        return name == self._wanted

    def _chosen(self, text: bytes, name: bytes | None) -> Iterator[bytes]:
        if not self._kind or _SETTING.fullmatch(text):
            yield text
        elif self._kind in PRIVILEGES:
            on = _PRIVILEGE_ON.search(text)
            if on and (on[1] == self._wanted or on[1] in self._own_sequences):
                yield text
        elif self._kind.startswith(b"SEQUENCE"):
            yield from self._of_sequence(text)
        elif name and self._kind not in _ATTACHING and self._of_wanted(name):
            yield from self._of_table(text, name)

    def _of_wanted(self, name: bytes) -> bool:
        opens = self._kind in (b"TABLE", b"FOREIGN TABLE", b"TABLE DATA")
        return self._is_wanted(name) if opens else name == self._wanted

    def _of_table(self, text: bytes, name: bytes) -> Iterator[bytes]:
        if identity := _IDENTITY.search(text):
            self._own_sequences.add(identity[1])
        if self._kind == b"TABLE" and text.startswith(b"CREATE "):
            if b")\nPARTITION BY " in text:
                raise EngineError(
                    f"Table {self._table} is partitioned and holds no rows itself;"
                    " restore its partitions one by one, or the whole backup into a new database."
                )
            schema, _ = re.findall(IDENTIFIER, name)
            missing = b"pg_catalog.to_regnamespace(" + _literal(schema) + b") IS NULL"
            yield _when(missing, b"CREATE SCHEMA " + schema + b";")
            yield b"DROP TABLE IF EXISTS " + name + b";"
            yield text
        elif self._kind == b"FK CONSTRAINT" and (other := _REFERENCES.search(text)):
            yield _when(b"pg_catalog.to_regclass(" + _literal(other[1]) + b") IS NOT NULL", text)
        elif self._kind == b"TRIGGER":  # or whether a partition follows one of its parent's, which is not restored
            if function := _EXECUTES.search(text):
                yield _when(b"pg_catalog.to_regproc(" + _literal(function[1]) + b") IS NOT NULL", text)
        else:
            yield text

    def _of_sequence(self, text: bytes) -> Iterator[bytes]:
        if owned := _OWNED_BY.match(text):
            if owned[2] == self._wanted:
                self._own_sequences.add(owned[1])
                yield from self._sequences[owned[1]]
                yield text
        elif value := _SETVAL.match(text):
            if value[1].replace(b"''", b"'") in self._own_sequences:
                yield text
        elif made := _SEQUENCE.match(text):
            self._sequence = made[1]
            self._sequences.setdefault(made[1], []).append(text)
        elif self._kind == b"SEQUENCE":  # its owner, which older versions set with ALTER TABLE
            self._sequences[self._sequence].append(text)


def _literal(name: bytes) -> bytes:
    return b"'" + name.replace(b"'", b"''") + b"'"


def _when(condition: bytes, statement: bytes) -> bytes:
    """The statement, carried out where the condition holds."""
    return b"DO $pulsewatch$ BEGIN IF " + condition + b" THEN\n" + statement + b"\nEND IF; END $pulsewatch$;"
