"""Builds and their trend, and diagnostics, worst first, with what people do about them."""

from collections.abc import Sequence
from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import Count, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.safestring import SafeString
from unfold.views import ChangeList

from apps.builds import details, services
from apps.builds.choices import DiagnosticStatus, Severity
from apps.builds.models import ACTIVE, MAX_NOTES, WORST_FIRST, Build, Diagnostic
from apps.builds.trends import trends
from apps.core.audit import Actor
from apps.core.display import badge, moment, size, unbroken
from apps.core.errors import Conflict, Invalid
from apps.core.pages import DetailAdmin

AT_ONCE = 500  # diagnostics moved by one action: a request stays short
NAMED = 10  # of them, on the page that asks


class TrendChangeList(ChangeList):
    """The list, and the trend of the builds it is filtered to."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        self.trends = trends(self.queryset)


@admin.register(Build)
class BuildAdmin(DetailAdmin):
    list_display = (
        "id", "workload", "status", "branch", "commit", "time", "bundle", "errors", "warnings", "attempted",
    )  # fmt: skip
    list_filter = ("build_status", "environment", "service")
    list_select_related = ("service",)
    list_before_template = "admin/builds/trends.html"
    search_fields = ("=id", "=branch", "commit_sha__startswith")
    search_help_text = "A whole id or branch, or the beginning of a commit"
    detail = staticmethod(details.of_build)
    detail_template = "admin/builds/detail.html"
    page_related = ("service",)

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return TrendChangeList

    @admin.display(description="workload", ordering="service__slug")
    def workload(self, row: Build) -> str:
        return f"{row.service}/{row.environment}"

    @admin.display(description="status", ordering="build_status")
    def status(self, row: Build) -> SafeString:
        return details.build_label(row)

    @admin.display(description="commit", empty_value="-")
    def commit(self, row: Build) -> str | None:
        return row.commit_sha[:10] or None

    @admin.display(description="build time", ordering="build_time")
    def time(self, row: Build) -> SafeString:
        return unbroken(details.seconds(row.build_time))

    @admin.display(description="bundle", ordering="bundle_size")
    def bundle(self, row: Build) -> SafeString:
        return unbroken(size(row.bundle_size))

    @admin.display(description="errors", ordering="error_count")
    def errors(self, row: Build) -> int:
        return row.error_count

    @admin.display(description="warnings", ordering="warning_count")
    def warnings(self, row: Build) -> int:
        return row.warning_count

    @admin.display(description="attempted", ordering="created_at")
    def attempted(self, row: Build) -> SafeString:
        return unbroken(moment(row.created_at))


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
                "colour": details.SEVERITY_COLOURS[severity],
                "count": counts.get(severity, 0),
                "url": self.get_query_string({"severity__exact": severity.value}, ["p"]),
            }
            for severity in Severity
        ]


@admin.register(Diagnostic)
class DiagnosticAdmin(DetailAdmin):
    list_display = ("where", "how_bad", "state", "error_code", "text", "source", "seen_by")
    list_filter = (StateFilter, "severity", "category", "environment", "service")
    list_select_related = ("service", "source__service")
    list_before_template = "admin/builds/severities.html"
    search_fields = ("=id", "=error_code", "=source__tool", "=source__branch", "file_path__startswith")
    search_help_text = "A whole id, code, tool or branch, or the beginning of a path"
    actions = ("take_into_work", "defer", "resolve")
    detail = staticmethod(details.of_diagnostic)
    detail_template = "admin/builds/detail.html"
    page_related = ("service", "source__service", "first_build", "last_build")

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

    def move(self, request: HttpRequest) -> HttpResponse:
        """The page that asks for notes (GET), and the moving (POST)."""
        if not self.has_move_permission(request):
            raise PermissionDenied
        sent = request.POST if request.method == "POST" else request.GET
        status, keys = sent.get("status", ""), [key for key in sent.getlist("id") if "\0" not in key]
        rows = list(Diagnostic.objects.filter(pk__in=keys[:AT_ONCE]).worst_first())
        if status not in details.MOVES or not rows:
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
            messages.success(request, f"{moved} diagnostic{plural} {details.MOVES[status][1]}.")
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
            "title": details.MOVES[status][0],
            "rows": rows,
            "named": rows[:NAMED],
            "more": max(0, len(rows) - NAMED),
            "status": status.value,
            "notes": notes,
            "fault": fault,
            "most": MAX_NOTES,
        }
        return TemplateResponse(request, "admin/builds/move.html", context)

    @admin.display(description="where", ordering="file_path", empty_value="-")
    def where(self, row: Diagnostic) -> str | None:
        return row.place or None

    @admin.display(description="status", ordering="status")
    def state(self, row: Diagnostic) -> SafeString:
        return badge(row.get_status_display(), details.STATE_COLOURS[DiagnosticStatus(row.status)])

    @admin.display(description="severity", ordering="severity_rank")
    def how_bad(self, row: Diagnostic) -> SafeString:
        return badge(row.get_severity_display(), details.SEVERITY_COLOURS[Severity(row.severity)])

    @admin.display(description="last seen by", ordering="last_build")
    def seen_by(self, row: Diagnostic) -> str:
        return str(row.last_build_id)

    @admin.display(description="message")
    def text(self, row: Diagnostic) -> str:
        first = row.error_message.partition("\n")[0]
        return first if len(first) <= 120 else f"{first[:119]}…"
