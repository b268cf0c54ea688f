"""Endpoints out of and into files: all of a file or nothing of it, and the same file again changes nothing.

An endpoint is known by service, environment, method and path. A column that is missing leaves a setting as it is, an
empty cell sets it to what a new endpoint has. Headers are secret: the file says only that there are some.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.db.models import Field, QuerySet
from django.utils import timezone

from apps.core import audit
from apps.core.choices import Environment
from apps.core.errors import Conflict, Invalid
from apps.inventory import parsers
from apps.inventory.choices import HttpMethod
from apps.inventory.models import DEFAULT_SERVICE, Endpoint, Service, Workload
from apps.inventory.services import ensure_workload, subject
from apps.inventory.targets import default_name

SETTINGS = (
    "name",
    "expected_status",
    "body_contains",
    "body_json",
    "request_body",
    "timeout_seconds",
    "interval_seconds",
    "slow_ms",
    "failures_before_down",
    "successes_before_up",
    "follow_redirects",
    "keep_alive",
    "verify_tls",
    "certificate_warning_days",
    "certificate_critical_days",
    "front_end",
    "enabled",
)
KEY = ("service", "environment", "method", "path")
SECRETS = "has_secret_headers"  # written, and not read
COLUMNS = (*KEY, *SETTINGS, SECRETS)
SHOWN = 20  # faults named in one answer
_COLUMN_OF = {"http_method": "method", "endpoint_path": "path"}
_WORDS = {"true": True, "yes": True, "1": True, "on": True, "false": False, "no": False, "0": False, "off": False}
_BATCH = 500  # rows of one statement
_FIELDS = {name: Endpoint._meta.get_field(name) for name in SETTINGS}
_DEFAULTS = {name: found.get_default() for name, found in _FIELDS.items()}

_ALL_KINDS = ", ".join((*KEY, *SETTINGS))
_WRONG_TOGETHER = {
    constraint.name: str(constraint.violation_error_message) for constraint in Endpoint._meta.constraints
}

Key = tuple[str, str, str, str]


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a row cannot be imported. `row` is 0 when it is the file's fault, `column` empty when no single one is."""

    row: int
    column: str
    reason: str

    def __str__(self) -> str:
        where = f"row {self.row}, {self.column}" if self.column else f"row {self.row}"
        return f"{where}: {self.reason}" if self.row else self.reason


class FileRefused(Invalid):
    """Nothing was imported. `faults` are the first of them, `count` is how many there are."""

    def __init__(self, faults: list[Fault]) -> None:
        self.faults, self.count = faults[:SHOWN], len(faults)
        more = f" and {self.count - SHOWN} more" if self.count > SHOWN else ""
        super().__init__(
            f"Nothing was imported. {'; '.join(map(str, self.faults)).removesuffix('.')}{more}.", field="file"
        )


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import did, or would do."""

    created: int
    changed: int
    unchanged: int
    workloads: list[str] = field(default_factory=list)  # added for it
    unwatched: list[str] = field(default_factory=list)  # without a base URL, so their endpoints are not asked yet
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A row as it was read: which endpoint, and the settings it gives."""

    row: int
    key: Key
    settings: dict[str, Any]


def export_endpoints(*, kind: str, endpoints: QuerySet[Endpoint]) -> str:
    """A file of these endpoints, `csv` or `yaml`."""
    rows = endpoints.select_related("workload__service").order_by(
        "workload__service__slug", "workload__environment", "endpoint_path", "http_method", "name"
    )
    return parsers.write(map(_written, rows), kind=kind, columns=COLUMNS)


def import_endpoints(*, content: bytes, kind: str, actor: audit.Actor, dry_run: bool = False) -> Imported:
    """Add and change the endpoints of a file. Raises FileRefused, which names every wrong row; then nothing was done.

    With `dry_run` nothing is written either way.
    """
    try:
        rows = parsers.read(content, kind=kind)
    except parsers.Unreadable as error:
        raise FileRefused([Fault(error.row, "", str(error))]) from error
    faults: list[Fault] = []
    wanted = [found for row in rows if (found := _read(row, faults)) is not None]
    try:
        with transaction.atomic():
            plan = _plan(wanted, faults)
            if faults:
                raise FileRefused(sorted(faults, key=lambda fault: fault.row))
            if not dry_run:
                _carry_out(plan, actor)
    except IntegrityError as error:
        raise Conflict(
            "Nothing was imported: two endpoints of a workload would have the same name, or somebody else changed them "
            "at this moment. Look what is there and import the file again."
        ) from error
    return Imported(
        created=len(plan.created),
        changed=len(plan.changed),
        unchanged=plan.unchanged,
        workloads=sorted(map(str, plan.missing)),
        unwatched=sorted({str(row.workload) for row in plan.created if not row.workload.base_url}),
        dry_run=dry_run,
    )


