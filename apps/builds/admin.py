"""Builds and their trend, and diagnostics, worst first, with what people do about them."""

from collections.abc import Sequence
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.db.models import Count, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from django.utils.http import urlencode
from django.utils.safestring import SafeString
from unfold.admin import TabularInline
from unfold.decorators import action, display
from unfold.views import ChangeList

from apps.builds import services
from apps.builds.choices import BuildStatus, DiagnosticStatus, Severity
from apps.builds.models import ACTIVE, MAX_NOTES, WORST_FIRST, Build, Diagnostic, DiagnosticReport
from apps.builds.trends import trends
from apps.core.admin import HistoryAdmin
from apps.core.audit import Actor
from apps.core.errors import Conflict, Invalid

BUILD_COLOURS = {
    BuildStatus.PENDING.label: "info",
    BuildStatus.BUILDING.label: "info",
    BuildStatus.SUCCESS.label: "success",
    BuildStatus.FAILED.label: "danger",
    BuildStatus.CANCELLED.label: "warning",
}
SEVERITY_COLOURS = {
    Severity.CRITICAL.label: "danger",
    Severity.HIGH.label: "danger",
    Severity.MEDIUM.label: "warning",
    Severity.LOW.label: "info",
}
STATE_COLOURS = {
    DiagnosticStatus.IDENTIFIED.label: "danger",
    DiagnosticStatus.IN_PROGRESS.label: "info",
    DiagnosticStatus.RESOLVED.label: "success",
    DiagnosticStatus.DEFERRED.label: "warning",
}
AT_ONCE = 500  # diagnostics moved by one action: a request stays short
NAMED = 10  # of them, on the page that asks
MOVES = {
    DiagnosticStatus.IN_PROGRESS: ("Take into work", "taken into work"),
    DiagnosticStatus.DEFERRED: ("Defer", "deferred"),
    DiagnosticStatus.RESOLVED: ("Mark as resolved", "marked as resolved"),
}


class TrendChangeList(ChangeList):
    """The list, and the trend of the builds it is filtered to."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        self.trends = trends(self.queryset)


class ReportInline(TabularInline):
    """What the tools reported about a build."""

    model = DiagnosticReport
    verbose_name_plural = "reports of diagnostics"
    fields = ("tool", "errors", "warnings", "notes", "added", "carried", "reopened", "resolved", "complete", "remark")
    readonly_fields = fields
    extra = 0
    can_delete = False
    hide_title = True

    def get_queryset(self, request: HttpRequest) -> QuerySet[DiagnosticReport]:
        return super().get_queryset(request).select_related("source")

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    @admin.display(description="tool")
    def tool(self, row: DiagnosticReport) -> str:
        return row.source.tool

    @admin.display(description="remark", empty_value="")
    def remark(self, row: DiagnosticReport) -> str:
        late = ["It came after the report of a newer build."] if row.outdated else []
        return " ".join([*late, *row.doubts])


@admin.register(Build)
class BuildAdmin(HistoryAdmin):
    list_display = (
        "id", "workload", "status", "branch", "commit", "time", "bundle", "errors", "warnings", "attempted",
    )  # fmt: skip
    list_filter = ("build_status", "environment", "service")
    list_select_related = ("service",)
    list_before_template = "admin/builds/trends.html"
    search_fields = ("=id", "=branch", "commit_sha__startswith")
    search_help_text = "A whole id or branch, or the beginning of a commit"
    inlines = (ReportInline,)
    fieldsets = (
        (None, {"fields": ("id", "service", "environment", "status", "branch", "commit_sha", "run", "requested_by")}),
        ("Result", {"fields": ("time", "bundle", "error_count", "warning_count", "diagnostics_link", "log")}),
        ("Built by", {"fields": ("build_command", "node_version", "typescript_version", "astro_version")}),
        ("Times", {"fields": ("created_at", "started_at", "completed_at")}),
    )

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return TrendChangeList

    @admin.display(description="workload", ordering="service__slug")
    def workload(self, row: Build) -> str:
        return f"{row.service}/{row.environment}"

    @display(description="status", label=BUILD_COLOURS, ordering="build_status")
    def status(self, row: Build) -> str:
        return row.get_build_status_display()

    @admin.display(description="commit", empty_value="-")
    def commit(self, row: Build) -> str | None:
        return row.commit_sha[:10] or None

    @admin.display(description="build time", ordering="build_time", empty_value="-")
    def time(self, row: Build) -> str | None:
        return None if row.build_time is None else f"{row.build_time:,.1f}\u00a0s"

    @admin.display(description="bundle", ordering="bundle_size", empty_value="-")
    def bundle(self, row: Build) -> str | None:
        return None if row.bundle_size is None else f"{row.bundle_size / 1000:,.1f}\u00a0kB"

    @admin.display(description="errors", ordering="error_count")
    def errors(self, row: Build) -> int:
        return row.error_count

    @admin.display(description="warnings", ordering="warning_count")
    def warnings(self, row: Build) -> int:
        return row.warning_count

    @admin.display(description="attempted", ordering="created_at")
    def attempted(self, row: Build) -> str:
        return f"{row.created_at:%Y-%m-%d\u00a0%H:%M}"

    @admin.display(description="run", empty_value="-")
    def run(self, row: Build) -> SafeString | None:
        link = '<a class="text-primary-600" href="{}" rel="noreferrer">{}</a>'
        return format_html(link, row.run_url, row.run_url) if row.run_url else None

    @admin.display(description="diagnostics")
    def diagnostics_link(self, row: Build) -> SafeString:
        url = reverse("admin:builds_diagnostic_changelist")
        return format_html(
            '<a class="text-primary-600" href="{}?{}">Those it was the last to show</a>',
            url,
            urlencode({"state": "all", "last_build__id__exact": row.pk}),
        )

    @admin.display(description="error log", empty_value="-")
    def log(self, row: Build) -> SafeString | None:
        return format_html('<pre class="build-log">{}</pre>', row.error_log) if row.error_log else None


class StateFilter(admin.SimpleListFilter):
    """Active ones unless something else is chosen: the others need nobody now."""

    title = "status"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [*DiagnosticStatus.choices, ("all", "All")]

    def choices(self, changelist: Any) -> Any:
        first, *others = super().choices(changelist)
        yield {**first, "display": "Active"}
        yield from others

    def queryset(self, request: HttpRequest, queryset: QuerySet[Diagnostic]) -> QuerySet[Diagnostic]:
        if self.value() == "all":
            return queryset
        return queryset.filter(status__in=[self.value()] if self.value() in DiagnosticStatus.values else ACTIVE)


class SeverityChangeList(ChangeList):
    """The list, and how many diagnostics it holds of each severity."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        rows = self.queryset.order_by().values_list("severity").annotate(count=Count("pk"))
        counts: dict[str, int] = dict(rows)
        self.severities = [
            {
                "label": severity.label,
                "colour": SEVERITY_COLOURS[severity.label],
                "count": counts.get(severity, 0),
                "url": self.get_query_string({"severity__exact": severity.value}, ["p"]),
            }
            for severity in Severity
        ]


