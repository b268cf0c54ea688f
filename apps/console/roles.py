"""The three groups and what each may do. Made at start-up, corrected at every start; further groups are left alone."""

from django.contrib.auth.models import Group, Permission
from django.db import transaction
from django.db.models import Q

READABLE_APPS = ("core", "inventory", "health")
OPERATED_APPS = ("inventory",)
# Beyond what the apps' tables say: acting on the world.
OPERATOR_PERMISSIONS = ("core.change_stopswitch",)


def permissions(role: str) -> Q:
    """Which permissions a role holds."""
    reading = Q(codename__startswith="view_", content_type__app_label__in=READABLE_APPS)
    operating = Q(content_type__app_label__in=OPERATED_APPS)
    for permission in OPERATOR_PERMISSIONS:
        app, codename = permission.split(".")
        operating |= Q(content_type__app_label=app, codename=codename)
    return {
        "viewer": reading,
        "operator": reading | operating,
        "admin": Q(content_type__app_label__in=(*READABLE_APPS, "auth")),
    }[role]


@transaction.atomic
def ensure_groups() -> None:
    """Make the groups viewer, operator and admin, and give each exactly its permissions."""
    for role in ("viewer", "operator", "admin"):
        group, _ = Group.objects.get_or_create(name=role)
        group.permissions.set(Permission.objects.filter(permissions(role)))
