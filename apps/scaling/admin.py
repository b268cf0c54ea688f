"""Scaling policies with what they decide and why, their backtest, and the history of decisions and changes."""

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.urls import URLPattern, path
from django.utils import timezone
from django.utils.safestring import SafeString

from apps.core.display import badge, badges, moment, unbroken
from apps.core.pages import DetailAdmin
from apps.inventory.models import Workload
from apps.scaling import actions, details, display, overview
from apps.scaling.models import ScalingDecision, ScalingEvent, ScalingPolicy

MOST = 200  # policies to choose from


class PolicyFilter(admin.SimpleListFilter):
    """The decisions of one policy."""

    title = "policy"
    parameter_name = "policy"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(row.pk, str(row)) for row in ScalingPolicy.objects.select_related("service")[:MOST]]

    def queryset(self, request: HttpRequest, queryset: QuerySet[ScalingDecision]) -> QuerySet[ScalingDecision]:
        return queryset.filter(policy=self.value()) if self.value() else queryset


@admin.register(ScalingPolicy)
class ScalingPolicyAdmin(DetailAdmin):
    list_display = ("where", "state", "count", "bounds", "decided", "newest")
    list_display_links = ("where",)
    list_filter = ("environment", "enabled")
    list_select_related = ("service",)
    list_before_template = "admin/scaling/policies_before.html"
    search_fields = ("=id", "service__slug")
    search_help_text = "A policy's id or part of a service's name"
    sortable_by = ()
    views = {
        name: lambda page, request, row, act=act: act(page, request, row)
        for name, act in {
            "change-settings": actions.change,
            "backtest": actions.try_out,
            "pause": actions.pause,
            "resume": actions.resume,
            "scale": actions.scale,
        }.items()
    }
    detail = staticmethod(details.of_policy)
    detail_template = "admin/scaling/policy.html"
    page_related = ("service",)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("scaling.add_scalingpolicy")

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: Any = None) -> HttpResponse:
        """The page that asks for a new policy."""
        return actions.add(self, request)

    def get_urls(self) -> list[URLPattern]:
        """One more page: a workload may be scaled by hand that has no policy."""
        view = self.admin_site.admin_view(self.scale_workload)
        return [
            path("scale-workload/<int:pk>/", view, name="scaling_scalingpolicy_scale_workload"),
            *super().get_urls(),
        ]

    def scale_workload(self, request: HttpRequest, pk: int) -> HttpResponse:
        """The page that asks for a number of instances of a workload."""
        return actions.scale_workload(
            self, request, get_object_or_404(Workload.objects.select_related("service"), pk=pk)
        )

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """The list, and before it the workloads that can be scaled by hand only."""
        mine = overview.without_policy() if request.user.has_perm("scaling.scale") else []
        return super().changelist_view(request, {**(extra_context or {}), "without_policy": mine})

    def get_queryset(self, request: HttpRequest) -> QuerySet[ScalingPolicy]:
        return overview.with_newest(super().get_queryset(request))

    @admin.display(description="workload")
    def where(self, row: ScalingPolicy) -> SafeString:
        return unbroken(str(row))

    @admin.display(description="state")
    def state(self, row: ScalingPolicy) -> SafeString:
        return badges(display.policy_labels(row, overview.scales(row), timezone.now()))

    @admin.display(description="bounds")
    def bounds(self, row: ScalingPolicy) -> SafeString:
        return unbroken(f"{row.min_instances} to {row.max_instances}")

    @admin.display(description="instances")
    def count(self, row: ScalingPolicy) -> SafeString:
        return unbroken(overview.count_text(row))

    @admin.display(description="decided")
    def decided(self, row: ScalingPolicy) -> SafeString:
        return unbroken(moment(row.newest_at))

    @admin.display(description="why")
    def newest(self, row: ScalingPolicy) -> str:
        return row.newest_reason or "nothing decided yet"


@admin.register(ScalingDecision)
class ScalingDecisionAdmin(DetailAdmin):
    list_display = ("when", "where", "decided", "reason", "late")
    list_display_links = ("when",)
    list_filter = ("action", PolicyFilter)
    list_before_template = "admin/scaling/decisions_before.html"
    sortable_by = ()  # the newest first, in the order of the index
    detail = staticmethod(details.of_decision)
    page_related = ("policy__service",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[ScalingDecision]:
        # In a query of its own: joined, the database would begin with the policies and sort all there is.
        return super().get_queryset(request).prefetch_related("policy__service").defer("figures")

    @admin.display(description="window's end")
    def when(self, row: ScalingDecision) -> SafeString:
        return unbroken(moment(row.boundary))

    @admin.display(description="policy")
    def where(self, row: ScalingDecision) -> SafeString:
        return unbroken(str(row.policy))

    @admin.display(description="decided")
    def decided(self, row: ScalingDecision) -> SafeString:
        return badge(*display.decision_label(row))

    @admin.display(description="remark")
    def late(self, row: ScalingDecision) -> str:
        return "late samples" if row.late_samples else ""


@admin.register(ScalingEvent)
class ScalingEventAdmin(DetailAdmin):
    list_display = ("when", "where", "change", "outcome", "who", "why")
    list_display_links = ("when",)
    list_filter = ("environment", "action", "success", "triggered_by", "service")
    list_before_template = "admin/scaling/events_before.html"
    search_fields = ("=id",)
    search_help_text = "A whole id"
    sortable_by = ()
    detail = staticmethod(details.of_event)
    page_related = ("workload__service",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[ScalingEvent]:
        return super().get_queryset(request).prefetch_related("service")

    @admin.display(description="time")
    def when(self, row: ScalingEvent) -> SafeString:
        return unbroken(moment(row.timestamp))

    @admin.display(description="workload")
    def where(self, row: ScalingEvent) -> SafeString:
        return unbroken(f"{row.service}/{row.environment}")

    @admin.display(description="instances")
    def change(self, row: ScalingEvent) -> SafeString:
        return unbroken(display.change(row))

    @admin.display(description="outcome")
    def outcome(self, row: ScalingEvent) -> SafeString:
        return badge(*display.event_label(row))

    @admin.display(description="by")
    def who(self, row: ScalingEvent) -> str:
        return display.who(row)

    @admin.display(description="why")
    def why(self, row: ScalingEvent) -> str:
        return row.trigger_reason
