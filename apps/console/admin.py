"""Users and groups in the console's clothes: who may give whom which right, and an audit entry for each change.

Members of group `admin` manage users and put them into groups. What a group may do, who is superuser, and everything
about a superuser is for superusers alone: so nobody gives himself a right that none of his groups was given.
"""

from collections.abc import Callable, Iterable
from typing import Any

from django.contrib import admin
from django.contrib.admin.utils import unquote
from django.contrib.auth.admin import GroupAdmin as DjangoGroupAdmin
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.models import Group, Permission, User
from django.db import transaction
from django.db.models import Model, QuerySet
from django.forms import ModelForm
from django.http import HttpRequest, HttpResponse
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm

from apps.console import databases, endpoints, notes, roles
from apps.core import audit
from apps.core.admin import WritingAdmin

__all__ = ["databases", "endpoints", "notes"]  # Registered by being imported.

# What the audit trail shows. Of other fields it names only which ones changed: they are personal or secret.
SHOWN = ("username", "name", "is_active", "is_staff", "is_superuser")
SUPERUSERS_FIELDS = ("is_superuser", "user_permissions")

admin.site.index_title = "Overview"
admin.site.unregister(User)
admin.site.unregister(Group)


class AccessAdmin(WritingAdmin):
    """Records who changed a user or a group, and what about it."""

    def save_related(self, request: HttpRequest, form: ModelForm, formsets: Any, change: bool) -> None:
        super().save_related(request, form, formsets, change)
        if form.changed_data:
            before, after = _difference(form)
            _record(request, "update" if change else "create", form.instance, before, after)

    def delete_model(self, request: HttpRequest, obj: Model) -> None:
        _record(request, "delete", obj)
        super().delete_model(request, obj)

    @transaction.atomic
    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        for row in queryset:
            _record(request, "delete", row)
        super().delete_queryset(request, queryset)


@admin.register(User)
class UserAdmin(DjangoUserAdmin, AccessAdmin):
    """Users without their e-mail addresses: Pulsewatch sends them no mail, and an address belongs on no page.

    So it can be neither seen, searched, filtered by nor edited here.
    """

    form = UserChangeForm
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm
    list_display = ("username", "first_name", "last_name", "is_active", "is_staff", "is_superuser")
    search_fields = ("username", "first_name", "last_name")
    readonly_fields = ("last_login", "date_joined")
    fieldsets = (
        (None, {"fields": ("username", "password")}),
        ("Name", {"fields": ("first_name", "last_name")}),
        ("Rights", {"fields": ("is_active", "is_staff", "is_superuser", "groups", "user_permissions")}),
        ("Dates", {"fields": ("last_login", "date_joined")}),
    )

    def get_readonly_fields(self, request: HttpRequest, obj: User | None = None) -> tuple[str, ...]:
        return self.readonly_fields if request.user.is_superuser else (*self.readonly_fields, *SUPERUSERS_FIELDS)

    def has_change_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        return super().has_change_permission(request, obj) and _may_touch(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        return super().has_delete_permission(request, obj) and _may_touch(request, obj)

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest | None = None) -> bool:
        """Whether the URL may filter by this: by `email__startswith` an address could be guessed letter by letter."""
        return not lookup.startswith("email") and super().lookup_allowed(lookup, value, request)

    def user_change_password(self, request: HttpRequest, id: str, form_url: str = "") -> HttpResponse:  # noqa: A002  (Django's name)
        user = self.get_object(request, unquote(id))
        return _recording_password(
            request, user, lambda: super(UserAdmin, self).user_change_password(request, id, form_url)
        )


@admin.register(Group)
class GroupAdmin(DjangoGroupAdmin, AccessAdmin):
    """Groups. Their permissions are for superusers to choose."""

    def get_readonly_fields(self, request: HttpRequest, obj: Group | None = None) -> tuple[str, ...]:
        return () if request.user.is_superuser else ("permissions",)


_own_password_change = admin.site.password_change


def password_change(request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
    """The page where people change their own password."""
    return _recording_password(request, request.user, lambda: _own_password_change(request, extra_context))


admin.site.password_change = password_change


def _may_touch(request: HttpRequest, user: User | None) -> bool:
    return user is None or request.user.is_superuser or not user.is_superuser


def _recording_password(request: HttpRequest, user: User | None, view: Callable[[], HttpResponse]) -> HttpResponse:
    """The view's answer, and an entry when it changed the password. Neither password nor hash is in the entry."""
    stored = User.objects.filter(pk=user.pk if user else None).values_list("password", flat=True)
    with transaction.atomic():
        before = stored.first()
        response = view()
        if user and stored.first() != before:
            _record(request, "update", user, {}, {"changed": ["password"]})
    return response


def _record(
    request: HttpRequest,
    verb: str,
    row: Model,
    before: dict[str, Any] | None = None,
    after: dict[str, Any] | None = None,
) -> None:
    audit.record(
        actor=audit.Actor.person(request.user),
        action=f"{row._meta.model_name}.{verb}",
        subject=f"{row._meta.model_name}:{row}",
        before=before,
        after=after,
    )


def _difference(form: ModelForm) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a form changed, before and after."""
    before: dict[str, Any] = {}
    after: dict[str, Any] = {}
    for name in form.changed_data:
        old, new = form.initial.get(name), form.cleaned_data.get(name)
        if name in SHOWN:
            before[name], after[name] = old, new
        elif name in ("groups", "permissions", "user_permissions"):
            had, has = set(old or ()), set(new or ())
            after |= {f"{name}_added": _names(has - had), f"{name}_removed": _names(had - has)}
        else:
            after.setdefault("changed", []).append(name)
    return before, after


def _names(rows: Iterable[Group | Permission]) -> list[str]:
    rows = list(rows)
    if rows and isinstance(rows[0], Permission):
        return roles.names(Permission.objects.filter(pk__in=[row.pk for row in rows]).select_related("content_type"))
    return sorted(map(str, rows))
