"""Takes a report in: reads it outside any transaction, then stores it in bulk under its source's lock."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from hashlib import sha256
from typing import Any

from django.db import connection
from django.db.models import Case, F, Q, TextField, Value, When

from apps.builds import rules
from apps.builds.choices import BuildStatus, DiagnosticStatus
from apps.builds.models import Build, Diagnostic, DiagnosticReport, DiagnosticSource
from apps.builds.parsers import PARSERS
from apps.builds.parsers.base import BadReport, Found, Run, Stream
from apps.builds.paths import BadPath, Place
from apps.core import ids
from apps.core.inserts import SLICE, Inserter, sliced
from apps.core.redaction import redact

# What a report says anew of a diagnostic it knows. Never its status: a person may be changing that just now.
CARRIED = ["line_number", "column_number", "error_message", "level", "severity", "last_build", "updated_at"]

GONE = "No longer reported by"


@dataclass(frozen=True, slots=True)
class Delivery:
    """What one tool says in a report, ready to be stored."""

    report_format: str
    digest: str
    complete: bool
    run: Run
    fingerprints: Sequence[str]  # of run.found, in its order

    @property
    def tool(self) -> str:
        return self.run.tool


class _Hashed:
    """A stream that is hashed while it is read."""

    def __init__(self, stream: Stream, *context: str) -> None:
        self._stream = stream
        self.hash = sha256("\0".join(context).encode("utf-8", "surrogatepass") + b"\0")

    def read(self, size: int, /) -> bytes:
        block = self._stream.read(size)
        self.hash.update(block)
        return block


def read(report_format: str, stream: Stream, *, root: str, folder: str, complete: bool) -> list[Delivery]:
    """The report, by tool. Raises BadReport."""
    try:
        place = Place(root, folder)
    except BadPath as error:
        raise BadReport(str(error), field="root") from error
    hashed = _Hashed(stream, report_format, root, folder, str(complete))
    runs = PARSERS[report_format](hashed, place)
    digest = hashed.hash.hexdigest()
    return [
        # By what the tool wrote: two messages may differ in a secret alone.
        Delivery(report_format, digest, complete and not run.doubts, _without_secrets(run), _fingerprints(run.found))
        for run in runs
    ]


def _without_secrets(run: Run) -> Run:
    """Here and not when they are stored: some messages take 10 ms each, and nobody else shall wait for that."""
    found = [
        found if (message := rules.plain(redact(found.message), rules.MAX_MESSAGE)) == found.message
        else replace(found, message=message)
        for found in run.found
    ]  # fmt: skip
    return replace(run, found=found)


def _fingerprints(found: Sequence[Found]) -> list[str]:
    """One for each. Equal diagnostics are counted from the top of their file, whatever order the tool keeps."""
    order = sorted(range(len(found)), key=lambda i: (found[i].line or 0, found[i].column or 0))
    keys = [rules.basis(one.file, one.code, one.message) for one in found]
    fingerprints = [""] * len(found)
    for i, ordinal in zip(order, rules.ordinals(keys[i] for i in order), strict=True):
        fingerprints[i] = rules.fingerprint(keys[i], ordinal)
    return fingerprints


def lock(build: Build, tool: str) -> DiagnosticSource:
    """The source of a tool's reports, locked until the transaction ends; made by its first report."""
    while True:
        source, _ = DiagnosticSource.objects.get_or_create(
            service_id=build.service_id, environment=build.environment, branch=build.branch, tool=tool
        )
        # In no order: that of the table would lock the service as well.
        locked = DiagnosticSource.objects.select_for_update().order_by().filter(pk=source.pk).first()
        if locked is not None:  # else it had been silent for long, and was deleted just now
            return locked


def store(
    build: Build, source: DiagnosticSource, delivery: Delivery, *, reported_by: str, now: datetime
) -> tuple[DiagnosticReport, bool]:
    """Store one tool's part under the lock of its source. True when it was there already: then nothing changes."""
    earlier = DiagnosticReport.objects.filter(build=build, source=source, digest=delivery.digest).first()
    if earlier:
        return earlier, True
    newest = source.newest_build
    levels = [found.level for found in delivery.run.found]
    report = DiagnosticReport(
        build=build,
        source=source,
        format=delivery.report_format,
        digest=delivery.digest,
        complete=delivery.complete,
        doubts=list(delivery.run.doubts),
        outdated=newest is not None and (newest.created_at, newest.pk) > (build.created_at, build.pk),
        errors=levels.count("error"),
        warnings=levels.count("warning"),
        notes=levels.count("note"),
        suppressed=delivery.run.suppressed,
        reported_by=reported_by,
        received_at=now,
    )
    if not report.outdated:
        _apply(report, delivery, now)
        source.newest_build = build
        source.save(update_fields=("newest_build",))
    report.save(force_insert=True)
    _count(build, now)
    return report, False


