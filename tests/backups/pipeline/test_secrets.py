"""The password of a database, full of odd characters, on its whole way: seen by no other process, kept nowhere."""

import json
import logging
import secrets
from contextlib import suppress
from dataclasses import replace
from io import StringIO
from pathlib import Path
from urllib.parse import quote

import pytest
from django.core.management import CommandError, call_command
from django.db import connection

from apps.backups import restorer, runner, services
from apps.backups.choices import RestoreKind
from apps.backups.engines.base import Engine
from apps.core.logging import JsonFormatter
from tests.backups.pipeline.product import ACTOR, OWNER, fill, queued, run, url_of

pytestmark = [pytest.mark.django_db, pytest.mark.parametrize("source", ["MariaDB", "PostgreSQL"], indirect=True)]

CREATE = {
    "mysql": ("CREATE USER '{user}'@'%' IDENTIFIED BY '{password}'", "GRANT ALL ON *.* TO '{user}'@'%'"),
    "postgresql": ("CREATE ROLE {user} SUPERUSER LOGIN PASSWORD '{password}'",),
}


@pytest.fixture
def odd(source: Engine) -> Engine:
    """The filled schema, as a user whose password breaks whatever does not quote it."""
    fill(source, 3)
    user = f"odd_{secrets.token_hex(4)}"
    core = secrets.token_hex(8)
    password = f"p'\"w #;%@:/?&=$(id)`é☃{core}"
    for statement in CREATE[source.address.engine]:
        run(source, statement.format(user=user, password=password.replace("'", "''")))
    return type(source)(replace(source.address, user=user, password=password))


def spellings(password: str) -> list[bytes]:
    """The password as it is, percent-encoded, in JSON, and the part of it that no spelling changes."""
    texts = [password, quote(password, safe=""), json.dumps(password)[1:-1], password[-16:]]
    return [text.encode() for text in texts]


def everywhere() -> bytes:
    """What anybody may read of every process: its command line, and its environment where we may."""
    found = b""
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with suppress(OSError):
                found += (folder / "cmdline").read_bytes() + (folder / "environ").read_bytes()
    return found


def rows() -> bytes:
    """Every column of every table of Pulsewatch's own."""
    found = []
    with connection.cursor() as cursor:
        for table in connection.introspection.table_names(cursor):
            cursor.execute(f"SELECT * FROM {connection.ops.quote_name(table)}")
            found += cursor.fetchall()
    return repr(found).encode()


def test_a_password_is_seen_nowhere_on_the_whole_way(
    odd: Engine, kept_here: Path, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    secret = odd.address.password
    caplog.set_level(logging.DEBUG)
    seen: dict[str, bytes] = {}
    said = StringIO()

    def look(step: str, done: int) -> None:
        if done and step not in seen:
            seen[step] = everywhere()

    (tmp_path / "url").write_text(url_of(odd))
    adding = ("database", "add", "shop", "--environment", "production", "--url-file")
    call_command(*adding, str(tmp_path / "url"), stdout=said, stderr=said)
    (tmp_path / "url").unlink()
    job = queued(services.Database.objects.get())
    assert runner.back_up(job.pk, owner=OWNER, progress=look).status == "completed"
    drill = services.request_restore(backup=job_of(job), actor=ACTOR, kind=RestoreKind.DRILL)
    assert restorer.restore(drill.pk, owner=OWNER, progress=look).equal
    call_command("backup", "list", stdout=said, stderr=said)
    call_command("backup", "verify", job.pk, stdout=said, stderr=said)
    call_command("database", "check", "shop", stdout=said, stderr=said)

    assert set(seen) == {"dump", "check", "verify", "restore", "compare"}
    # What is refused: the server is told another password now, and the row keeps the old one.
    run(odd, changed(odd))
    failed = queued(job.database)
    assert runner.back_up(failed.pk, owner=OWNER).status == "queued"
    with pytest.raises(CommandError) as refused:
        call_command("database", "check", "shop", stdout=said, stderr=said)
    (tmp_path / "wrong").write_text(url_of(odd))
    with pytest.raises(CommandError) as unregistered:
        call_command("database", "add", "again", *adding[3:], str(tmp_path / "wrong"), stdout=said, stderr=said)
    (tmp_path / "wrong").unlink()

    lines = "\n".join(JsonFormatter().format(record) for record in caplog.records)
    files = b"".join(path.read_bytes() for path in kept_here.rglob("*") if path.is_file())
    texts = {
        "processes": b"".join(seen.values()),
        "rows": rows(),
        "logs": lines.encode() + caplog.text.encode(),
        "output": said.getvalue().encode() + str(refused.value).encode() + str(unregistered.value).encode(),
        "storage": files,
    }
    assert all(texts.values())
    leaks = {name for name, text in texts.items() if any(spelling in text for spelling in spellings(secret))}
    assert leaks == set()


def changed(engine: Engine) -> str:
    if engine.address.engine == "mysql":
        return f"ALTER USER '{engine.address.user}'@'%' IDENTIFIED BY 'another'"
    return f"ALTER ROLE {engine.address.user} PASSWORD 'another'"


def job_of(job):
    job.refresh_from_db()
    return job