@dataclass(slots=True)
class _Plan:
    """What is to become of the rows."""

    workloads: dict[tuple[str, str], Workload]  # by service and environment
    missing: list[Workload] = field(default_factory=list)
    created: list[Endpoint] = field(default_factory=list)
    changed: list[tuple[Endpoint, dict[str, Any]]] = field(default_factory=list)  # with what they were
    unchanged: int = 0


def _read(row: parsers.Row, faults: list[Fault]) -> _Wanted | None:
    """A row's words as values; what is wrong with it is added to the faults."""
    before = len(faults)
    cells = {name: cell.strip() if name != "request_body" else cell for name, cell in row.cells.items()}
    for name in cells:
        known = {fault.column for fault in faults}
        if name not in COLUMNS and name not in known:  # said once, not for every row
            faults.append(Fault(row.number, name[:50], f"This column is unknown; known are {_ALL_KINDS}."))
    service = cells.get("service") or DEFAULT_SERVICE
    environment, method = cells.get("environment", "").lower(), cells.get("method", "").upper() or HttpMethod.GET
    if environment not in Environment.values:
        faults.append(Fault(row.number, "environment", f"Enter one of {', '.join(Environment.values)}."))
    if method not in HttpMethod.values:
        faults.append(Fault(row.number, "method", f"Enter one of {', '.join(HttpMethod.values)}."))
    if not cells.get("path"):
        faults.append(Fault(row.number, "path", "Enter a path that starts with one /, such as /api/orders."))
    settings: dict[str, Any] = {}
    for name, kind in _FIELDS.items():
        if name not in cells:
            continue
        try:
            settings[name] = _value(kind, cells[name]) if cells[name] else _DEFAULTS[name]
        except ValueError as error:
            faults.append(Fault(row.number, name, str(error)))
    if len(faults) > before:
        return None
    return _Wanted(row.number, (service, environment, str(method), cells["path"]), settings)


def _value(kind: "Field[Any, Any]", text: str) -> Any:
    """A cell as a value of its column. Raises ValueError, which says what would be right."""
    what = kind.get_internal_type()
    if what == "BooleanField":
        if text.lower() not in _WORDS:
            raise ValueError("Enter true or false.")
        return _WORDS[text.lower()]
    if what == "FloatField":
        try:
            value = float(text.replace(",", "."))  # as spreadsheets write it in half of Europe
        except ValueError:
            value = float("nan")
        if not isfinite(value):
            raise ValueError("Enter a number, such as 0.5 or 10.")
        return value
    if what.endswith("IntegerField"):
        if not re.fullmatch(r"\d{1,9}(\.0+)?", text, re.ASCII):
            raise ValueError("Enter a whole number, such as 60.")
        return int(float(text))
    return text


def _plan(wanted: list[_Wanted], faults: list[Fault]) -> _Plan:
    """What each row means for what is there now, read with three queries and held until the end."""
    owners = {row.slug: row for row in Service.objects.filter(slug__in={one.key[0] for one in wanted})}
    unknown = "There is no service of this name: add it in the console first."
    faults += [Fault(one.row, "service", unknown) for one in wanted if one.key[0] not in owners]
    plan = _Plan(_workloads(owners))
    there: dict[Key, list[Endpoint]] = {}
    by_id = {row.pk: row for row in plan.workloads.values()}
    names: dict[tuple[str, str, str], int] = {}  # whose they are: the row, 0 for one that is not in the file
    for endpoint in Endpoint.objects.filter(workload__in=by_id).select_for_update():
        endpoint.workload = by_id[endpoint.workload_id]
        key = _key(endpoint)
        there.setdefault(key, []).append(endpoint)
        names[_named(key, endpoint.name)] = 0
    groups: dict[Key, list[_Wanted]] = {}
    for one in wanted:
        if one.key[0] in owners:
            groups.setdefault(one.key, []).append(one)
    pairs = [pair for key, group in groups.items() for pair in _matched(group, there.get(key, []), faults)]
    for _, matched in pairs:
        if matched is not None:  # it may get another name, and its own is free then
            names.pop(_named(_key(matched), matched.name), None)
    for one, matched in pairs:
        slug, environment, method, path = one.key
        if (slug, environment) not in plan.workloads:
            plan.missing.append(Workload(service=owners[slug], environment=environment))
            plan.workloads[slug, environment] = plan.missing[-1]
        workload = plan.workloads[slug, environment]
        endpoint = matched or Endpoint(workload=workload, http_method=method, endpoint_path=path)
        _settle(plan, one, endpoint, names, faults)
    return plan


def _workloads(owners: Mapping[str, Service]) -> dict[tuple[str, str], Workload]:
    """All workloads of these services, held until the end of the transaction."""
    by_id = {row.pk: row for row in owners.values()}
    found = list(Workload.objects.filter(service__in=by_id).select_for_update())
    for workload in found:
        workload.service = by_id[workload.service_id]
    return {(row.service.slug, row.environment): row for row in found}


