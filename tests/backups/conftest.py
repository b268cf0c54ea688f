"""What several tests of backups share."""

from collections.abc import Iterator

import pytest

from apps.console.roles import ensure_groups
from tests.factories import UserFactory
from tests.servers import MariaDB, MySQL, PostgreSQL

Server = MariaDB | MySQL | PostgreSQL
BACKEND = "django.contrib.auth.backends.ModelBackend"


@pytest.fixture
def sign_in(client):
    """Signs a member of a group in and gives the browser."""
    ensure_groups()

    def as_member(group: str):
        client.force_login(UserFactory(username=group, group=group), backend=BACKEND)
        return client

    return as_member


@pytest.fixture(scope="session")
def started() -> Iterator[dict[str, Server]]:
    """Database servers that hold schemas of a test's own, for `server_of`."""
    made: dict[str, Server] = {}
    yield made
    for server in made.values():
        server.__exit__(None, None, None)


def server_of(kind: str, started: dict[str, Server]) -> Server:
    """The server of that kind, which is started when it is first asked for, once for a run."""
    if kind == "MySQL" and (reason := MySQL.unavailable_reason()):
        pytest.skip(reason)
    if kind not in started:
        options = [] if kind == "PostgreSQL" else ["--event-scheduler=ON"]
        started[kind] = {"MariaDB": MariaDB, "MySQL": MySQL, "PostgreSQL": PostgreSQL}[kind](*options)
    server = started[kind].start()  # a test that failed may have left it dead or frozen
    server.thaw()
    return server
