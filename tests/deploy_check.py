"""`python -m tests.deploy_check`: Django's deployment check as production would run it, on a private MariaDB.

Some warnings, such as those about constraints that the database does not know, only appear when the check is given a
real database. Asks whether the migrations are complete on the same occasion.
"""

import os
import secrets
import subprocess
import sys
import tempfile

from tests.servers import MariaDB

COMMANDS = (
    ("makemigrations", "--check", "--dry-run"),
    ("check", "--deploy", "--database", "default", "--fail-level", "WARNING"),
)


def main() -> int:
    """The status of the first command that fails, else 0."""
    with MariaDB() as database, tempfile.TemporaryDirectory() as var:
        # Nothing of this shell's settings: production is described here and nowhere else.
        environment = {
            "PATH": os.environ["PATH"],
            "ENV_FILE": "",
            "ENVIRONMENT": "production",
            "SECRET_KEY": secrets.token_urlsafe(50),
            "METRICS_TOKEN": secrets.token_urlsafe(32),
            "DATABASE_URL": database.url,
            "REDIS_URL": "redis://127.0.0.1:1/0",  # no check asks it
            "ALLOWED_HOSTS": "pulsewatch.example.com",
            "VAR_DIR": var,
        }
        for command in COMMANDS:
            status = subprocess.call([sys.executable, "manage.py", *command], env=environment)
            if status:
                return status
    return 0


if __name__ == "__main__":
    sys.exit(main())
