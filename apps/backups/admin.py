"""Databases, plans, backups and restores in the console. History is read-only; what people do goes through services."""

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.forms import ModelForm
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from unfold.views import ChangeList

from apps.backups import actions, databases, details, services
from apps.backups.display import STANDING_COLOURS, job_status, outcome, place, proofs
from apps.backups.models import BackupJob, BackupPlan, Restore
from apps.backups.recovery import kit_missing
from apps.backups.rules import next_slot, zone
from apps.backups.standing import states
from apps.core.admin import WritingAdmin
from apps.core.audit import Actor
from apps.core.display import badge, badges, moment, share, size, span, unbroken
from apps.core.pages import DetailAdmin
from apps.inventory.models import Database


class StateChangeList(ChangeList):
    """Databases of one page with their state, read for all of them at once."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        rows = list(self.result_list)
        found = {state.database.pk: state for state in states(rows, timezone.now())}
        for row in rows:
            row.state = found[row.pk]
        self.result_list = rows


@admin.register(Database)
class DatabaseAdmin(DetailAdmin):
    list_display = ("name", "standing", "newest", "drilled", "upcoming", "environment", "where")
    list_filter = ("environment", "engine")
    list_select_related = ("plan",)
    search_fields = ("name", "host", "database_name")
    list_before_template = "admin/backups/databases_before.html"
    views = {
        "back-up": lambda page, request, row: actions.back_up(page, request, row),
        "check": databases.check,
        "edit": databases.edit,
    }
    detail = staticmethod(details.of_database)
    detail_template = "admin/backups/detail.html"
    page_related = ("plan", "service")

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return StateChangeList

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        kit = {"kit_missing": kit_missing()}
        return super().changelist_view(request, {**kit, **(extra_context or {})})

    def has_add_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.has_perm("inventory.add_database"))

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """The form for a new database. Not Django's: the preflight asks a server, which no transaction may wait for."""
        return databases.add(self, request)

    @admin.display(description="backups")
    def standing(self, row: Database) -> SafeString:
        standing = row.state.standing
        return badge(standing.value, STANDING_COLOURS[standing])

    @admin.display(description="newest verified")
    def newest(self, row: Database) -> str:
        return f"{span(row.state.age)} old" if row.state.verified else "never"

    @admin.display(description="last good drill")
    def drilled(self, row: Database) -> str | SafeString:
        measured = row.state.measured
        if measured is None:
            return "never"
        return unbroken(f"{span(row.state.drill_age, units=1)} ago,", f"restored in {span(measured.restore_seconds)}")

    @admin.display(description="next backup")
    def upcoming(self, row: Database) -> SafeString:
        return unbroken(moment(row.state.next_slot) if row.state.next_slot else "none planned")

    @admin.display(description="where")
    def where(self, row: Database) -> SafeString:
        return format_html('<span class="breaking">{}</span>', place(row))


@admin.register(BackupPlan)
class BackupPlanAdmin(WritingAdmin):
    """When each database is backed up. A plan is made with its database and goes with it."""

    list_display = ("database", "enabled", "cron", "time_zone", "retention_days", "archive_months", "drill", "upcoming")
    list_filter = ("enabled", "database__environment")
    list_select_related = ("database",)
    show_full_result_count = False
    search_fields = ("database__name",)
    fields = ("database", "enabled", "cron", "time_zone", "slots", "retention_days", "archive_months", "drill")
    readonly_fields = ("database", "slots")

    def save_model(self, request: HttpRequest, obj: BackupPlan, form: ModelForm, change: bool) -> None:
        changes = {name: form.cleaned_data[name] for name in form.changed_data}
        services.change_plan(plan=obj, actor=Actor.person(request.user), **changes)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: BackupPlan | None = None) -> bool:
        return False

    @admin.display(description="next backup")
    def upcoming(self, row: BackupPlan) -> SafeString:
        return unbroken(moment(next_slot(row.cron, row.time_zone, timezone.now())) if row.enabled else "off")

    @admin.display(description="next three backups")
    def slots(self, row: BackupPlan) -> str | SafeString:
        if not row.enabled:
            return "none: the plan is off"
        slots, after = [], timezone.now()
        for _ in range(3):
            after = next_slot(row.cron, row.time_zone, after)
            here = "" if row.time_zone == "UTC" else f"{after.astimezone(zone(row.time_zone)):%a %Y-%m-%d %H:%M %Z} = "
            slots.append((f"{here}{after:%a %Y-%m-%d %H:%M} UTC",))
        return format_html_join("", "<div>{}</div>", slots)