def _apply(report: DiagnosticReport, delivery: Delivery, now: datetime) -> None:
    """Add what is new, carry on what is known, and resolve what a complete report no longer shows."""
    mine = Diagnostic.objects.filter(source=report.source)
    known = {
        fingerprint: (pk, status, first_build)
        for fingerprint, *rest in mine.values_list("fingerprint", "pk", "status", "first_build_id").iterator(SLICE)
        for pk, status, first_build in (rest,)
    }
    back = []
    writer = _Writer(report, now)
    for part in sliced(list(zip(delivery.run.found, delivery.fingerprints, strict=True))):
        new, carried = [], []
        for found, fingerprint in part:
            pk, status, first_build = known.pop(fingerprint, ("", "", report.build_id))
            (carried if pk else new).append(writer.row(found, fingerprint, pk, first_build))
            if status == DiagnosticStatus.RESOLVED:
                back.append(pk)
        writer.insert(new)
        writer.upsert(carried)
        report.added += len(new)
        report.carried += len(carried)
    for part in sliced(back):
        report.reopened += mine.filter(pk__in=part, status=DiagnosticStatus.RESOLVED).update(
            status=DiagnosticStatus.IDENTIFIED, resolved_at=None, resolution_notes=_unless_a_person_said(None)
        )
    if report.complete:
        gone = [pk for pk, status, _ in known.values() if status != DiagnosticStatus.RESOLVED]
        for part in sliced(gone):
            report.resolved += (
                mine.filter(pk__in=part)
                .exclude(status=DiagnosticStatus.RESOLVED)
                .update(
                    status=DiagnosticStatus.RESOLVED,
                    resolved_at=now,
                    resolution_notes=_unless_a_person_said(f"{GONE} {report.build_id}."),
                    updated_at=now,
                )
            )


def _unless_a_person_said(text: str | None) -> Case:
    """Notes in the place of none or of our own. A person's stay."""
    ours = Q(resolution_notes=None) | Q(resolution_notes="") | Q(resolution_notes__startswith=GONE)
    return Case(When(ours, then=Value(text)), default=F("resolution_notes"), output_field=TextField(null=True))


class _Writer:
    """Writes diagnostics of one report, many in a statement.

    Never as objects: making them and turning their fields into parameters takes five times as long as all the rest.
    Rows hold what differs, in the order of VARYING; what is the same for all stands behind.
    """

    VARYING = (
        "id", "fingerprint", "first_build", "file_path", "line_number", "column_number", "error_code",
        "error_message", "level", "category", "severity",
    )  # fmt: skip

    def __init__(self, report: DiagnosticReport, now: datetime) -> None:
        build = report.build
        self._tool = report.source.tool
        self._failed = build.build_status == BuildStatus.FAILED
        self._stem = ids.timestamped("diagnostic", now)
        at = connection.ops.adapt_datetimefield_value(now)
        same = {
            "source": report.source_id,
            "service": build.service_id,
            "environment": build.environment,
            "status": DiagnosticStatus.IDENTIFIED.value,
            "last_build": build.pk,
            "created_at": at,
            "updated_at": at,
        }
        self._same = tuple(same.values())
        self._rows = Inserter(Diagnostic, (*self.VARYING, *same))

    def row(self, found: Found, fingerprint: str, pk: str, first_build: str) -> tuple[Any, ...]:
        return (
            pk or f"{self._stem}_{ids.suffix(source=ids.fast)}",
            fingerprint,
            first_build,
            found.file,
            found.line,
            found.column,
            found.code,
            found.message,
            found.level,
            rules.category(self._tool, found.code),
            rules.severity(found.level, build_failed=self._failed),
            *self._same,
        )

    def insert(self, rows: Sequence[tuple[Any, ...]]) -> None:
        self._rows.insert(rows)

    def upsert(self, rows: Sequence[tuple[Any, ...]]) -> None:
        """Rows that are there, known by their id: CARRIED is written."""
        self._rows.upsert(rows, CARRIED)


def _count(build: Build, now: datetime) -> None:
    """The build's errors and warnings: of each tool what its last complete report says, and the partial ones after."""
    totals: dict[int, tuple[int, int]] = {}
    for report in DiagnosticReport.objects.filter(build=build).order_by("pk"):
        had = (0, 0) if report.complete else totals.get(report.source_id, (0, 0))
        totals[report.source_id] = (had[0] + report.errors, had[1] + report.warnings)
    errors, warnings = (sum(column) for column in zip(*totals.values(), strict=True))
    Build.objects.filter(pk=build.pk).update(error_count=errors, warning_count=warnings, updated_at=now)


def summary(report: DiagnosticReport) -> dict[str, Any]:
    """What a report brought and changed, for the audit trail."""
    names = ("errors", "warnings", "notes", "added", "carried", "reopened", "resolved")
    told = {name: getattr(report, name) for name in names}
    return {"tool": report.source.tool, "complete": report.complete, "outdated": report.outdated, **told}
