"""Endpoints in the console: the worst first, a page each with what became of it, a form with all it can be told."""

from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import Q, QuerySet
from django.forms import ModelForm
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.decorators import action
from unfold.views import ChangeList
from unfold.widgets import UnfoldAdminTextareaWidget, UnfoldBooleanWidget

from apps.console import checks, files, histories
from apps.core.admin import WritingAdmin
from apps.core.audit import Actor
from apps.core.confirm import require
from apps.core.display import linked, moment, page_of, span
from apps.core.pages import DetailAdmin, buttons
from apps.health.choices import CheckStatus, SubjectKind
from apps.inventory import headers, targets
from apps.inventory.models import Endpoint, Workload


class WrittenOnly(UnfoldAdminTextareaWidget):
    """A text that a page never carries back, not even when it was wrong."""

    def format_value(self, value: Any) -> str:
        return ""


class EndpointForm(ModelForm):
    """An endpoint with its headers, which can be written and never read."""

    headers = forms.CharField(
        required=False,
        strip=True,
        widget=WrittenOnly(attrs={"rows": 3, "autocomplete": "off", "spellcheck": "false"}),
        help_text="One a line, such as Authorization: Bearer …. Kept sealed for this address, never shown again. "
        "Empty: they stay as they are",
    )
    drop_headers = forms.BooleanField(label="Send no headers any more", required=False, widget=UnfoldBooleanWidget())

    def __init__(self, *args: Any, **words: Any) -> None:
        super().__init__(*args, **words)
        if "workload" in self.fields:
            self.fields["workload"].queryset = Workload.objects.select_related("service")
        if not self.instance.headers_sealed:
            del self.fields["drop_headers"]

    def clean_headers(self) -> dict[str, str] | None:
        try:
            return headers.read(self.cleaned_data["headers"]) or None
        except ValueError as error:
            raise forms.ValidationError(str(error)) from error

    def clean(self) -> dict[str, Any]:
        given = self.cleaned_data
        if not given.get("name") and given.get("endpoint_path"):  # validation must know the name it will have
            asked = Endpoint(http_method=given.get("http_method", ""), endpoint_path=given["endpoint_path"])
            given["name"] = targets.default_name(asked)
        if given.get("drop_headers") and given.get("headers"):
            self.add_error("drop_headers", "Either give new headers or send none: both at once is not clear.")
        return given

    def new_headers(self) -> dict[str, str] | None:
        """None: they stay."""
        return {} if self.cleaned_data.get("drop_headers") else self.cleaned_data.get("headers")


