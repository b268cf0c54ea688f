"""What a person or a client may ask of the inventory. Every verb validates, writes, audits, and returns the row."""

from datetime import datetime
from typing import Any, TypeVar

from django.core.exceptions import ValidationError
from django.db import IntegrityError, connection, models, transaction
from django.forms.models import model_to_dict

from apps.core import audit, vault
from apps.core.choices import Environment
from apps.core.errors import Conflict, Invalid
from apps.inventory.choices import MetricsPreset, Platform
from apps.inventory.models import OWN_SERVICE, Endpoint, Instance, Service, Workload
from apps.inventory.platforms import check_settings, destination, takes_secret
from apps.inventory.runner import secret_purpose, unseal_secret

Row = TypeVar("Row", Service, Workload, Instance, Endpoint)


def subject(row: Service | Workload | Instance | Endpoint) -> str:
    """The row's name in the audit trail, such as `workload:app/production`."""
    key = row.pk if isinstance(row, Instance | Endpoint) else str(row)
    return f"{row._meta.model_name}:{key}"


@transaction.atomic
def save(row: Row, *, actor: audit.Actor, platform_secret: str = "") -> Row:
    """Add or change a row. Raises Invalid with the first wrong field; then nothing has changed.

    `platform_secret` replaces a workload's; empty: it stays. Another platform does not inherit it.
    """
    adding = row._state.adding
    if isinstance(row, Instance) and adding:
        row.pk = Instance.objects.free_id(row.name, row.workload)
    try:
        row.full_clean()
    except ValidationError as error:
        raise invalid(error) from error
    stored = None if adding else type(row)._default_manager.select_for_update().get(pk=row.pk)
    before = _state(stored) if stored else {}
    if before:
        _refuse_moving(row, before)
    if isinstance(row, Workload):
        row.platform_secret_sealed = stored.platform_secret_sealed if isinstance(stored, Workload) else None
    if adding:
        row.save(force_insert=True)
    else:
        # What is not edited here (the change lock, the current deployment) may have moved since the row was read.
        row.save(update_fields=[field.name for field in row._meta.concrete_fields if _is_saved(field)])
    if isinstance(row, Workload):
        _keep_secret(row, stored, platform_secret, actor)
    after = _state(row)
    if before != after:
        verb = "create" if adding else "update"
        changed = {name for name in after if before.get(name) != after[name]}
        audit.record(
            actor=actor,
            action=f"{row._meta.model_name}.{verb}",
            subject=subject(row),
            before={name: value for name, value in before.items() if name in changed},
            after={name: value for name, value in after.items() if name in changed},
        )
    return row


def ensure_workload(*, service: str, environment: str, actor: audit.Actor) -> Workload:
    """The workload of a service in an environment; a missing one is made with defaults. Raises Invalid (service)."""
    found = Workload.objects.select_related("service").filter(service__slug=service, environment=environment).first()
    if found:
        return found
    owner = Service.objects.filter(slug=service).first()
    if owner is None:
        raise Invalid("There is no service of this name: add it in the console first.", field="service")
    try:
        return save(Workload(service=owner, environment=Environment(environment)), actor=actor)
    except (Invalid, IntegrityError):
        # Another request may have made it meanwhile.
        found = Workload.objects.select_related("service").filter(service=owner, environment=environment).first()
        if found is None:
            raise
        return found


def register_instance(
    *,
    name: str,
    workload: Workload,
    actor: audit.Actor,
    url: str = "",
    cpu_limit_cores: float | None = None,
    memory_limit_mb: int | None = None,
) -> Instance:
    """Add an instance, or bring back a retired one of this name. Raises Conflict while an active one has the name."""
    row = Instance.objects.filter(workload=workload, name=name).first() or Instance(name=name, workload=workload)
    if not row._state.adding and row.active:
        raise Conflict(f"{workload} has an active instance of this name already.", facts={"id": row.pk})
    row.active, row.url, row.cpu_limit_cores, row.memory_limit_mb = True, url, cpu_limit_cores, memory_limit_mb
    return save(row, actor=actor)


def retire_instance(*, instance: Instance, actor: audit.Actor) -> Instance:
    """End the sampling of an instance that is gone; its history stays. A second time changes nothing."""
    instance.active = False
    return save(instance, actor=actor)


