"""What a person or a client may ask of builds. Every verb validates, writes, audits, and returns the row."""

from collections.abc import Mapping
from datetime import timedelta
from io import BytesIO
from typing import Any

from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.utils import timezone

from apps.builds import intake, rules
from apps.builds.choices import BuildStatus, DiagnosticStatus, Level, ReportFormat, Severity
from apps.builds.models import MAX_ERROR_LOG, MAX_NOTES, Build, Diagnostic, DiagnosticReport, semantic_version
from apps.builds.parsers.base import Stream
from apps.core import audit, ids
from apps.core.errors import Conflict, Invalid
from apps.core.redaction import redact
from apps.inventory.models import Service

# What may be told of a build. None stands for "not told" and changes nothing. The branch is told when it begins, for
# its diagnostics are compared with those of that branch.
VERSIONS = ("node_version", "typescript_version", "astro_version")
FACTS = ("commit_sha", "run_url", *VERSIONS, "build_command")
BEGINNING = ("branch", *FACTS)
FIGURES = ("build_time", "bundle_size", "error_count", "warning_count", "error_log")
_MOST = {"bundle_size": 2**63 - 1, "error_count": rules.MAX_NUMBER, "warning_count": rules.MAX_NUMBER}
MAX_SECONDS = timedelta(days=30).total_seconds()  # a longer build time is a mistake in its unit


def start_build(
    *, service: Service, environment: str, actor: audit.Actor, status: str = BuildStatus.BUILDING, **facts: Any
) -> Build:
    """Record that a build begins or, with status `pending`, waits to begin. `facts` are BEGINNING.

    Raises Invalid with the first wrong field; then nothing is stored.
    """
    if status not in (BuildStatus.PENDING, BuildStatus.BUILDING):
        raise Invalid("A build starts as pending or building.", field="status")
    return _create(service=service, environment=environment, actor=actor, status=status, told=_told(facts, BEGINNING))


def report_build(*, service: Service, environment: str, actor: audit.Actor, status: str, **told: Any) -> Build:
    """Record a build that is over already. `told` are BEGINNING and FIGURES.

    Raises Invalid as `start_build` does.
    """
    if status not in (BuildStatus.SUCCESS, BuildStatus.FAILED, BuildStatus.CANCELLED):
        raise Invalid("A build that is over is success, failed or cancelled.", field="status")
    return _create(
        service=service,
        environment=environment,
        actor=actor,
        status=status,
        told=_told(told, BEGINNING + FIGURES),
    )


def change_build(*, build: Build, actor: audit.Actor, status: str | None = None, **told: Any) -> Build:
    """Move a build on, and note what is known now. `told` are FACTS and FIGURES.

    The status it has already is no move: a message that comes twice does no harm. Raises Conflict for a move that the
    flow does not have, or that somebody else made first, and Invalid for a wrong field; then nothing has changed.
    """
    changes = _told(told, FACTS + FIGURES)
    if status is not None and status not in BuildStatus.values:
        raise Invalid(f"The status of a build is one of {', '.join(BuildStatus.values)}.", field="status")
    while True:  # each round but the last means that somebody else moved it on, which ends with the flow
        row = Build.objects.get(pk=build.pk)
        moves = status is not None and status != row.build_status
        if moves and not rules.may_move(rules.BUILD_FLOW, row.build_status, status):
            raise _no_such_move(rules.BUILD_FLOW, row.pk, row.build_status, status)
        wanted = changes | (_moved(row, status, changes) if moves else {})
        before = {name: value for name in wanted if (value := getattr(row, name)) != wanted[name]}
        if not before or _change(row, before, {name: wanted[name] for name in before}, actor):
            return row