@admin.register(BackupJob)
class BackupJobAdmin(DetailAdmin):
    list_display = ("id", "of", "state", "sizes", "took", "proven", "asked_by")
    list_display_links = ("id",)
    list_filter = ("environment", "status", "backup_type", "database")
    list_select_related = ("database",)
    search_fields = ("=id", "=database__name")
    search_help_text = "A whole backup id or database name"
    list_before_template = "admin/backups/jobs_before.html"
    views = {
        name: lambda page, request, row, act=act: act(page, request, row)
        for name, act in {
            "verify": actions.verify,
            "drill": actions.drill,
            "restore": actions.restore,
            "table": actions.one_table,
            "overwrite": actions.overwrite,
            "cancel": actions.cancel,
            "hold": actions.hold,
        }.items()
    }
    detail = staticmethod(details.of_job)
    detail_template = "admin/backups/detail.html"
    page_related = ("database", "plan")

    def get_queryset(self, request: HttpRequest) -> QuerySet[BackupJob]:
        return super().get_queryset(request).defer("tables", "notes")

    @admin.display(description="database")
    def of(self, row: BackupJob) -> str:
        return row.database.name if row.database else f"{row.database_name} (not registered)"

    @admin.display(description="status")
    def state(self, row: BackupJob) -> SafeString:
        return badge(*job_status(row))

    @admin.display(description="size, stored")
    def sizes(self, row: BackupJob) -> str:
        if row.backup_bytes is None:
            return "-"
        return f"{size(row.backup_bytes)}, {size(row.compressed_bytes)} ({share(row.compression_ratio)})"

    @admin.display(description="took")
    def took(self, row: BackupJob) -> str:
        return span(row.duration_seconds)

    @admin.display(description="proof")
    def proven(self, row: BackupJob) -> SafeString:
        return badges(proofs(row))

    @admin.display(description="asked by")
    def asked_by(self, row: BackupJob) -> str:
        return "its plan" if row.triggered_by == "scheduled" else row.requested_by


@admin.register(Restore)
class RestoreAdmin(DetailAdmin):
    list_display = ("id", "kind", "of", "state", "difference", "took", "asked_by")
    list_display_links = ("id",)
    list_filter = ("kind", "status")
    list_select_related = ("backup__database",)
    search_fields = ("=id", "=backup__id", "=backup__database__name")
    search_help_text = "A whole id of a restore or backup, or a database name"
    list_before_template = "admin/backups/restores_before.html"
    views = {"cancel": lambda page, request, row: actions.cancel(page, request, row)}
    detail = staticmethod(details.of_restore)
    detail_template = "admin/backups/detail.html"
    page_related = ("backup__database", "target_database", "safety_backup")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Restore]:
        return super().get_queryset(request).defer("tables", "backup__tables", "backup__notes")

    @admin.display(description="database")
    def of(self, row: Restore) -> str:
        database = row.backup.database
        return database.name if database else f"{row.backup.database_name} (not registered)"

    @admin.display(description="outcome")
    def state(self, row: Restore) -> SafeString:
        return badge(*outcome(row))

    @admin.display(description="first difference")
    def difference(self, row: Restore) -> str:
        return row.first_difference or "-"

    @admin.display(description="restore time")
    def took(self, row: Restore) -> str:
        return span(row.restore_seconds)

    @admin.display(description="asked by", empty_value="-")
    def asked_by(self, row: Restore) -> str:
        return row.requested_by