def ensure_own_instance(*, instance_id: str, url: str, environment: str) -> Instance:
    """Pulsewatch's web server as an instance of service `pulsewatch`; its address follows the configuration."""
    actor = audit.Actor.automation("start-up")
    found = Instance.objects.filter(
        workload__service__slug=OWN_SERVICE, workload__environment=environment, name=instance_id
    ).first()
    if found and found.url == url:
        return found
    with transaction.atomic():
        if found:
            found.url = url
            return save(found, actor=actor)
        service = Service.objects.filter(slug=OWN_SERVICE).first() or save(
            Service(slug=OWN_SERVICE, name="Pulsewatch", metrics_preset=MetricsPreset.DJANGO), actor=actor
        )
        workload = Workload.objects.filter(service=service, environment=environment).first() or save(
            Workload(
                service=service,
                environment=Environment(environment),
                platform=Platform.ADVISORY,
                base_url=url,
            ),
            actor=actor,
        )
        return save(Instance(name=instance_id, workload=workload, url=url), actor=actor)


def _refuse_moving(row: Row, before: dict[str, Any]) -> None:
    """History hangs on what a row belongs to."""
    if isinstance(row, Workload) and row.instances.exists():
        for name in ("service", "environment"):
            if before[name] != _state(row)[name]:
                raise Invalid("A workload with instances stays what it is: add another workload.", field=name)
    if isinstance(row, Endpoint) and before["workload"] != row.workload_id:
        raise Invalid("An endpoint stays with its workload: add another endpoint.", field="workload")


def _keep_secret(row: Workload, stored: Workload | None, given: str, actor: audit.Actor) -> None:
    """Check the platform's settings and keep its secret, sealed for this row. Nobody is ever shown it again."""
    kind, settings, held = row.platform, row.platform_settings, row.platform_secret_sealed
    sealed: bytes | None = None
    if not takes_secret(kind):
        check_settings(kind, settings, "")
    elif given or not held or not stored or kind != stored.platform:
        check_settings(kind, settings, given)
        sealed = vault.seal(given, purpose=secret_purpose(row)) if given else None
    else:
        check_settings(kind, settings, unseal_secret(stored))
        if destination(kind, settings) != destination(stored.platform, stored.platform_settings):
            # Otherwise whoever may change the address could have the secret sent to himself.
            raise Invalid(
                "Enter the platform secret again: the one that is kept was given for another address.",
                field="platform_secret",
            )
        return
    if sealed is None and held is None:
        return
    row.platform_secret_sealed = sealed
    Workload.objects.filter(pk=row.pk).update(platform_secret_sealed=sealed)
    audit.record(
        actor=actor,
        action="workload.secret_set" if sealed else "workload.secret_removed",
        subject=subject(row),
    )


def take_lock(*, workload: Workload, holder: str, by: str, now: datetime) -> None:
    """Reserve a workload for one change. Raises Conflict, which says who holds it and since when."""
    with connection.cursor() as cursor:  # by hand, for each deployment does it
        cursor.execute(
            "UPDATE workloads SET change_lock = %s, change_lock_by = %s, change_lock_since = %s "
            "WHERE id = %s AND change_lock IS NULL",
            [holder, by, connection.ops.adapt_datetimefield_value(now), workload.pk],
        )
    if not cursor.rowcount:
        now_held = Workload.objects.select_related("service").get(pk=workload.pk)
        raise Conflict(lock_text(now_held), facts=lock_facts(now_held))


def pass_lock(*, workload_id: int, holder: str, to: str, by: str, now: datetime) -> bool:
    """Hand the lock from one operation to the next without a moment in between. False when `holder` has it no more."""
    held = Workload.objects.filter(pk=workload_id, change_lock=holder)
    return bool(held.update(change_lock=to, change_lock_by=by, change_lock_since=now))


def free_lock(*, workload_id: int, holder: str) -> bool:
    """Give the lock back; False when `holder` does not have it (any more)."""
    held = Workload.objects.filter(pk=workload_id, change_lock=holder)
    return bool(held.update(change_lock=None, change_lock_by="", change_lock_since=None))


def lock_text(workload: Workload) -> str:
    """Who changes a workload now, in a sentence."""
    if workload.change_lock is None or workload.change_lock_since is None:
        return f"{workload} was being changed a moment ago; try again."
    return (
        f"{workload} is being changed by {workload.change_lock} ({workload.change_lock_by}) since "
        f"{workload.change_lock_since:%Y-%m-%d %H:%M:%S} UTC; wait for its end, or end it first."
    )


def lock_facts(workload: Workload) -> dict[str, str]:
    """The same for a program."""
    since = workload.change_lock_since
    return {
        "held_by": workload.change_lock or "",
        "held_for": workload.change_lock_by,
        "held_since": since.isoformat() if since else "",
    }


def _is_saved(field: Any) -> bool:
    return not field.primary_key and (field.editable or getattr(field, "auto_now", False))


def _state(row: models.Model) -> dict[str, Any]:
    return model_to_dict(row)


def invalid(error: ValidationError) -> Invalid:
    """The first fault that validation found, in our own words for it."""
    field, messages = next(iter(error.message_dict.items()))
    return Invalid(messages[0], field="" if field == "__all__" else field)