@admin.register(Diagnostic)
class DiagnosticAdmin(HistoryAdmin):
    list_display = ("where", "how_bad", "state", "error_code", "text", "source", "seen_by")
    list_filter = (StateFilter, "severity", "category", "environment", "service")
    list_select_related = ("service", "source__service")
    list_before_template = "admin/builds/severities.html"
    search_fields = ("=id", "=error_code", "=source__tool", "=source__branch", "file_path__startswith")
    search_help_text = "A whole id, code, tool or branch, or the beginning of a path"
    actions = ("take_into_work", "defer", "resolve")
    actions_detail = ("take_this", "defer_this", "resolve_this")
    fieldsets = (
        (None, {"fields": ("id", "state", "how_bad", "level", "category", "error_code", "where", "message")}),
        ("Where from", {"fields": ("service", "environment", "source", "first_build", "last_build")}),
        ("History", {"fields": ("created_at", "resolved_at", "resolution_notes")}),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Diagnostic]:
        return Diagnostic.objects.worst_first()

    def get_ordering(self, request: HttpRequest) -> Sequence[str]:
        return WORST_FIRST

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return SeverityChangeList

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest | None = None) -> bool:
        return lookup == "last_build__id__exact" or super().lookup_allowed(lookup, value, request)

    def get_urls(self) -> list[URLPattern]:
        """The page that moves diagnostics, before Django's own, which would take it for a key."""
        move = path("move/", self.admin_site.admin_view(self.move), name="builds_diagnostic_move")
        return [move, *super().get_urls()]

    def has_move_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        """Whether the person may say what happens with diagnostics."""
        return request.user.has_perm("builds.change_diagnostic")

    @admin.action(description="Take into work…", permissions=["move"])
    def take_into_work(self, request: HttpRequest, queryset: QuerySet[Diagnostic]) -> HttpResponse | None:
        return self._ask_about(request, queryset, DiagnosticStatus.IN_PROGRESS)

    @admin.action(description="Defer…", permissions=["move"])
    def defer(self, request: HttpRequest, queryset: QuerySet[Diagnostic]) -> HttpResponse | None:
        return self._ask_about(request, queryset, DiagnosticStatus.DEFERRED)

    @admin.action(description="Mark as resolved…", permissions=["move"])
    def resolve(self, request: HttpRequest, queryset: QuerySet[Diagnostic]) -> HttpResponse | None:
        return self._ask_about(request, queryset, DiagnosticStatus.RESOLVED)

    @action(description="Take into work", permissions=["move"], url_path="take")
    def take_this(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return self._to_page(object_id, DiagnosticStatus.IN_PROGRESS)

    @action(description="Defer", permissions=["move"], url_path="defer")
    def defer_this(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return self._to_page(object_id, DiagnosticStatus.DEFERRED)

    @action(description="Mark as resolved", permissions=["move"], url_path="resolve")
    def resolve_this(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return self._to_page(object_id, DiagnosticStatus.RESOLVED)

    def move(self, request: HttpRequest) -> HttpResponse:
        """The page that asks for notes (GET), and the moving (POST)."""
        if not self.has_move_permission(request):
            raise PermissionDenied
        sent = request.POST if request.method == "POST" else request.GET
        status, keys = sent.get("status", ""), [key for key in sent.getlist("id") if "\0" not in key]
        rows = list(Diagnostic.objects.filter(pk__in=keys[:AT_ONCE]).worst_first())
        if status not in MOVES or not rows:
            messages.error(request, "Nothing was done: choose diagnostics and what shall become of them.")
            return HttpResponseRedirect(reverse("admin:builds_diagnostic_changelist"))
        if request.method != "POST":
            return self._page(request, rows, DiagnosticStatus(status))
        try:
            self._move(request, rows, DiagnosticStatus(status), sent.get("notes", ""))
        except Invalid as fault:
            return self._page(request, rows, DiagnosticStatus(status), notes=sent.get("notes", ""), fault=str(fault))
        return HttpResponseRedirect(reverse("admin:builds_diagnostic_changelist"))

    def _move(self, request: HttpRequest, rows: list[Diagnostic], status: DiagnosticStatus, notes: str) -> None:
        actor, moved, refused = Actor.person(request.user), 0, []
        for row in rows:
            try:
                services.move_diagnostic(diagnostic=row, status=status, actor=actor, notes=notes)
                moved += 1
            except Conflict as conflict:
                refused.append(str(conflict))
        if moved:
            plural = "" if moved == 1 else "s"
            messages.success(request, f"{moved} diagnostic{plural} {MOVES[status][1]}.")
        if refused:
            more = f" And {len(refused) - 3} more." if len(refused) > 3 else ""
            messages.warning(request, " ".join(refused[:3]) + more)

    def _ask_about(
        self, request: HttpRequest, queryset: QuerySet[Diagnostic], status: DiagnosticStatus
    ) -> HttpResponse | None:
        rows = list(queryset[: AT_ONCE + 1])
        if len(rows) > AT_ONCE:
            messages.error(request, f"Nothing was done: at most {AT_ONCE} diagnostics at once.")
            return None
        return self._page(request, rows, status)

    def _page(
        self,
        request: HttpRequest,
        rows: list[Diagnostic],
        status: DiagnosticStatus,
        *,
        notes: str = "",
        fault: str = "",
    ) -> HttpResponse:
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": MOVES[status][0],
            "rows": rows,
            "named": rows[:NAMED],
            "more": max(0, len(rows) - NAMED),
            "status": status.value,
            "notes": notes,
            "fault": fault,
            "most": MAX_NOTES,
        }
        return TemplateResponse(request, "admin/builds/move.html", context)

    def _to_page(self, object_id: str, status: DiagnosticStatus) -> HttpResponse:
        # As the admin writes keys into addresses, or as a person types an id that a log line gave.
        keys = sorted({unquote(object_id), object_id})
        query = urlencode({"status": status.value, "id": keys}, doseq=True)
        return HttpResponseRedirect(f"{reverse('admin:builds_diagnostic_move')}?{query}")

    @admin.display(description="where", ordering="file_path", empty_value="-")
    def where(self, row: Diagnostic) -> str | None:
        return row.place or None

    @display(description="status", label=STATE_COLOURS, ordering="status")
    def state(self, row: Diagnostic) -> str:
        return row.get_status_display()

    @display(description="severity", label=SEVERITY_COLOURS, ordering="rank")
    def how_bad(self, row: Diagnostic) -> str:
        return row.get_severity_display()

    @admin.display(description="last seen by", ordering="last_build")
    def seen_by(self, row: Diagnostic) -> str:
        return str(row.last_build_id)

    @admin.display(description="message")
    def text(self, row: Diagnostic) -> str:
        first = row.error_message.partition("\n")[0]
        return first if len(first) <= 120 else f"{first[:119]}…"

    @admin.display(description="message")
    def message(self, row: Diagnostic) -> SafeString:
        return format_html('<pre class="build-log">{}</pre>', row.error_message)
