"""`make bench`: runs every benchmark on private servers; exits 1 when a bound does not hold."""

import os
import secrets
import sys

from bench.measure import Report
from tests.servers import MariaDB, Redis


def main() -> int:
    report = Report()
    with MariaDB() as database, Redis() as broker:
        os.environ |= {
            "DATABASE_URL": database.url,
            "REDIS_URL": broker.url,
            "SECRET_KEY": secrets.token_urlsafe(50),
            "ENV_FILE": "",
            "DJANGO_SETTINGS_MODULE": "pulsewatch.settings",
        }
        import django

        django.setup()
        from bench import probes, requests

        probes.run(report)
        requests.run(report)
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main())
