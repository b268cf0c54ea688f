"""What PostgreSQL's catalogue says about one database: its objects, what a dump of it lacks, what keeps it from one."""

# ruff: noqa: S608  # every piece of every query is a constant of this file

from collections.abc import Iterator
from typing import Any

from psycopg import Connection, sql

from apps.backups.engines.base import Finding, Objects
from apps.backups.engines.postgresql_script import Target

SHOWN_NAMES = 5  # in one sentence; more are counted

# What the user made: no schema of the system's, and no object that an extension brought and will bring again.
_USERS = "n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'"
_NOT_OF_EXTENSION = (
    "NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = '{catalogue}'::regclass AND d.objid = {oid}"
    " AND d.deptype IN ({kinds}))"
)
_RELATIONS = (
    "pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
    f" WHERE {_USERS} AND " + _NOT_OF_EXTENSION.format(catalogue="pg_catalog.pg_class", oid="c.oid", kinds="'e'")
)
# Kind "i": the constructors that came with a range type, which its own statement makes again.
_ROUTINES = (
    "pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace"
    f" WHERE {_USERS} AND " + _NOT_OF_EXTENSION.format(catalogue="pg_catalog.pg_proc", oid="p.oid", kinds="'e', 'i'")
)
_OBJECTS = f"""
    SELECT count(*) FILTER (WHERE relkind IN ('r', 'p', 'f')) AS tables,
           count(*) FILTER (WHERE relkind IN ('v', 'm')) AS views,
           (SELECT count(*) FROM {_ROUTINES}) AS routines,
           (SELECT count(*) FROM pg_catalog.pg_trigger t WHERE NOT t.tgisinternal {{own_trigger}}
            AND t.tgrelid IN (SELECT c.oid FROM {_RELATIONS})) AS triggers,
           count(*) AS relations
    FROM {_RELATIONS}
"""
_OWN_TRIGGER = "AND t.tgparentid = 0"  # since version 13: a partition has copies of its parent's
_OTHERS = f"""
    SELECT (SELECT count(*) FROM pg_catalog.pg_namespace n WHERE {_USERS} AND n.nspname <> 'public')
         + (SELECT count(*) FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
            WHERE {_USERS} AND t.typtype IN ('d', 'e', 'r')
            AND {_NOT_OF_EXTENSION.format(catalogue="pg_catalog.pg_type", oid="t.oid", kinds="'e'")})
         + (SELECT count(*) FROM pg_catalog.pg_largeobject_metadata)
"""
# One row for each schema with something that pg_dump must read and this user may not, or not all of it.
_UNREADABLE = f"""
    SELECT n.nspname, 'schema', 1, ARRAY[n.nspname::text] FROM pg_catalog.pg_namespace n
    WHERE {_USERS} AND NOT has_schema_privilege(n.oid, 'USAGE')
    UNION ALL
    SELECT n.nspname, CASE relkind WHEN 'S' THEN 'sequence' ELSE 'table' END, count(*),
           (array_agg(relname::text ORDER BY relname))[:{SHOWN_NAMES}]
    FROM {_RELATIONS} AND (relkind IN ('r', 'p') AND NOT has_table_privilege(c.oid, 'SELECT')
                           OR relkind = 'S' AND NOT has_sequence_privilege(c.oid, 'SELECT'))
    GROUP BY 1, 2
    UNION ALL
    SELECT n.nspname, 'policy', count(*), (array_agg(relname::text ORDER BY relname))[:{SHOWN_NAMES}]
    FROM {_RELATIONS} AND relkind IN ('r', 'p') AND row_security_active(c.oid)
    GROUP BY 1
    ORDER BY 1, 2
"""
_UNREADABLE_LARGE_OBJECTS = """
    SELECT count(*), min(oid::bigint) FROM pg_catalog.pg_largeobject_metadata
    WHERE NOT pg_has_role(lomowner, 'USAGE') AND NOT EXISTS (
        SELECT FROM aclexplode(lomacl) a WHERE a.privilege_type = 'SELECT'
        AND (a.grantee = 0 OR pg_has_role(a.grantee, 'USAGE')))
"""
_UNREADABLE_TEXTS = {
    "schema": (
        "The user may not use schema {schema}.",
        "GRANT USAGE ON SCHEMA {schema} TO {user};",
    ),
    "table": (
        "The user may not read {count} tables of schema {schema}: {names}.",
        "GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO {user};",
    ),
    "sequence": (
        "The user may not read {count} sequences of schema {schema}: {names}.",
        "GRANT SELECT ON ALL SEQUENCES IN SCHEMA {schema} TO {user};",
    ),
    "policy": (
        "Row-level security may hide rows of {count} tables of schema {schema} from the user: {names}.",
        "ALTER ROLE {user} BYPASSRLS;",
    ),
}
_NOTES = {
    # Each: how many there are, and the sentence for them.
    "SELECT count(*) FROM pg_catalog.pg_subscription s JOIN pg_catalog.pg_database d ON d.oid = s.subdbid"
    " WHERE d.datname = current_database()": (
        "The dump leaves out {count} subscriptions: restored, they would take over the slot of the running ones."
    ),
    "SELECT count(*) FROM pg_catalog.pg_db_role_setting WHERE setdatabase ="
    " (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())": (
        "The dump leaves out the settings of the database itself (ALTER DATABASE … SET), of which there are {count}"
        " sets: repeat them after a restore."
    ),
    f"SELECT count(*) FROM {_RELATIONS} AND relkind = 'f'": (
        "The rows of {count} foreign tables lie on other servers and are not in the dump."
    ),
    f"SELECT count(*) FROM {_RELATIONS} AND relkind = 'm'": (
        "The rows of {count} materialized views are not in the dump: a restore computes them anew."
    ),
    "SELECT count(*) FROM pg_catalog.pg_extension WHERE extname <> 'plpgsql'": (
        "Of {count} extensions the dump holds the names: a restore needs their packages on the server and takes"
        " the version it finds there."
    ),
    "SELECT count(*) FROM pg_catalog.pg_event_trigger": (
        "Only a superuser can restore the database's event triggers, of which there are {count}."
    ),
    "SELECT count(*) FROM pg_catalog.pg_extension WHERE extname = 'pg_cron'": (
        "The extension pg_cron can be in one database of a server only, so a drill of this database needs a server of"
        " its own."
    ),
}
_ALWAYS = (
    "Roles and tablespaces are the server's and not in the dump: keep the output of pg_dumpall --globals-only with it.",
    "Owners, privileges and tablespaces are restored where the server has them; digests leave them out.",
)
_TARGET = """
    SELECT ARRAY(SELECT rolname::text FROM pg_catalog.pg_roles WHERE pg_has_role(oid, '{act_as}')),
           ARRAY(SELECT rolname::text FROM pg_catalog.pg_roles),
           ARRAY(SELECT spcname::text FROM pg_catalog.pg_tablespace WHERE has_tablespace_privilege(oid, 'CREATE')),
           ARRAY(SELECT name FROM pg_catalog.pg_settings)
"""

