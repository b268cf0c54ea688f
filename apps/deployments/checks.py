"""The real checks of the checklists: what Pulsewatch can find out by itself."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta

from django.db import connection

from apps.backups.models import BackupJob
from apps.builds.models import Build
from apps.core import inserts
from apps.core.errors import Conflict
from apps.deployments.choices import ItemState
from apps.deployments.models import ChecklistItem, Deployment, EnvironmentVariable
from apps.deployments.records import AUTOMATIC
from apps.deployments.rules import checklist, variables
from apps.deployments.rules.checklist import Standing
from apps.inventory.models import Database, Instance, Workload

SHOWN = 5  # names in one sentence
_NO_DATABASE = Standing("database_safe", ItemState.NOT_APPLICABLE, "no database is registered for this workload")


def built(build: Build | None) -> list[Standing]:
    """What a linked build says: only a successful one is ever linked."""
    return [] if build is None else [Standing("images_tested", ItemState.PASSED, f"{build.pk} succeeded")]


def before(
    workload: Workload, findings: Sequence[variables.Finding] | None, *, now: datetime, databases: bool = True
) -> list[Standing]:
    """What is known before a deployment. `findings`: the variables, None when the service has no rule for any.

    `databases`: False when it is known that the workload has none.
    """
    return [
        *_variables(findings),
        _health_configured(workload),
        _database_safe(workload, now) if databases else _NO_DATABASE,
    ]


def demanded(workload: Workload) -> list[str]:
    """Items this workload makes blocking."""
    return ["database_safe"] if workload.require_backup else []


def refuse(standings: Iterable[Standing], workload: Workload, *, phase: str = checklist.BEFORE) -> None:
    """Raises Conflict that lists what blocks, if anything does."""
    found = checklist.blockers(standings, phase=phase, strict=workload.strict_checklist, also=demanded(workload))
    if found:
        raise Conflict(
            f"{workload} is not ready: {' '.join(found)} Put it right, or give override_reason.",
            facts={"blocking": list(found)},
        )


def store(row: Deployment, standings: Iterable[Standing], *, by: str, at: datetime) -> None:
    """Keep where items stand. An override of an earlier finding stays."""
    for standing in standings:
        item = checklist.ITEMS[standing.key]
        ChecklistItem.objects.update_or_create(
            deployment=row,
            key=standing.key,
            defaults={
                "phase": item.phase,
                "state": standing.state,
                "detail": standing.detail[:300],
                "by": by,
                "at": at,
            },
        )


def insert(row: Deployment, standings: Sequence[Standing], *, by: Mapping[str, str], at: datetime, overridden_by: str,
           override_reason: str) -> None:  # fmt: skip
    """Keep the first findings of a new deployment, in one statement; what blocked was overridden."""
    also = demanded(row.workload)
    moment = connection.ops.adapt_datetimefield_value(at)
    rows = []
    for standing in standings:
        item = checklist.ITEMS[standing.key]
        blocked = bool(override_reason and checklist.blockers([standing], phase=item.phase, also=also))
        rows.append(
            (
                *(row.pk, standing.key, item.phase, str(standing.state), standing.detail[:300]),
                *(by.get(standing.key, AUTOMATIC), moment),
                *((overridden_by, override_reason) if blocked else ("", "")),
            )
        )
    inserts.Inserter(ChecklistItem, _COLUMNS).insert(rows)


_COLUMNS = ("deployment", "key", "phase", "state", "detail", "by", "at", "overridden_by", "override_reason")


def responding(row: Deployment, found: Mapping[str, Mapping[str, str]]) -> list[Standing]:
    """What endpoints say of the item each answers. `found`: by item, why each does not answer as it must, or nothing.

    What CI has reported is replaced by a failure only: it may have looked at more than Pulsewatch watches.
    """
    reported = set(row.checklist_items.exclude(by=AUTOMATIC).values_list("key", flat=True))
    told = []
    for key, endpoints in found.items():
        faults = [f"{name} {why}" for name, why in endpoints.items() if why]
        if faults:
            more = f" and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
            told.append(Standing(key, ItemState.FAILED, "; ".join(faults[:SHOWN]) + more))
        elif endpoints and key not in reported:
            told.append(
                Standing(key, ItemState.PASSED, f"{len(endpoints)} answered as expected since it was brought out")
            )
    return told


def running(row: Deployment, enough: bool | None, detail: str) -> list[Standing]:
    """What the platform says of its instances; None: nothing. What CI has reported is replaced by a failure only."""
    if enough is False:
        return [Standing("pods_running", ItemState.FAILED, detail)]
    if row.checklist_items.filter(key="pods_running").exclude(by=AUTOMATIC).exists():
        return []
    return [Standing("pods_running", ItemState.PASSED if enough else ItemState.OPEN, detail)]


def standings(row: Deployment) -> list[Standing]:
    """Where every item of a deployment stands; items without a row are open."""
    stored = {item.key: item for item in row.checklist_items.all()}
    found = []
    for key in checklist.ITEMS:
        item = stored.get(key)
        if item is None:
            found.append(Standing(key, ItemState.OPEN))
        else:
            found.append(Standing(key, item.state, item.detail, bool(item.overridden_by)))
    return found


def findings(row: Deployment) -> list[variables.Finding] | None:
    """The stored verdicts on a deployment's variables; None when its service asks for none."""
    required = set(row.service.variable_rules.filter(required=True).values_list("key", flat=True))
    if not row.service.variable_rules.exists():
        return None
    return [
        variables.Finding(v.key, v.is_set, v.is_sensitive, v.validation_status, v.reason, v.key in required)
        for v in EnvironmentVariable.objects.filter(deployment=row)
    ]


