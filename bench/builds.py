"""One report of 100,000 diagnostics: read and stored, first as new ones, then moved by a line in the next build.

Each is measured in a process of its own, for memory is counted at its peak.
"""

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from io import BytesIO

from bench.measure import Report

DIAGNOSTICS = 100_000
FILES = 500
SECONDS, MEBIBYTES = 10, 300


def run(report: Report) -> None:
    """Needs DATABASE_URL of an empty database or a migrated one."""
    subprocess.run([sys.executable, "manage.py", "migrate", "--verbosity", "0"], check=True)
    for report_format in ("tsc", "sarif"):
        for line, title in ((1, "new"), (2, "carried on")):
            command = [sys.executable, "-m", "bench.builds", report_format, str(line)]
            measured = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            name = f"report of {DIAGNOSTICS:,} diagnostics ({report_format}, {title})"
            report.ratio(f"{name}: seconds", measured["seconds"], at_most=SECONDS)
            report.ratio(f"{name}: peak memory in MiB", measured["mebibytes"], at_most=MEBIBYTES)


def _tsc(number: int, line: int) -> str:
    return (
        f"src/module{number % FILES}/index.ts({line + number // FILES},5): error TS2322: "
        f"Type 'string' is not assignable to type 'Figure{number}'.\n"
    )


def _sarif(number: int, line: int) -> str:
    region = {"startLine": line + number // FILES, "startColumn": 5}
    location = {"artifactLocation": {"uri": f"src/module{number % FILES}/index.py"}, "region": region}
    result = {
        "ruleId": "F821",
        "level": "error",
        "message": {"text": f"Undefined name `figure{number}`"},
        "locations": [{"physicalLocation": location}],
    }
    return ("," if number else "") + json.dumps(result, separators=(",", ":"))


_FORMATS: dict[str, tuple[str, Callable[[int, int], str], str]] = {
    "tsc": ("", _tsc, f"\nFound {DIAGNOSTICS} errors in {FILES} files.\n"),
    "sarif": (
        '{"version":"2.1.0","runs":[{"results":[',
        _sarif,
        '],"tool":{"driver":{"name":"ruff","rules":[{"id":"F821"}]}}}]}',
    ),
}


def _measure(report_format: str, line: int) -> None:
    import django

    django.setup()
    from apps.builds import services
    from apps.core.audit import Actor
    from apps.inventory.models import Service

    head, one, tail = _FORMATS[report_format]
    content = BytesIO((head + "".join(one(number, line) for number in range(DIAGNOSTICS)) + tail).encode())
    actor = Actor.automation("bench")
    build = services.start_build(
        service=Service.objects.get(slug="app"), environment="staging", branch="main", actor=actor
    )
    started = time.perf_counter()
    (row,) = services.report_diagnostics(
        build=build, actor=actor, report_format=report_format, content=content, complete=True
    )
    seconds = time.perf_counter() - started
    stored = row.added if line == 1 else row.carried
    if (stored, row.resolved) != (DIAGNOSTICS, 0):
        raise RuntimeError(f"of {DIAGNOSTICS} diagnostics {stored} were stored and {row.resolved} resolved")
    print(json.dumps({"seconds": seconds, "mebibytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))


if __name__ == "__main__":
    _measure(sys.argv[1], int(sys.argv[2]))
