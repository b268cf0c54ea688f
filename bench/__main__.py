"""`make bench`: runs every benchmark on private servers; exits 1 when a bound does not hold.

`make bench ARGS="backups --size 0.1 --runs 1"` takes a quick look at one group; only the full size counts.
"""

import argparse
import os
import secrets
import sys

from bench.measure import RUNS, Report
from bench.rollups import ROWS
from tests.servers import MariaDB, Redis

DEPLOYMENTS = 1_000_000
GROUPS = ("probes", "requests", "checks", "builds", "api", "rollups", "scaling", "backups")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=f"of {', '.join(GROUPS)}; all when none is named")
    parser.add_argument("--size", type=float, default=1, help="gigabytes of SQL to back up (default: 1)")
    parser.add_argument("--runs", type=int, default=RUNS, help=f"of each backup and restore (default: {RUNS})")
    parser.add_argument("--rows", type=int, default=ROWS, help=f"of samples, and of checks (default: {ROWS:,})")
    parser.add_argument(
        "--deployments", type=int, default=DEPLOYMENTS, help=f"of the table of deployments (default: {DEPLOYMENTS:,})"
    )
    chosen = parser.parse_args()
    groups = chosen.groups or GROUPS
    if unknown := set(groups) - set(GROUPS):
        parser.error(f"There is no group {', '.join(sorted(unknown))}: choose from {', '.join(GROUPS)}.")
    report = Report()
    web = [name for name in ("probes", "requests", "checks", "builds", "api", "rollups", "scaling") if name in groups]
    if web:
        _web(report, web, rows=chosen.rows, history=chosen.deployments)
    if "backups" in groups:
        from bench import backups

        backups.run(report, size=chosen.size, runs=chosen.runs)
    return 1 if report.failed else 0


def _web(report: Report, groups: list[str], *, rows: int, history: int) -> None:
    """What needs a whole console."""
    with MariaDB("--innodb-buffer-pool-size=1G") as database, Redis() as broker:  # a million rows fit in
        os.environ |= {
            "DATABASE_URL": database.url,
            "REDIS_URL": broker.url,
            "SECRET_KEY": secrets.token_urlsafe(50),
            "ENV_FILE": "",
            "DJANGO_SETTINGS_MODULE": "pulsewatch.settings",
        }
        import django

        django.setup()
        from bench import api, builds, checks, probes, requests, rollups, scaling, sharing

        if "probes" in groups:
            probes.run(report)
        if "requests" in groups:
            requests.run(report)
        if "checks" in groups:
            checks.run(report)
            sharing.run(report)
        if "api" in groups:
            api.run(report, history=history)
        if "builds" in groups:
            builds.run(report)
        if "rollups" in groups:
            rollups.run(report, rows=rows)
        if "scaling" in groups:
            scaling.run(report)


if __name__ == "__main__":
    sys.exit(main())
