"""Private real servers for tests and benchmarks: MariaDB, MySQL and Redis, each on 127.0.0.1 with its own data.

    with MariaDB() as database:
        connect(database.url)

Everything here imports the standard library only, so that `python3 -m tests.servers install` runs before the virtual
environment exists.
"""

from tests.servers.databases import MariaDB, MySQL
from tests.servers.packages import ServerError, chromium_path, ensure_installed
from tests.servers.process import Server, free_port, run_folder
from tests.servers.redis import Redis

__all__ = [
    "MariaDB",
    "MySQL",
    "Redis",
    "Server",
    "ServerError",
    "chromium_path",
    "ensure_installed",
    "free_port",
    "run_folder",
]