Row = tuple[Any, ...]


def objects(connection: Connection[Row]) -> Objects:
    """How many of each kind; events are unknown to PostgreSQL."""
    counts = _counts(connection)
    return Objects(tables=counts[0], views=counts[1], routines=counts[2], triggers=counts[3])


def is_empty(connection: Connection[Row]) -> bool:
    """Whether nobody has made anything in the database."""
    return _row(connection, _OTHERS) == (0,) and not any(_counts(connection))


def notes(connection: Connection[Row]) -> list[str]:
    """What a dump of this database cannot carry."""
    found = list(_ALWAYS)
    for query, sentence in _NOTES.items():
        if count := _row(connection, query)[0]:
            found.append(sentence.format(count=count))
    return found


def obstacles(connection: Connection[Row]) -> Iterator[Finding]:
    """What keeps this user from dumping everything, each with its remedy in SQL."""
    user = sql.Identifier(_row(connection, "SELECT current_user")[0])
    for schema, kind, count, names in connection.execute(_UNREADABLE).fetchall():
        text, remedy = _UNREADABLE_TEXTS[kind]
        listed = ", ".join(names) + (", …" if count > len(names) else "")
        command = sql.SQL(remedy).format(user=user, schema=sql.Identifier(schema))
        yield Finding("error", text.format(schema=schema, names=listed, count=count), command.as_string(connection))
    count, first = _row(connection, _UNREADABLE_LARGE_OBJECTS)
    if count:
        command = sql.SQL("GRANT SELECT ON LARGE OBJECT {first} TO {user};").format(user=user, first=sql.Literal(first))
        text = f"The user may not read {count} of the large objects; {first} is the first of them."
        yield Finding("error", text, command.as_string(connection))


def target(connection: Connection[Row], *, restricts: bool) -> Target:
    """What the server offers to a restore."""
    act_as = "SET" if connection.info.server_version >= 160000 else "MEMBER"  # 16 tells using a role from becoming it
    own_roles, roles, tablespaces, settings = _row(connection, _TARGET.format(act_as=act_as))
    return Target(
        own_roles=frozenset(own_roles),
        roles=frozenset([*roles, "public"]),
        tablespaces=frozenset(tablespaces),
        settings=frozenset(settings),
        restricts=restricts,
    )


def _counts(connection: Connection[Row]) -> Row:
    own_trigger = _OWN_TRIGGER if connection.info.server_version >= 130000 else ""
    return _row(connection, _OBJECTS.format(own_trigger=own_trigger))


def _row(connection: Connection[Row], query: str) -> Row:
    row = connection.execute(query.encode()).fetchone()
    assert row is not None  # none of these queries can answer nothing
    return row
