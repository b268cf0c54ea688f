"""The samples, newest first, to look at."""

from collections.abc import Sequence

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html_join
from django.utils.safestring import SafeString
from unfold.decorators import display

from apps.core.admin import ReadOnlyAdmin
from apps.health.choices import CheckStatus, HealthStatus
from apps.health.models import DatabaseCheck, EndpointCheck, HealthCheck, HealthHourly

STATUS_LABELS = {
    HealthStatus.HEALTHY.label: "success",
    HealthStatus.DEGRADED.label: "warning",
    HealthStatus.UNHEALTHY.label: "danger",
    HealthStatus.UNKNOWN.label: "info",
}


def reason_text(reason: dict[str, object]) -> str:
    """One reason in plain words, such as `database slow: 143 (limit 100)`."""
    words = str(reason.get("rule", "")).replace("_", " ")
    value, limit = reason.get("value"), reason.get("limit")
    shown = f"{value:.4g}" if isinstance(value, float) else value
    return words + ("" if value is None else f": {shown}") + ("" if limit is None else f" (limit {limit:g})")


@admin.register(HealthCheck)
class HealthCheckAdmin(ReadOnlyAdmin):
    list_display = ("timestamp", "instance_id", "status", "response", "cpu", "memory", "error_rate", "why")
    list_filter = ("overall_status", "environment")
    list_select_related = ()
    search_fields = ("instance__id__exact",)
    search_help_text = "A whole instance identifier"
    fieldsets = (
        (None, {"fields": ("timestamp", "instance_id", "environment", "status", "why", "deployment_id", "version")}),
        ("Answer", {"fields": ("response_time_ms", "measured_at", "uptime_seconds")}),
        (
            "Dependencies",
            {"fields": ("database_status", "database_response_ms", "redis_status", "redis_response_ms")},
        ),
        (
            "Load",
            {
                "fields": (
                    "cpu_usage_percent",
                    "memory_usage_mb",
                    "memory_usage_percent",
                    "total_requests",
                    "error_rate_5min",
                    "active_connections",
                )
            },
        ),
    )

    def get_ordering(self, request: HttpRequest) -> Sequence[str]:
        """Of one instance, by time alone and for certain: the order of its index."""
        return ("-timestamp", "-instance_id") if request.GET.get("q") else super().get_ordering(request)

    def get_queryset(self, request: HttpRequest) -> QuerySet[HealthCheck]:
        return super().get_queryset(request).defer("errors_total", "cpu_seconds_total")

    @admin.display(description="instance", ordering="instance_id")
    def instance_id(self, row: HealthCheck) -> str:
        return str(row.instance_id)

    @display(description="status", label=STATUS_LABELS, ordering="overall_status")
    def status(self, row: HealthCheck) -> str:
        return row.get_overall_status_display()

    @admin.display(description="response")
    def response(self, row: HealthCheck) -> str:
        return f"{row.response_time_ms}\u00a0ms"

    @admin.display(description="CPU", empty_value="-")
    def cpu(self, row: HealthCheck) -> str | None:
        return None if row.cpu_usage_percent is None else f"{row.cpu_usage_percent:.1f}\u00a0%"

    @admin.display(description="memory", empty_value="-")
    def memory(self, row: HealthCheck) -> str | None:
        if row.memory_usage_mb is None:
            return None
        share = "" if row.memory_usage_percent is None else f" ({row.memory_usage_percent:.1f}\u00a0%)"
        return f"{row.memory_usage_mb:,}\u00a0MiB{share}"

    @admin.display(description="errors, 5 min", empty_value="-")
    def error_rate(self, row: HealthCheck) -> str | None:
        return None if row.error_rate_5min is None else f"{100 * row.error_rate_5min:.2f}\u00a0%"

    @admin.display(description="why", empty_value="")
    def why(self, row: HealthCheck) -> SafeString:
        return format_html_join(", ", "{}", ((reason_text(reason),) for reason in row.reasons))


CHECK_LABELS = {
    CheckStatus.HEALTHY.label: "success",
    CheckStatus.DEGRADED.label: "warning",
    CheckStatus.FAILED.label: "danger",
    CheckStatus.UNKNOWN.label: "info",
}


class CheckAdmin(ReadOnlyAdmin):
    """Raw checks of the last day, the newest first. Pages of one target are reached from the page of that target."""

    list_display_links = None
    list_select_related = ()  # not joined: the database would begin with the targets and sort all there is

    def get_list_filter(self, request: HttpRequest) -> tuple[str, ...]:
        """Among millions, the few failed ones would be searched for one by one; of one target there are thousands."""
        return ("status",) if {"endpoint__id__exact", "database__id__exact"} & set(request.GET) else ()

    @admin.display(description="time", ordering="at")
    def when(self, row: EndpointCheck | DatabaseCheck) -> str:
        return f"{row.at:%Y-%m-%d %H:%M:%S}"

    @display(description="status", label=CHECK_LABELS)
    def state(self, row: EndpointCheck | DatabaseCheck) -> str:
        return row.get_status_display()

    @admin.display(description="response")
    def response(self, row: EndpointCheck | DatabaseCheck) -> str:
        return _milliseconds(row.response_time_ms)


@admin.register(EndpointCheck)
class EndpointCheckAdmin(CheckAdmin):
    list_display = ("when", "endpoint", "state", "http_status", "response", "error")

    def get_queryset(self, request: HttpRequest) -> QuerySet[EndpointCheck]:
        return super().get_queryset(request).prefetch_related("endpoint__workload__service")


@admin.register(DatabaseCheck)
class DatabaseCheckAdmin(CheckAdmin):
    list_display = (
        "when",
        "database",
        "state",
        "connection_status",
        "query_status",
        "response",
        "connections",
        "error",
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[DatabaseCheck]:
        return super().get_queryset(request).prefetch_related("database")

    @admin.display(description="connections")
    def connections(self, row: DatabaseCheck) -> str:
        if row.connections_used is None:
            return "-"
        return f"{row.connections_used} of {row.connections_max}" if row.connections_max else str(row.connections_used)


@admin.register(HealthHourly)
class HealthHourlyAdmin(ReadOnlyAdmin):
    list_display = (
        "begins",
        "kind",
        "subject",
        "checks",
        "up",
        "down",
        "degraded",
        "unknown",
        "mean",
        "p95",
        "slowest",
    )
    list_display_links = None
    list_filter = ("kind",)
    ordering = ("-hour", "-kind", "-id")  # the order of an index

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest | None = None) -> bool:
        """The page of a target leads here with its key."""
        return lookup == "subject" or super().lookup_allowed(lookup, value, request)

    @admin.display(description="hour (UTC)", ordering="hour")
    def begins(self, row: HealthHourly) -> str:
        return f"{row.hour:%Y-%m-%d %H}:00"

    @admin.display(description="uptime", empty_value="-")
    def up(self, row: HealthHourly) -> str | None:
        return None if row.uptime is None else f"{100 * row.uptime:.2f}\u00a0%"

    @admin.display(description="mean")
    def mean(self, row: HealthHourly) -> str:
        return _milliseconds(row.response_mean_ms)

    @admin.display(description="95 %")
    def p95(self, row: HealthHourly) -> str:
        return _milliseconds(row.response_p95_ms)

    @admin.display(description="slowest")
    def slowest(self, row: HealthHourly) -> str:
        return _milliseconds(row.response_max_ms)


def _milliseconds(value: float | None) -> str:
    return "-" if value is None else f"{value:,.1f}\u00a0ms"