def report_diagnostics(
    *,
    build: Build,
    actor: audit.Actor,
    report_format: str,
    content: Stream | bytes,
    root: str = "",
    folder: str = "",
    complete: bool = False,
) -> list[DiagnosticReport]:
    """Store what tools report about a build: one row for each tool in the report, in its order.

    `root` is where the checkout lay, `folder` where relative paths start if not there. `complete` promises that it is
    all each tool has to say: what it no longer shows is resolved. A report that came before changes nothing and gives
    the row of the first time. Raises Invalid when it cannot be read, and then nothing is stored; Conflict when the
    build has not begun or was cancelled.
    """
    if report_format not in ReportFormat.values:
        raise Invalid(f"The format of a report is one of {', '.join(ReportFormat.values)}.", field="format")
    _reportable(build)
    if isinstance(content, bytes):
        content = BytesIO(content)
    deliveries = intake.read(report_format, content, root=root, folder=folder, complete=complete)
    rows = []
    with transaction.atomic():
        # In one order, so that two reports of the same tools do not wait for each other.
        sources = {one.tool: intake.lock(build, one.tool) for one in sorted(deliveries, key=lambda one: one.tool)}
        row = _reportable(Build.objects.select_for_update().get(pk=build.pk))
        for delivery in deliveries:
            report, repeated = intake.store(
                row, sources[delivery.tool], delivery, reported_by=actor.name, now=timezone.now()
            )
            rows.append(report)
            if not repeated:
                audit.record(
                    actor=actor, action="diagnostics.report", subject=f"build:{row.pk}", after=intake.summary(report)
                )
    return rows


def move_diagnostic(*, diagnostic: Diagnostic, status: str, actor: audit.Actor, notes: str = "") -> Diagnostic:
    """Take a diagnostic into work (`in_progress`), defer it, or call it resolved. `notes` say how or why.

    Raises Conflict when the flow has no such move from where it is now, Invalid for an unknown status.
    """
    if status not in DiagnosticStatus.values:
        raise Invalid(f"The status of a diagnostic is one of {', '.join(DiagnosticStatus.values)}.", field="status")
    notes = rules.plain(redact(notes), MAX_NOTES + 1)
    if len(notes) > MAX_NOTES:
        raise Invalid(f"Notes have at most {MAX_NOTES:,} characters.", field="resolution_notes")
    now = timezone.now()
    changes: dict[str, Any] = {
        "status": status,
        "resolved_at": now if status == DiagnosticStatus.RESOLVED else None,
        "updated_at": now,
    }
    if notes:
        changes["resolution_notes"] = notes
    with transaction.atomic():
        row = Diagnostic.objects.get(pk=diagnostic.pk)
        before = row.status
        may = rules.may_move(rules.DIAGNOSTIC_FLOW, before, status)
        if not may or not Diagnostic.objects.filter(pk=row.pk, status=before).update(**changes):
            row.refresh_from_db()
            raise _no_such_move(rules.DIAGNOSTIC_FLOW, row.pk, row.status, status)
        audit.record(
            actor=actor,
            action=f"diagnostic.{status}",
            subject=f"diagnostic:{row.pk}",
            before={"status": before},
            after={"status": status},
            reason=notes,
        )
    row.refresh_from_db()
    return row


# ---- Inside ----------------------------------------------------------------------------------------------------------


@transaction.atomic
def _create(*, service: Service, environment: str, actor: audit.Actor, status: str, told: dict[str, Any]) -> Build:
    now = timezone.now()
    build = Build(
        service=service,
        environment=environment,
        build_status=status,
        requested_by=actor.name,
        created_at=now,
        started_at=now if status == BuildStatus.BUILDING else None,
        completed_at=None if status in (BuildStatus.PENDING, BuildStatus.BUILDING) else now,
        **told,
    )
    try:
        build.clean_fields(exclude={field.name for field in Build._meta.fields} - {"environment"})
    except ValidationError as error:
        raise _invalid(error) from error
    stem = ids.timestamped("build", now)
    for key in (stem, *(f"{stem}_{ids.suffix(4)}" for _ in range(8))):
        build.pk = key
        try:
            with transaction.atomic():
                build.save(force_insert=True)
        except IntegrityError:
            if not Build.objects.filter(pk=key).exists():
                raise
        else:
            break
    else:
        raise Conflict("Too many builds were reported in this second; report it again.")
    verb = "start" if build.completed_at is None else "report"
    after = {"service": service.slug, "environment": environment, "build_status": status, **told}
    audit.record(actor=actor, action=f"build.{verb}", subject=f"build:{build.pk}", after=_shown(after))
    return build