def _variables(found: Sequence[variables.Finding] | None) -> list[Standing]:
    keys = ("variables_configured", "secrets_present")
    if found is None:
        return [Standing(key, ItemState.NOT_APPLICABLE, "the service has no rule for variables") for key in keys]
    wrong = [row for row in found if row.status == variables.INVALID]
    secrets = [row for row in found if row.is_sensitive and row.required]
    missing = [row for row in secrets if not row.is_set]
    if not secrets:
        present = Standing(keys[1], ItemState.NOT_APPLICABLE, "no rule marks a required variable as sensitive")
    elif missing:
        present = Standing(keys[1], ItemState.FAILED, _named(missing))
    else:
        present = Standing(keys[1], ItemState.PASSED, f"{len(secrets)} set")
    if wrong:
        return [Standing(keys[0], ItemState.FAILED, _named(wrong)), present]
    return [Standing(keys[0], ItemState.PASSED, f"{len(found)} judged"), present]


def _named(found: Sequence[variables.Finding]) -> str:
    shown = ", ".join(f"{row.key} {row.reason}" for row in found[:SHOWN])
    return shown + (f" and {len(found) - SHOWN} more" if len(found) > SHOWN else "")


def _health_configured(workload: Workload) -> Standing:
    if workload.base_url or Instance.objects.filter(workload=workload, active=True).exists():
        return Standing("health_configured", ItemState.PASSED, workload.readiness_path)
    return Standing(
        "health_configured",
        ItemState.FAILED,
        "the workload has neither a base URL nor an instance, so nothing can be asked whether it is ready",
    )


def _database_safe(workload: Workload, now: datetime) -> Standing:
    databases = Database.objects.backed_up().filter(service=workload.service_id, environment=workload.environment)
    oldest = now - timedelta(hours=workload.backup_max_age_hours)
    stale, fresh = [], []
    for database in databases:
        newest = BackupJob.objects.verified().filter(database=database).order_by("-completed_at").first()
        if newest is not None and newest.completed_at >= oldest:
            fresh.append(newest.pk)
        else:
            stale.append(database.name)
    if stale:
        return Standing(
            "database_safe",
            ItemState.FAILED,
            f"no verified backup of {', '.join(stale[:SHOWN])} in the last {workload.backup_max_age_hours} h; "
            "take one now, or queue the deployment with a backup",
        )
    if not fresh:
        return _NO_DATABASE
    return Standing("database_safe", ItemState.PASSED, ", ".join(fresh[:SHOWN]))
