"""Services, workloads and instances, changed through the services so that every change is audited."""

from typing import Any

from django.contrib import admin
from django.db.models import Model
from django.forms import CharField, ModelForm
from django.http import HttpRequest
from unfold.admin import TabularInline
from unfold.widgets import UnfoldAdminPasswordWidget

from apps.core.admin import WritingAdmin
from apps.core.audit import Actor
from apps.inventory import services
from apps.inventory.models import Instance, Service, Workload
from apps.inventory.platforms.fields import LONGEST_SECRET


class AuditedAdmin(WritingAdmin):
    """Saves through the inventory's services. Rows are retired, not deleted: history hangs on them."""

    list_filter_submit = False

    def save_model(self, request: HttpRequest, obj: Any, form: ModelForm, change: bool) -> None:
        services.save(obj, actor=Actor.person(request.user))

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


@admin.register(Service)
class ServiceAdmin(AuditedAdmin):
    list_display = ("slug", "name", "metrics_preset", "repository_url", "runbook_url")
    search_fields = ("slug", "name")
    prepopulated_fields = {"slug": ("name",)}


class InstanceInline(TabularInline):
    """The instances of a workload, to look at; each is changed on its own page."""

    model = Instance
    fields = ("name", "url", "active")
    readonly_fields = fields
    show_change_link = True
    extra = 0
    can_delete = False

    def has_add_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


class WorkloadForm(ModelForm):
    """A workload with its platform's secret, which can be written and never read."""

    platform_secret = CharField(
        required=False,
        strip=True,
        max_length=LONGEST_SECRET,
        widget=UnfoldAdminPasswordWidget(attrs={"autocomplete": "new-password"}),
        help_text="Signs or authorises what is sent to the platform. Never shown again; empty: it stays as it is",
    )


@admin.register(Workload)
class WorkloadAdmin(AuditedAdmin):
    form = WorkloadForm
    list_display = ("service", "environment", "platform", "base_url", "current_deployment_id")
    list_display_links = ("service", "environment")
    list_filter = ("environment", "platform")
    list_select_related = ("service",)
    search_fields = ("service__slug", "domain", "base_url")
    readonly_fields = ("current_deployment_id", "change_lock", "change_lock_by", "change_lock_since")
    fieldsets = (
        (None, {"fields": ("service", "environment", "base_url", "domain", "readiness_path", "metrics_path")}),
        ("Platform", {"fields": ("platform", "platform_settings", "platform_secret")}),
        (
            "Deployments",
            {
                "fields": (
                    "gate_samples",
                    "gate_window_seconds",
                    "auto_rollback",
                    "deployment_timeout_minutes",
                    "strict_checklist",
                    "require_backup",
                    "backup_max_age_hours",
                )
            },
        ),
        ("Now", {"fields": ("current_deployment_id", "change_lock", "change_lock_by", "change_lock_since")}),
    )
    inlines = (InstanceInline,)

    def save_model(self, request: HttpRequest, obj: Workload, form: ModelForm, change: bool) -> None:
        services.save(
            obj, actor=Actor.person(request.user), platform_secret=form.cleaned_data.get("platform_secret") or ""
        )


@admin.register(Instance)
class InstanceAdmin(AuditedAdmin):
    list_display = ("name", "workload", "url", "active", "listed", "registered_at")
    list_filter = ("active", "workload__environment")
    list_select_related = ("workload__service",)
    search_fields = ("name", "url")
    readonly_fields = ("id", "listed", "registered_at")

    def get_readonly_fields(self, request: HttpRequest, obj: Instance | None = None) -> tuple[str, ...]:
        """An instance stays with its workload and keeps its name: its samples are stored under them."""
        return (*self.readonly_fields, "name", "workload") if obj else self.readonly_fields
