"""Deployments with what happened to each and what people may do about it, DORA's figures, and rules for variables."""

from functools import partial
from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.forms import ModelForm
from django.http import HttpRequest
from django.urls import URLPattern, path
from django.utils import timezone
from django.utils.safestring import SafeString

from apps.core import ids
from apps.core.admin import WritingAdmin
from apps.core.audit import Actor
from apps.core.display import badge, badges, moment, span, unbroken
from apps.core.pages import DetailAdmin
from apps.deployments import actions, dashboard, details, preparation
from apps.deployments.display import remarks, status_label, verdict_label
from apps.deployments.models import ARCHIVED_AFTER, Deployment, EnvironmentVariableRule


class AgeFilter(admin.SimpleListFilter):
    """The last 90 days unless something else is chosen: what is older is archived."""

    title = "age"
    parameter_name = "age"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("archived", "Archived"), ("all", "All")]

    def choices(self, changelist: Any) -> Any:
        first, *others = super().choices(changelist)
        yield {**first, "display": "Last 90 days"}
        yield from others

    def queryset(self, request: HttpRequest, queryset: QuerySet[Deployment]) -> QuerySet[Deployment]:
        # By the id, in which every index ends: so no filter reads what is archived to find what is not.
        if self.value() == "all":
            return queryset
        if self.value() == "archived":
            return queryset.filter(id__lt=_oldest())
        return queryset.filter(id__gte=_oldest())


def _oldest() -> str:
    return ids.timestamped("deploy", timezone.now() - ARCHIVED_AFTER)


@admin.register(Deployment)
class DeploymentAdmin(DetailAdmin):
    list_display = ("what", "where", "state", "gate_verdict", "began", "took", "triggered_by", "remark")
    list_display_links = ("what",)
    list_filter = ("environment", "status", "service", AgeFilter)
    list_before_template = "admin/deployments/list_before.html"
    search_fields = ("=id", "=version", "=commit_sha", "=triggered_by")
    search_help_text = "A whole id, version, commit or user name"
    sortable_by = ()  # the newest first, in the order of the index; any other order would sort the whole table
    views = {
        name: lambda page, request, row, act=act: act(page, request, row)
        for name, act in {
            "roll-back": actions.roll_back,
            "cancel": actions.cancel,
            "fail": actions.fail,
            "finish": actions.finish,
            "tick": actions.tick,
        }.items()
    }
    detail = staticmethod(details.of_deployment)
    detail_template = "admin/deployments/detail.html"
    live_template = "admin/deployments/live.html"
    page_related = ("workload__service", "service", "gate", "build", "undoes", "returns_to", "rolled_back_by")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Deployment]:
        # Services and gates in queries of their own: joined, the database would begin with them and sort all there is.
        rows = super().get_queryset(request).prefetch_related("service", "gate")
        return rows.defer("commit_message", "error_message")

    def get_urls(self) -> list[URLPattern]:
        """The page of DORA's figures, before Django's own, which would take it for a key."""
        dora = self.admin_site.admin_view(partial(dashboard.page, self))
        return [path("dora/", dora, name="deployments_deployment_dora"), *super().get_urls()]

    @admin.display(description="version")
    def what(self, row: Deployment) -> str:
        return row.version if len(row.version) <= 24 else f"{row.version[:12]}…"

    @admin.display(description="where")
    def where(self, row: Deployment) -> SafeString:
        return unbroken(f"{row.service}/{row.environment}")

    @admin.display(description="status")
    def state(self, row: Deployment) -> SafeString:
        return badge(*status_label(row))

    @admin.display(description="gate")
    def gate_verdict(self, row: Deployment) -> SafeString | str:
        label = verdict_label(row)
        return badge(*label) if label else "-"

    @admin.display(description="began")
    def began(self, row: Deployment) -> SafeString:
        return unbroken(moment(row.started_at))

    @admin.display(description="took")
    def took(self, row: Deployment) -> SafeString:
        return unbroken(span(row.duration_seconds))

    @admin.display(description="remark")
    def remark(self, row: Deployment) -> SafeString:
        return badges(remarks(row))


@admin.register(EnvironmentVariableRule)
class EnvironmentVariableRuleAdmin(WritingAdmin):
    list_display = ("key", "service", "required", "sensitive", "min_length", "pattern")
    list_filter = ("service", "sensitive")
    list_select_related = ("service",)
    search_fields = ("key",)

    def save_model(self, request: HttpRequest, obj: EnvironmentVariableRule, form: ModelForm, change: bool) -> None:
        preparation.save_rule(obj, actor=Actor.person(request.user))

    def has_delete_permission(self, request: HttpRequest, obj: EnvironmentVariableRule | None = None) -> bool:
        """A rule that no longer holds is made optional, so that the audit trail tells of it."""
        return False
