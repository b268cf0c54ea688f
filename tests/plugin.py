"""The pytest plugin that gives a run its servers, before Django's settings are read (`-p tests.plugin`).

One database and one Redis are shared by the whole run. Every worker of pytest-xdist has its own test database, which
pytest-django makes, and its own number in Redis. The fixtures start private servers that a test may freeze or kill.
"""

import os
import re
import secrets
import signal
import threading
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.servers import MariaDB, MySQL, Redis, ServerError, run_folder
from tests.servers.process import RUN_FOLDER_VARIABLE

SETTINGS = Path(__file__).parent.parent / "pulsewatch" / "settings.py"
# Options of runs that execute no test.
IDLE_OPTIONS = ("help", "version", "collectonly", "markers", "showfixtures", "show_fixtures_per_test", "cacheshow")
WORKER_VARIABLE = "PYTEST_XDIST_WORKER"

_shared_servers = ExitStack()
_unavailable = pytest.StashKey[str]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("pulsewatch").addoption(
        "--db",
        choices=("mariadb", "mysql", "sqlite", "given"),
        default="mariadb",
        help="the database of this run: a private server, a file, or what DATABASE_URL names (default: mariadb)",
    )


@pytest.hookimpl(wrapper=True)  # before pytest-django's hook, which imports the settings
def pytest_load_initial_conftests(early_config: pytest.Config) -> Generator[None, None, None]:
    options = early_config.known_args_namespace
    worker = os.environ.get(WORKER_VARIABLE)
    if worker:
        # gw0 has Redis database 1, gw1 has 2; 0 belongs to runs without workers.
        server, _, _ = os.environ["REDIS_URL"].rpartition("/")
        os.environ["REDIS_URL"] = f"{server}/{int(worker.removeprefix('gw')) + 1}"
        return (yield)

    engine = options.db
    if any(getattr(options, name, False) for name in IDLE_OPTIONS):
        engine = "none"
    elif engine == "mysql" and (reason := MySQL.unavailable_reason()):
        early_config.stash[_unavailable] = reason
        engine = "none"
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # SIGTERM ends a run as Ctrl-C does: tidily
    try:
        _set_environment(engine)
    except ServerError as error:
        raise pytest.UsageError(str(error)) from error
    return (yield)


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> pytest.ExitCode | None:
    """A run on a MySQL that cannot be had here is no failure: it says so in one line and ends."""
    reason = config.stash.get(_unavailable, None)
    if reason is None:
        return None
    print(f"{reason}. The tests on MySQL are left out; those on MariaDB prove the product.")
    return pytest.ExitCode.OK


def pytest_unconfigure() -> None:
    _shared_servers.close()


@pytest.fixture
def mariadb() -> Iterator[MariaDB]:
    """A MariaDB of the test's own, which it may freeze, kill and restart."""
    with MariaDB() as server:
        yield server


@pytest.fixture
def redis_server() -> Iterator[Redis]:
    """A Redis of the test's own, which it may freeze, kill and restart."""
    with Redis() as server:
        yield server


@pytest.fixture
def private_database(pytestconfig: pytest.Config) -> Iterator[MariaDB | MySQL]:
    """A database server of the test's own: MySQL in a run with `--db=mysql`, else MariaDB."""
    with kind_of_database(pytestconfig)() as server:
        yield server


@pytest.fixture
def migrated_database(pytestconfig: pytest.Config) -> Iterator[MariaDB | MySQL]:
    """The same with Pulsewatch's tables."""
    with kind_of_database(pytestconfig)(migrated=True) as server:
        yield server


def kind_of_database(config: pytest.Config) -> type[MariaDB | MySQL]:
    """What a private database server is in this run."""
    return MySQL if config.getoption("db") == "mysql" else MariaDB


def _set_environment(engine: str) -> None:
    """Start the shared servers and describe them to the settings, for this process and the workers it starts."""
    given_database = os.environ.get("DATABASE_URL", "")
    if engine == "given" and not given_database:
        raise pytest.UsageError("--db=given uses the database that DATABASE_URL names, and DATABASE_URL is not set")
    # Whatever the settings read and this shell happens to hold must not change what the tests prove.
    for name in re.findall(r'\benv\.\w+\(\s*"([A-Z0-9_]+)"', SETTINGS.read_text()):
        os.environ.pop(name, None)
        os.environ.pop(f"{name}_FILE", None)
    os.environ.pop(RUN_FOLDER_VARIABLE, None)
    var = run_folder() / "var"
    var.mkdir(mode=0o700)
    urls = {
        "DATABASE_URL": given_database if engine == "given" else f"sqlite:///{var}/pulsewatch.sqlite3",
        "REDIS_URL": "redis://127.0.0.1:1/0",  # where nobody listens: a run that executes no test needs none
    }
    if engine != "none":
        urls["REDIS_URL"] = _shared_servers.enter_context(Redis()).url
    if engine in ("mariadb", "mysql"):
        urls["DATABASE_URL"] = _shared_servers.enter_context(MySQL() if engine == "mysql" else MariaDB()).url
    os.environ |= urls | {
        "ENVIRONMENT": "development",
        "ENV_FILE": "",
        "SECRET_KEY": secrets.token_urlsafe(45),  # 60 characters
        "VAR_DIR": str(var),
        RUN_FOLDER_VARIABLE: str(run_folder()),
    }
