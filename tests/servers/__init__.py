"""Private real servers for tests and benchmarks, each on 127.0.0.1 with data of its own.

    with MariaDB() as database:
        connect(database.url)

Everything here imports the standard library only, so that `python3 -m tests.servers install` runs before the virtual
environment exists.
"""

from tests.servers.databases import MariaDB, MySQL
from tests.servers.packages import ServerError, chromium_path, ensure_installed
from tests.servers.postgresql import PostgreSQL
from tests.servers.process import Server, free_port, run_folder
from tests.servers.redis import Redis
from tests.servers.seaweedfs import SeaweedFS

__all__ = [
    "MariaDB",
    "MySQL",
    "PostgreSQL",
    "Redis",
    "SeaweedFS",
    "Server",
    "ServerError",
    "chromium_path",
    "ensure_installed",
    "free_port",
    "run_folder",
]