@transaction.atomic
def _change(row: Build, before: dict[str, Any], after: dict[str, Any], actor: audit.Actor) -> bool:
    """Write what differs. False when the build has another status by now."""
    now = timezone.now()
    here = Build.objects.filter(pk=row.pk, build_status=row.build_status)
    if not here.update(**after, updated_at=now):
        return False
    if after.get("build_status") == BuildStatus.FAILED:
        lasting = Diagnostic.objects.filter(last_build=row, level=Level.ERROR).exclude(status=DiagnosticStatus.RESOLVED)
        lasting.update(severity=Severity.CRITICAL, updated_at=now)
    audit.record(
        actor=actor,
        action=f"build.{after.get('build_status', 'update')}",
        subject=f"build:{row.pk}",
        before=_shown(before),
        after=_shown(after),
    )
    for name, value in after.items():
        setattr(row, name, value)
    return True


def _moved(row: Build, status: str, changes: dict[str, Any]) -> dict[str, Any]:
    """What changes beside the status. A build time nobody told is the time since the building began."""
    now = timezone.now()
    moved: dict[str, Any] = {"build_status": status}
    if status == BuildStatus.BUILDING:
        return moved | {"started_at": now}
    moved["completed_at"] = max(now, row.created_at)  # a clock may jump back
    if row.started_at and "build_time" not in changes and row.build_time is None:
        seconds = round((now - row.started_at).total_seconds(), 3)
        moved["build_time"] = seconds if seconds > 0 else None
    return moved


def _reportable(build: Build) -> Build:
    if build.build_status in (BuildStatus.PENDING, BuildStatus.CANCELLED):
        raise Conflict(f"{build.pk} is {build.build_status}: only a build that has begun has diagnostics.")
    return build


def _told(told: dict[str, Any], known: tuple[str, ...]) -> dict[str, Any]:
    """What was told, checked. Secrets are cut out of the texts: everybody here may read them."""
    if unknown := sorted(set(told) - set(known)):
        raise TypeError(f"a build is told {', '.join(known)}, not {', '.join(unknown)}")
    values = {name: _clean(name, value) for name, value in told.items() if value is not None}
    others = {field.name for field in Build._meta.fields} - set(values)
    try:
        Build(**values).clean_fields(exclude=others)
    except ValidationError as error:
        raise _invalid(error) from error
    return values


def _no_such_move(flow: Mapping[str, frozenset[str]], key: str, source: str, target: str) -> Conflict:
    legal = rules.targets_of(flow, source)
    follows = f"it may become {' or '.join(legal)}" if legal else "nothing follows"
    return Conflict(f"{key} is {source} and cannot become {target}: {follows}.", facts={"legal": legal})


def _clean(name: str, value: Any) -> Any:
    label = str(Build._meta.get_field(name).verbose_name).capitalize()
    if name in _MOST:
        if type(value) is not int or not 0 <= value <= _MOST[name]:
            raise Invalid(f"{label} is a whole number from 0 to {_MOST[name]}.", field=name)
        return value
    if name == "build_time":
        if type(value) not in (int, float) or not 0 < value <= MAX_SECONDS:  # NaN is not
            raise Invalid("Build time is in seconds: above 0, and at most 30 days.", field=name)
        return float(value)
    if not isinstance(value, str):
        raise Invalid(f"{label} is a text.", field=name)
    if name == "commit_sha":
        return value.lower()
    if name in VERSIONS and not value.isascii():  # other scripts have digits too
        raise Invalid(str(semantic_version.message), field=name)
    if name == "error_log":
        return rules.plain_end(redact(value), MAX_ERROR_LOG)
    if name in ("build_command", "run_url"):
        return rules.plain(redact(value), len(value) + 1000)  # too long is for the field to say
    return value


def _shown(values: dict[str, Any]) -> dict[str, Any]:
    """For the audit trail: a log is in the build itself, and times are texts."""
    return {
        name: value.isoformat() if hasattr(value, "isoformat") else value
        for name, value in values.items()
        if name != "error_log"
    }


def _invalid(error: ValidationError) -> Invalid:
    field, messages = next(iter(error.message_dict.items()))
    return Invalid(messages[0], field="status" if field == "build_status" else field)
