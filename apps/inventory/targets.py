"""What a person or a client may ask of endpoints and of the watch over databases. Verbs, as in services."""

import json
from collections.abc import Mapping
from typing import Any

from django.core.exceptions import ValidationError
from django.db import transaction

from apps.core import audit, vault
from apps.core.errors import Invalid
from apps.inventory import headers as rules_of_headers
from apps.inventory.addresses import AddressInvalid, parse_url
from apps.inventory.models import DEFAULT_SERVICE, Database, Endpoint, Service
from apps.inventory.runner import headers_purpose
from apps.inventory.services import invalid, save, subject

WATCH_FIELDS = (
    "watch",
    "interval_seconds",
    "timeout_seconds",
    "slow_query_ms",
    "failures_before_down",
    "successes_before_up",
)


@transaction.atomic
def save_endpoint(*, endpoint: Endpoint, actor: audit.Actor, headers: Mapping[str, str] | None = None) -> Endpoint:
    """Add or change an endpoint. Raises Invalid with the first wrong field; then nothing has changed.

    `headers` take the place of those that are kept, none at all remove them; None: they stay. They are sealed for this
    endpoint at this address, so that nobody has them sent elsewhere by changing the workload's base URL.
    """
    endpoint.name = endpoint.name.strip() or default_name(endpoint)
    kept = None if endpoint._state.adding else _sealed(endpoint)
    save(endpoint, actor=actor)
    if headers is not None:
        _keep_headers(endpoint, kept, headers, actor)
    return endpoint


@transaction.atomic
def remove_endpoint(*, endpoint: Endpoint, actor: audit.Actor) -> None:
    """Watch an endpoint no longer, and forget its checks. To keep them, save it with `enabled` off instead."""
    audit.record(
        actor=actor,
        action="endpoint.delete",
        subject=subject(endpoint),
        before={"workload": str(endpoint.workload), "method": endpoint.http_method, "path": endpoint.endpoint_path},
    )
    endpoint.delete()


@transaction.atomic
def watch_database(
    *, name: str, url: str, environment: str, actor: audit.Actor, service: str = DEFAULT_SERVICE, **watch: Any
) -> Database:
    """Register a database that is watched and not backed up, such as a Redis server.

    `watch` are fields of WATCH_FIELDS. Raises Invalid with the wrong field. Nothing is asked: the first check tells.
    """
    owner = Service.objects.filter(slug=service).first()
    if owner is None:
        raise Invalid("There is no service of this name: add it in the console first.", field="service")
    if unknown := watch.keys() - set(WATCH_FIELDS):
        raise Invalid("This is not part of the watch over a database.", field=min(unknown))
    try:
        address = parse_url(url)
    except AddressInvalid as error:
        raise Invalid(str(error), field="url") from None
    database = Database(
        name=name,
        service=owner,
        environment=environment,
        engine=address.engine,
        host=address.host,
        port=address.port or None,
        database_name=address.database,
        url_sealed=vault.seal(url, purpose=f"database:{name}:url"),
        **watch,
    )
    try:
        database.full_clean()
    except ValidationError as error:
        raise invalid(error) from error
    database.save(force_insert=True)
    audit.record(
        actor=actor,
        action="database.create",
        subject=f"database:{name}",
        after={"environment": environment, "service": service, "engine": address.engine, "host": address.host},
    )
    return database


@transaction.atomic
def change_watch(*, database: Database, actor: audit.Actor, **changes: Any) -> Database:
    """Change whether, how often and how strictly a database is looked at. Raises Invalid with the wrong field."""
    row = Database.objects.select_for_update().get(pk=database.pk)
    before = {name: getattr(row, name) for name in changes}
    for name, value in changes.items():
        if name not in WATCH_FIELDS:
            raise Invalid("This is not part of the watch over a database.", field=name)
        setattr(row, name, value)
    try:
        row.full_clean(exclude=[field.name for field in row._meta.fields if field.name not in WATCH_FIELDS])
    except ValidationError as error:
        raise invalid(error) from error
    row.save(update_fields=[*changes, "updated_at"])
    changed = {name for name in changes if before[name] != changes[name]}
    if changed:
        audit.record(
            actor=actor,
            action="database.watch",
            subject=f"database:{row.name}",
            before={name: before[name] for name in sorted(changed)},
            after={name: changes[name] for name in sorted(changed)},
        )
    return row


def default_name(endpoint: Endpoint) -> str:
    """Method and path, cut where the column ends."""
    longest = Endpoint._meta.get_field("name").max_length
    return f"{endpoint.http_method} {endpoint.endpoint_path}"[:longest]


def _sealed(endpoint: Endpoint) -> bytes | None:
    return Endpoint.objects.filter(pk=endpoint.pk).values_list("headers_sealed", flat=True).first()


def _keep_headers(endpoint: Endpoint, kept: bytes | None, headers: Mapping[str, str], actor: audit.Actor) -> None:
    if fault := rules_of_headers.fault(headers):
        raise Invalid(fault, field="headers")
    if not headers and not kept:
        return
    sealed = vault.seal(json.dumps(dict(headers)), purpose=headers_purpose(endpoint)) if headers else None
    endpoint.headers_sealed = sealed
    Endpoint.objects.filter(pk=endpoint.pk).update(headers_sealed=sealed)
    audit.record(
        actor=actor,
        action="endpoint.headers_set" if sealed else "endpoint.headers_removed",
        subject=subject(endpoint),
        after={"names": sorted(headers)} if sealed else {},
    )