def _settle(
    plan: _Plan, one: _Wanted, endpoint: Endpoint, names: dict[tuple[str, str, str], int], faults: list[Fault]
) -> None:
    """Give an endpoint what its row says, and put it where it belongs in the plan."""
    before = _state(endpoint)
    for name, value in one.settings.items():
        setattr(endpoint, name, value)
    endpoint.name = endpoint.name or default_name(endpoint)
    whose = names.setdefault(_named(one.key, endpoint.name), one.row)
    if whose != one.row:
        other = f"Row {whose}" if whose else "Another endpoint of the workload"
        faults.append(Fault(one.row, "name", f"{other} has this name: leave one of them out, or name it differently."))
    faults += _wrong(one, endpoint)
    if endpoint._state.adding:
        plan.created.append(endpoint)
    elif _state(endpoint) != before:
        plan.changed.append((endpoint, before))
    else:
        plan.unchanged += 1


def _matched(
    group: list[_Wanted], there: list[Endpoint], faults: list[Fault]
) -> Iterator[tuple[_Wanted, Endpoint | None]]:
    """Which endpoint each row of one method and path means: the one of its name, else the only one, else a new one."""
    left, rest = list(there), []
    for one in group:
        found = next((row for row in left if row.name == one.settings.get("name")), None)
        if found is None:
            rest.append(one)
        else:
            left.remove(found)
            yield one, found
    for one in rest:
        alone = len(left) == 1 and (len(rest) == 1 or not one.settings.get("name"))
        if not alone and left and not one.settings.get("name"):
            reason = f"There are {len(there)} endpoints of this method and path: name the one that is meant."
            faults.append(Fault(one.row, "name", reason))
        yield one, left.pop() if alone else None


def _wrong(one: _Wanted, endpoint: Endpoint) -> Iterator[Fault]:
    """What validation finds. Not `full_clean`, which asks the database about every constraint of every row."""
    try:
        endpoint.clean_fields(exclude={"workload"})
    except ValidationError as error:
        for name, messages in error.message_dict.items():
            yield Fault(one.row, _COLUMN_OF.get(name, name), messages[0])
        return
    if endpoint.timeout_seconds > endpoint.interval_seconds:
        yield Fault(one.row, "timeout_seconds", _WRONG_TOGETHER["endpoints_timeout_within_interval"])
    if endpoint.certificate_critical_days > endpoint.certificate_warning_days:
        yield Fault(one.row, "certificate_critical_days", _WRONG_TOGETHER["endpoints_critical_after_warning"])


def _carry_out(plan: _Plan, actor: audit.Actor) -> None:
    for missing in plan.missing:
        made = ensure_workload(service=missing.service.slug, environment=missing.environment, actor=actor)
        missing.pk, missing.base_url = made.pk, made.base_url
    for row in plan.created:
        row.workload_id = row.workload.pk
    Endpoint.objects.bulk_create(plan.created, batch_size=_BATCH)
    now = timezone.now()
    entries = []
    for row, before in plan.changed:
        after = _state(row)
        changed = {name for name in SETTINGS if before[name] != after[name]}
        after, before = {name: after[name] for name in changed}, {name: before[name] for name in changed}
        Endpoint.objects.filter(pk=row.pk).update(**after, updated_at=now)
        entries.append(audit.Entry("endpoint.update", subject(row), before, after))
    # MySQL gives no keys back for rows that are added together.
    places = {row.pk for row in plan.workloads.values()}
    keys = {(place, name): key for place, name, key in _keys(places if plan.created else set())}
    for row in plan.created:
        row.pk = keys[row.workload_id, row.name]
        own = {name: value for name, value in _state(row).items() if value != _DEFAULTS[name]}
        what = {"workload": str(row.workload), "method": row.http_method, "path": row.endpoint_path}
        entries.append(audit.Entry("endpoint.create", subject(row), {}, what | own))
    audit.record_all(entries, actor=actor, reason="import of a file")


def _keys(places: set[int]) -> Iterator[tuple[int, str, int]]:
    yield from Endpoint.objects.filter(workload__in=places).values_list("workload_id", "name", "pk")


def _state(endpoint: Endpoint) -> dict[str, Any]:
    return {name: getattr(endpoint, name) for name in SETTINGS}


def _key(endpoint: Endpoint) -> Key:
    workload = endpoint.workload
    return (workload.service.slug, workload.environment, endpoint.http_method, endpoint.endpoint_path)


def _named(key: Key, name: str) -> tuple[str, str, str]:
    return (*key[:2], name.casefold())  # MySQL takes names of the other case for the same


def _written(endpoint: Endpoint) -> dict[str, parsers.Cell]:
    return {**dict(zip(KEY, _key(endpoint), strict=True)), **_state(endpoint), SECRETS: bool(endpoint.headers_sealed)}
