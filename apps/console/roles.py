"""The three groups and what each may do. Made at start-up, corrected at every start; further groups are left alone."""

from collections.abc import Iterable

from django.contrib.auth.models import Group, Permission
from django.db import transaction
from django.db.models import Q

from apps.core import audit

READABLE_APPS = ("core", "alerts", "inventory", "health", "backups", "builds", "deployments", "scaling", "console")
OPERATED_APPS = ("inventory",)
# Beyond what the apps' tables say: acting on the world. What loses data for good (a restore over a database, lifting a
# legal hold) is for administrators, and for those to whom one of them gives that permission by name.
OPERATOR_PERMISSIONS = (
    "console.add_note",
    "console.delete_note",
    "core.change_stopswitch",
    "alerts.acknowledge_alert",
    "alerts.add_maintenancewindow",
    "alerts.change_maintenancewindow",
    "alerts.add_route",
    "alerts.change_route",
    "backups.change_backupplan",
    "backups.run_backup",
    "backups.verify_backup",
    "backups.drill_backup",
    "backups.restore_backup",
    "backups.cancel_backup",
    "backups.hold_backup",
    "builds.change_diagnostic",
    "deployments.rollback_deployment",
    "deployments.move_deployment",
    "deployments.tick_deployment",
    "deployments.add_environmentvariablerule",
    "deployments.change_environmentvariablerule",
    "scaling.add_scalingpolicy",
    "scaling.change_scalingpolicy",
    "scaling.pause_scalingpolicy",
    "scaling.scale",
)


def permissions(role: str) -> Q:
    """Which permissions a role holds."""
    reading = Q(codename__startswith="view_", content_type__app_label__in=READABLE_APPS)
    reading |= Q(codename="view_webhookdelivery", content_type__app_label="api")
    operating = Q(content_type__app_label__in=OPERATED_APPS)
    for permission in OPERATOR_PERMISSIONS:
        app, codename = permission.split(".")
        operating |= Q(content_type__app_label=app, codename=codename)
    return {
        "viewer": reading,
        "operator": reading | operating,
        "admin": Q(content_type__app_label__in=(*READABLE_APPS, "auth"))
        | Q(content_type__app_label="api", content_type__model__in=("apitoken", "webhookdelivery")),
    }[role]


@transaction.atomic
def ensure_groups() -> None:
    """Make the groups viewer, operator and admin, and give each exactly its permissions."""
    for role in ("viewer", "operator", "admin"):
        group, made = Group.objects.get_or_create(name=role)
        wanted = set(Permission.objects.filter(permissions(role)).select_related("content_type"))
        held = set(group.permissions.select_related("content_type"))
        if not made and wanted == held:
            continue
        group.permissions.set(wanted)
        audit.record(
            actor=audit.Actor.automation("start-up"),
            action="group.create" if made else "group.update",
            subject=f"group:{role}",
            after={"permissions_added": names(wanted - held), "permissions_removed": names(held - wanted)},
        )


def names(held: Iterable[Permission]) -> list[str]:
    """Permissions as code names them, such as `core.change_stopswitch`, sorted. Reads their content types."""
    return sorted(f"{permission.content_type.app_label}.{permission.codename}" for permission in held)