class StatusFilter(admin.SimpleListFilter):
    title, parameter_name = "status", "status"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [*((status.value, status.label) for status in checks.WORST_FIRST), (checks.OFF, "Off")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        if self.value() == checks.OFF:
            return queryset.filter(rank=9)
        if self.value() == CheckStatus.UNKNOWN:
            return queryset.filter(Q(health=None) | Q(health__status=CheckStatus.UNKNOWN)).exclude(rank=9)
        if self.value() in CheckStatus.values:
            return queryset.filter(health__status=self.value()).exclude(rank=9)
        return queryset


class UptimeChangeList(ChangeList):
    """Endpoints of one page with their uptime, read for all of them at once."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        rows = list(self.result_list)
        found = histories.uptimes(rows, SubjectKind.ENDPOINT, timezone.now())
        for row in rows:
            row.uptime = found.get(row.pk)
        self.result_list = rows


@admin.register(Endpoint)
class EndpointAdmin(DetailAdmin, WritingAdmin):
    form = EndpointForm
    list_display = ("state", "place", "what", "response", "checked", "failures", "certificate", "uptime")
    list_display_links = ("what",)
    list_filter = (StatusFilter, "workload__environment", "workload__service", "front_end")
    list_select_related = ("workload__service", "health")
    search_fields = ("endpoint_path", "name", "workload__service__slug")
    change_form_show_cancel_button = True
    fieldsets = (
        (None, {"fields": ("workload", "http_method", "endpoint_path", "name", "enabled", "front_end")}),
        ("What is sent", {"fields": ("headers", "drop_headers", "request_body")}),
        ("What must come back", {"fields": ("expected_status", "body_contains", "body_json", "slow_ms")}),
        ("When", {"fields": ("interval_seconds", "timeout_seconds", "failures_before_down", "successes_before_up")}),
        (
            "Connection",
            {
                "fields": (
                    "verify_tls",
                    "certificate_warning_days",
                    "certificate_critical_days",
                    "follow_redirects",
                    "keep_alive",
                )
            },
        ),
    )
    actions_list = ("import_file", "export_csv", "export_yaml")
    detail_template = "console/target.html"
    page_related = ("workload__service", "health")

    detail = staticmethod(lambda request, row: _page(request, row))
    views = {"edit": lambda page, request, row: page.edit(request, row), "try": checks.try_now}

    def edit(self, request: HttpRequest, row: Endpoint) -> HttpResponse:
        """The form; its page is the one that shows how the endpoint fares."""
        require(request, "inventory.change_endpoint")
        return self.changeform_view(request, str(row.pk), "", {"title": f"Change {row}"})

    @action(description="Import", url_path="import", permissions=["import_file"])
    def import_file(self, request: HttpRequest) -> HttpResponse:
        """Add and change endpoints from a file."""
        return files.take(self, request)

    @action(description="Export CSV", url_path="export-csv", permissions=["view"])
    def export_csv(self, request: HttpRequest) -> HttpResponse:
        """All of them, for a spreadsheet."""
        return files.give("csv", Endpoint.objects.all())

    @action(description="Export YAML", url_path="export-yaml", permissions=["view"])
    def export_yaml(self, request: HttpRequest) -> HttpResponse:
        """All of them, for a repository."""
        return files.give("yaml", Endpoint.objects.all())

    def has_import_file_permission(self, request: HttpRequest, object_id: str | None = None) -> bool:
        return self.has_add_permission(request) and self.has_change_permission(request)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Endpoint]:
        rows = checks.ranked(Endpoint.objects.all(), off=Q(enabled=False) | Q(workload__base_url=""))
        return rows.order_by(*self.get_ordering(request))

    def get_ordering(self, request: HttpRequest) -> tuple[str, ...]:
        return ("rank", "workload__service__slug", "workload__environment", "endpoint_path", "pk")

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return UptimeChangeList

    def get_readonly_fields(self, request: HttpRequest, obj: Endpoint | None = None) -> tuple[str, ...]:
        """Its checks are kept under it, so it stays where it is."""
        return ("workload",) if obj else ()

    def get_fieldsets(self, request: HttpRequest, obj: Endpoint | None = None) -> Any:
        """Without the switch for headers that are not there."""
        if obj and obj.headers_sealed:
            return self.fieldsets
        return [
            (name, {"fields": tuple(field for field in options["fields"] if field != "drop_headers")})
            for name, options in self.fieldsets
        ]

    def has_add_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.has_perm("inventory.add_endpoint"))

    def has_change_permission(self, request: HttpRequest, obj: Endpoint | None = None) -> bool:
        return bool(request.user.has_perm("inventory.change_endpoint"))

    def has_delete_permission(self, request: HttpRequest, obj: Endpoint | None = None) -> bool:
        return bool(request.user.has_perm("inventory.delete_endpoint"))

    def save_model(self, request: HttpRequest, obj: Endpoint, form: EndpointForm, change: bool) -> None:
        targets.save_endpoint(endpoint=obj, actor=Actor.person(request.user), headers=form.new_headers())

    def delete_model(self, request: HttpRequest, obj: Endpoint) -> None:
        targets.remove_endpoint(endpoint=obj, actor=Actor.person(request.user))

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Endpoint]) -> None:
        for row in queryset.select_related("workload__service"):
            self.delete_model(request, row)

    def get_deleted_objects(
        self, objs: Any, request: HttpRequest
    ) -> tuple[list[str], dict[str, int], set[str], list[str]]:
        """What goes with them is not listed row by row: it is their checks, thousands, which nobody removes by hand."""
        rows = list(objs)
        return [f"{row}, with its checks of the last 24 hours" for row in rows], {"endpoints": len(rows)}, set(), []

    def response_post_save_add(self, request: HttpRequest, obj: Endpoint) -> HttpResponse:
        return HttpResponseRedirect(page_of(obj))

    def response_post_save_change(self, request: HttpRequest, obj: Endpoint) -> HttpResponse:
        return HttpResponseRedirect(page_of(obj))

    @admin.display(description="status", ordering="rank")
    def state(self, row: Endpoint) -> SafeString:
        return checks.status_badge(row)

    @admin.display(description="service", ordering="workload__service__slug")
    def place(self, row: Endpoint) -> SafeString:
        return format_html('<span class="whitespace-nowrap">{}</span>', str(row.workload))

    @admin.display(description="endpoint", ordering="endpoint_path")
    def what(self, row: Endpoint) -> str:
        own = f"{row.http_method} {row.endpoint_path}"
        return own if row.name in (own, targets.default_name(row)) else f"{row.name} ({own})"

    @admin.display(description="response", ordering="health__response_time")
    def response(self, row: Endpoint) -> str:
        state = checks.state_of(row)
        return checks.milliseconds(state.response_time) if state else "-"

    @admin.display(description="checked", ordering="health__last_checked")
    def checked(self, row: Endpoint) -> SafeString | str:
        return checks.ago(checks.looked_at(row), timezone.now())

    @admin.display(description="failures in a row", ordering="health__consecutive_failures")
    def failures(self, row: Endpoint) -> str:
        state = checks.state_of(row)
        return str(state.consecutive_failures) if state and state.consecutive_failures else "-"

    @admin.display(description="certificate", ordering="health__tls_expires_at")
    def certificate(self, row: Endpoint) -> str:
        return _certificate(row)

    @admin.display(description="uptime, 24 h")
    def uptime(self, row: Endpoint) -> str:
        return checks.uptime(row.uptime)


def _certificate(row: Endpoint) -> str:
    state = checks.state_of(row)
    left = checks.days_left(state.tls_expires_at if state else None, timezone.now())
    if left is None:
        return "-"
    return f"{left} days left" if left >= 0 else f"ended {-left} days ago"


def _page(request: HttpRequest, row: Endpoint) -> dict[str, Any]:
    """The page of an endpoint."""
    now = timezone.now()
    state = checks.state_of(row)
    day = histories.uptimes([row], SubjectKind.ENDPOINT, now).get(row.pk)
    charts, quarter = histories.charts(row, now)
    return {
        "badges": checks.status_badge(row),
        "lead": checks.verdict(row, now),
        "progress": None,
        "actions": checks.try_button(request, row)
        + buttons(
            request,
            row,
            ("Change", "edit", "inventory.change_endpoint", "", True),
            ("Remove", "delete", "inventory.delete_endpoint", "danger", True),
        ),
        "charts": charts,
        "sections": (
            {
                "heading": "Now",
                "facts": (
                    ("Answer", str(state.actual_status or "none") if state and state.last_checked else "-"),
                    ("Response", checks.milliseconds(state.response_time) if state else "-"),
                    ("Checked", checks.ago(checks.looked_at(row), now)),
                    ("Failures in a row", str(state.consecutive_failures) if state else "-"),
                    ("Certificate", _certificate(row)),
                    (
                        "Uptime",
                        f"{checks.uptime(day)} in 24 hours, {checks.uptime(quarter)} in 90 days"
                        if quarter is not None
                        else "-",
                    ),
                ),
            },
            {
                "heading": "What is asked",
                "facts": (
                    ("Address", row.url or "none: the workload has no base URL"),
                    ("Method", row.http_method),
                    ("Workload", linked(row.workload)),
                    ("Headers", "some, kept sealed" if row.headers_sealed else "none"),
                    ("Body", row.request_body),
                    ("Expected status", row.expected_status),
                    ("Text in the answer", row.body_contains),
                    ("JSON condition", row.body_json),
                    ("Slow from", f"{row.slow_ms:,} ms"),
                    ("Asked", f"every {span(row.interval_seconds)}, for at most {span(row.timeout_seconds)}"),
                    ("Counts as failed", f"after {row.failures_before_down} failures in a row"),
                    ("Counts as back", f"after {row.successes_before_up} good answers in a row"),
                    ("Front end", "yes: it answers that item of the checklists" if row.front_end else "no"),
                    ("Added", moment(row.created_at)),
                ),
            },
        ),
        "lists": checks.lists(row),
    }
