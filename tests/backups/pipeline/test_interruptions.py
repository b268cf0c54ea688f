"""Clients and servers that die, hang or change while a backup, a drill or a restore is under way."""

import secrets
import signal
import time
from collections.abc import Iterator

import pytest

from apps.backups import restorer, runner, services, stream
from apps.backups.choices import RestoreKind
from apps.backups.engines import engine_for, parse_url
from apps.backups.engines.base import Engine
from apps.backups.models import BackupJob, Restore
from tests.backups.conftest import Server, server_of
from tests.backups.pipeline.product import (
    ACTOR,
    OWNER,
    back_up,
    before_the_second_dump,
    client,
    fill,
    once,
    queued,
    register,
    restored,
    run,
    stored_in,
    url_of,
)

pytestmark = pytest.mark.django_db

MEGABYTES = 14  # more than pipes and sockets hold: the client is at work until somebody reads on
AT_ONCE = 15  # seconds; what is meant takes two, on a machine that does nothing else


def on(*kinds: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("large", kinds, indirect=True)


@pytest.fixture(scope="module")
def filled() -> Iterator[dict[str, Engine]]:
    made: dict[str, Engine] = {}
    yield made
    for engine in made.values():
        engine.drop()


@pytest.fixture
def large(request: pytest.FixtureRequest, servers: dict[str, Server], filled: dict[str, Engine]) -> Engine:
    """A schema with more than pipes and sockets hold, made once and left as it is by every test."""
    kind = request.param
    if kind not in filled:
        engine = engine_for(parse_url(server_of(kind, servers).url)).at(f"large_{secrets.token_hex(4)}")
        engine.create()
        fill(engine, MEGABYTES)
        filled[kind] = engine
    return filled[kind]


@pytest.fixture
def server(large: Engine, servers: dict[str, Server]) -> Server:
    """The server of `large`."""
    return next(server for server in servers.values() if server.port == large.address.port)


def assert_tried_again(job: BackupJob, said: str, kept_here) -> None:
    """It failed without a trace, says why, and waits for its next attempt."""
    job.refresh_from_db()
    assert (job.status, job.retry_count, job.integrity_check_passed) == ("queued", 1, None)
    assert said in str(job.error_message)
    assert stored_in(kept_here) == []
    assert (job.object_path, job.sidecar_path) == ("", "")


def assert_next_one_is_verified(job: BackupJob) -> None:
    BackupJob.objects.filter(pk=job.pk).update(next_attempt_at=None)
    assert runner.back_up(job.pk, owner=OWNER).status == "completed"


@on("MariaDB", "MySQL", "PostgreSQL")
def test_a_killed_client_fails_the_attempt_and_the_next_one_is_verified(large: Engine, kept_here) -> None:
    job = back_up(register(url_of(large)), once(lambda: client().send_signal(signal.SIGKILL)))

    assert_tried_again(job, "was ended by signal 9", kept_here)
    assert_next_one_is_verified(job)


@on("MariaDB", "MySQL", "PostgreSQL")
def test_a_killed_server_fails_the_attempt_and_the_next_one_is_verified(
    large: Engine, server: Server, kept_here
) -> None:
    database = register(url_of(large))
    try:
        job = back_up(database, once(server.kill))
    finally:
        server.start()

    assert_tried_again(job, "ended with status", kept_here)
    assert_next_one_is_verified(job)


@on("MariaDB", "MySQL", "PostgreSQL")
def test_writers_go_on_during_a_dump_which_is_of_one_moment(large: Engine) -> None:
    database = register(url_of(large))
    before = back_up(database)

    during = back_up(database, once(lambda: run(large, "INSERT INTO zz_last VALUES (2, 'written meanwhile')")))

    assert during.status == "completed"
    assert run(large, "DELETE FROM zz_last WHERE id = 2", "SELECT count(*) FROM zz_last") == [(1,)]
    assert during.tables == before.tables


@on("MariaDB", "PostgreSQL")
def test_a_table_made_during_the_dump_is_noticed(large: Engine, kept_here) -> None:
    job = back_up(register(url_of(large)), once(lambda: run(large, "CREATE TABLE made_meanwhile (id INT PRIMARY KEY)")))

    run(large, "DROP TABLE made_meanwhile")
    assert_tried_again(job, "changed during the dump", kept_here)


@on("MariaDB", "MySQL")
def test_a_table_altered_during_the_dump_fails_the_attempt_with_the_remedy(large: Engine, kept_here) -> None:
    job = back_up(register(url_of(large)), once(lambda: run(large, "ALTER TABLE zz_last ADD COLUMN more INT, FORCE")))

    run(large, "ALTER TABLE zz_last DROP COLUMN more")
    assert_tried_again(job, "while it was dumped", kept_here)


@on("MariaDB", "MySQL", "PostgreSQL")
def test_a_backup_from_a_hanging_server_is_cancelled_at_once(large: Engine, server: Server, kept_here) -> None:
    job = queued(register(url_of(large)))
    hung: list[float] = []

    def hang() -> None:
        server.freeze()
        hung.append(time.monotonic())
        assert services.cancel(job, actor=ACTOR)

    try:
        ended = runner.back_up(job.pk, owner=OWNER, progress=once(hang))
        assert time.monotonic() - hung[0] < AT_ONCE
    finally:
        server.thaw()
    assert ended is not None
    assert (ended.status, ended.error_message) == ("cancelled", "Cancelled.")
    assert stored_in(kept_here) == []


@on("MariaDB")
def test_a_server_that_hangs_for_good_fails_the_attempt_in_the_end(
    large: Engine, server: Server, kept_here, monkeypatch
) -> None:
    monkeypatch.setattr(stream, "SILENCE_SECONDS", 2)
    database = register(url_of(large))
    try:
        job = back_up(database, once(server.freeze))
    finally:
        server.thaw()

    assert_tried_again(job, "its server hangs or is out of reach", kept_here)


@on("MariaDB", "PostgreSQL")
def test_a_restore_to_a_hanging_server_is_cancelled_at_once(large: Engine, server: Server) -> None:
    job = back_up(register(url_of(large)))
    copy = large.at(f"copy_{secrets.token_hex(4)}")
    row = services.request_restore(backup=job, actor=ACTOR, kind=RestoreKind.RESTORE, schema=copy.address.database)
    hung: list[float] = []

    def hang() -> None:
        server.freeze()
        hung.append(time.monotonic())
        assert services.cancel(row, actor=ACTOR)

    try:
        ended = restorer.restore(row.pk, owner=OWNER, progress=once(hang, step="restore"))
        assert time.monotonic() - hung[0] < AT_ONCE
    finally:
        server.thaw()
        copy.drop()
    assert ended is not None
    left = f"What it left in {row.schema} is not complete."
    assert (ended.status, ended.error_message) == ("cancelled", f"Cancelled. {left}")


@on("MariaDB")
def test_what_a_drill_could_not_drop_the_next_one_drops(large: Engine, server: Server, monkeypatch) -> None:
    job = back_up(register(url_of(large)))
    try:
        with before_the_second_dump(lambda scratch: server.kill(), monkeypatch):
            row = restored(job)
    finally:
        server.start()
    assert (row.status, row.equal) == ("failed", None)
    assert large.at(row.schema).exists()

    assert restored(job).equal

    assert not large.at(row.schema).exists()


@on("MariaDB")
@pytest.mark.parametrize("step", ["dump", "check"])
def test_a_backup_that_is_interrupted_says_so_and_leaves_nothing(large: Engine, kept_here, step: str) -> None:
    """Ctrl-C at a terminal; Celery's time limit comes the same way."""
    job = queued(register(url_of(large)), held_by=OWNER)

    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        runner.back_up(job.pk, owner=OWNER, progress=once(interrupt, step=step))

    job.refresh_from_db()
    assert (job.status, job.error_message) == ("failed", "It was interrupted (KeyboardInterrupt).")
    assert stored_in(kept_here) == []


@on("MariaDB")
@pytest.mark.parametrize("step", ["verify", "restore", "compare"])
def test_a_drill_that_is_interrupted_says_so_and_leaves_nothing(large: Engine, step: str) -> None:
    job = back_up(register(url_of(large)))
    row = services.request_restore(backup=job, actor=ACTOR, kind=RestoreKind.DRILL)

    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        restorer.restore(row.pk, owner=OWNER, progress=once(interrupt, step=step))

    row = Restore.objects.get()
    assert (row.status, row.error_message) == ("failed", "It was interrupted (KeyboardInterrupt).")
    assert not large.at(row.schema).exists()


@on("MariaDB")
def test_a_backup_cancelled_while_its_attempt_fails_is_not_tried_again(large: Engine) -> None:
    job = queued(register(url_of(large)))

    def cancel_and_kill() -> None:
        services.cancel(job, actor=ACTOR)
        client().send_signal(signal.SIGKILL)
        raise runner.EngineError("It failed first.")

    ended = runner.back_up(job.pk, owner=OWNER, progress=once(cancel_and_kill))

    assert ended is not None
    assert (ended.status, ended.error_message) == ("cancelled", "It failed first.")


@on("MariaDB")
@pytest.mark.parametrize("step", ["dump", "check"])
def test_a_worker_that_lost_its_lease_leaves_row_and_storage_to_the_next(large: Engine, kept_here, step: str) -> None:
    job = queued(register(url_of(large)))

    def take_over() -> None:
        BackupJob.objects.filter(pk=job.pk).update(lease_owner="another")

    assert runner.back_up(job.pk, owner=OWNER, progress=once(take_over, step=step)) is None

    job.refresh_from_db()
    assert (job.status, job.lease_owner, job.error_message) == ("in_progress", "another", None)
    assert stored_in(kept_here) == []
