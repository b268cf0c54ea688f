"""Alerts, where they are told, and when they are not, in the console."""

from collections.abc import Sequence
from typing import Any

from django.contrib import admin
from django.db.models import Case, QuerySet, When
from django.forms import ModelForm
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.decorators import action

from apps.alerts import arrangements, services
from apps.alerts.channels import MAX_URL
from apps.alerts.choices import Severity
from apps.alerts.display import delivery_status, filters, labels, preview, rhythm, route_state, scope
from apps.alerts.forms import NoteForm, RouteForm, WindowForm
from apps.alerts.models import Alert, Delivery, MaintenanceWindow, Route
from apps.core.admin import WritingAdmin
from apps.core.audit import Actor
from apps.core.confirm import Question, ask, posted, require
from apps.core.display import badge, badges, linked, moment, page_of, span
from apps.core.pages import DetailAdmin, button, buttons

LISTED = 100  # lines of a timeline, and messages
RANK = Case(When(severity=Severity.CRITICAL, then=0), When(severity=Severity.WARNING, then=1), default=2)


class StateFilter(admin.SimpleListFilter):
    """Open ones unless something else is chosen: the others need nobody now."""

    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("closed", "Closed"), ("all", "All")]

    def choices(self, changelist: Any) -> Any:
        first, *others = super().choices(changelist)
        yield {**first, "display": "Open"}
        yield from others

    def queryset(self, request: HttpRequest, queryset: QuerySet[Alert]) -> QuerySet[Alert]:
        if self.value() == "all":
            return queryset
        return queryset.filter(closed_at__isnull=self.value() != "closed")


@admin.register(Alert)
class AlertAdmin(DetailAdmin):
    list_display = ("what", "state", "since", "lasted", "kind", "environment", "service")
    list_display_links = ("what",)
    list_filter = (StateFilter, "severity", "kind", "environment")
    search_fields = ("=id", "=subject", "=service")
    search_help_text = "A whole id, subject (endpoint:17) or service"
    list_before_template = "admin/alerts/alerts_before.html"
    views = {"acknowledge": lambda page, request, row: acknowledge(page, request, row)}

    def get_queryset(self, request: HttpRequest) -> QuerySet[Alert]:
        return Alert.objects.annotate(rank=RANK)

    def get_ordering(self, request: HttpRequest) -> Sequence[str]:
        history = request.GET.get("state") in ("closed", "all")
        return ("-opened_at", "-id") if history else ("rank", "-opened_at", "-id")

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        told = {
            "routes_missing": not Route.objects.filter(enabled=True).exists(),
            "routes_broken": list(Route.objects.broken()),
            "shows_history": request.GET.get("state") in ("closed", "all"),
        }
        return super().changelist_view(request, {**told, **(extra_context or {})})

    @staticmethod
    def detail(request: HttpRequest, row: Alert) -> dict[str, Any]:
        """The page of an alert."""
        now = timezone.now()
        told = row.events.filter(notices__delivery__isnull=False)
        deliveries = Delivery.objects.filter(notices__event__in=told).distinct().select_related("route")
        return {
            "badges": badges(labels(row, now)),
            "lead": row.detail,
            "advice": _advice(row),
            "actions": buttons(
                request,
                row,
                (
                    "Acknowledge",
                    "acknowledge",
                    "alerts.acknowledge_alert",
                    "primary",
                    row.is_open and row.acknowledged_at is None,
                ),
            )
            + ([button("Open what is wrong", row.path)] if row.path else [])
            + ([button("Runbook", row.runbook_url)] if row.runbook_url else []),
            "sections": (
                {
                    "heading": "Facts",
                    "facts": (
                        ("Since", f"{moment(row.opened_at)}, {span(now - row.opened_at)} ago"),
                        ("Closed", f"{moment(row.closed_at)}, after {_lasted(row)}" if row.closed_at else ""),
                        ("Kind", row.get_kind_display()),
                        ("Subject", row.subject),
                        ("Environment", row.get_environment_display()),
                        ("Service", row.service),
                        ("Well since", moment(row.cleared_at) if row.is_open else ""),
                        ("Acknowledged", _acknowledged(row)),
                        ("Note", row.acknowledged_note),
                        ("Id", row.pk),
                    ),
                },
            ),
            "lists": (
                {
                    "heading": "Timeline",
                    "headers": ("When", "What", "By"),
                    "rows": [
                        {"cells": (moment(event.at), f"{event.get_kind_display()}: {event.text}", event.by)}
                        for event in row.events.order_by("-at", "-pk")[:LISTED]
                    ],
                    "empty": "Nothing has happened.",
                },
                {
                    "heading": "Messages",
                    "headers": ("Written", "Route", "Why", "State"),
                    "rows": [
                        {
                            "url": page_of(one),
                            "cells": (
                                moment(one.created_at),
                                one.route,
                                one.get_occasion_display(),
                                badge(*delivery_status(one, now)),
                            ),
                        }
                        for one in deliveries[:LISTED]
                    ],
                    "empty": "Nobody has been told: no route wants it, or a maintenance window is open.",
                },
            ),
        }

    @admin.display(description="what", ordering="title")
    def what(self, row: Alert) -> SafeString:
        return format_html('<span class="breaking">{}</span>', row.title)

    @admin.display(description="state", ordering="severity")
    def state(self, row: Alert) -> SafeString:
        return badges(labels(row, timezone.now()))

    @admin.display(description="since", ordering="opened_at")
    def since(self, row: Alert) -> SafeString:
        return format_html('<span class="whitespace-nowrap">{}</span>', moment(row.opened_at))

    @admin.display(description="for")
    def lasted(self, row: Alert) -> SafeString:
        return format_html('<span class="whitespace-nowrap">{}</span>', _lasted(row))


def _lasted(row: Alert) -> str:
    return span((row.closed_at or timezone.now()) - row.opened_at, units=1) or "0 s"


def _acknowledged(row: Alert) -> str:
    return f"{row.acknowledged_by}, {moment(row.acknowledged_at)}" if row.acknowledged_at else ""


def _advice(row: Alert) -> str:
    if not row.is_open:
        return ""
    if row.cleared_at is not None:
        return "It is well just now, and stays open until it has been for ten minutes."
    if row.acknowledged_at is None:
        return "Acknowledge it when you begin to look after it: then nobody is reminded, and others know."
    return ""


def acknowledge(page: AlertAdmin, request: HttpRequest, row: Alert) -> HttpResponse:
    """Asks for a note (GET), then says that this person looks after it (POST)."""
    require(request, "alerts.acknowledge_alert")
    refusal = ""
    if not row.is_open:
        refusal = "It is well again; there is nothing to acknowledge."
    elif row.acknowledged_at is not None:
        refusal = f"{row.acknowledged_by} has acknowledged it already."
    question = Question(
        title=f"Acknowledge: {row.title}",
        lead="You look after it. Nobody is reminded any more; the alert stays open until its subject is well.",
        facts=(("Since", moment(row.opened_at)), ("Severity", row.get_severity_display())),
        form=NoteForm(posted(request)),
        submit="Acknowledge",
        back=page_of(row),
        refusal=refusal,
    )

    def act(values: dict[str, Any]) -> tuple[str, str]:
        services.acknowledge(alert=row, actor=Actor.person(request.user), note=values["note"])
        return "Acknowledged.", page_of(row)

    return ask(request, page, question, act)


@admin.register(Delivery)
class DeliveryAdmin(DetailAdmin):
    """What was sent where. Made by Pulsewatch, to look at."""

    list_display = ("written", "what", "state", "route", "occasion", "attempts")
    list_display_links = ("what",)
    list_filter = ("status", "occasion", "route")
    list_select_related = ("route",)
    search_fields = ("=id", "=route__name")
    search_help_text = "A whole id or name of a route"
    page_related = ("route",)

    @staticmethod
    def detail(request: HttpRequest, row: Delivery) -> dict[str, Any]:
        """The page of a message."""
        now = timezone.now()
        alerts = Alert.objects.filter(events__notices__delivery=row).distinct().worst_first()
        again = row.next_attempt_at if row.status == "queued" else None
        return {
            "title": row.title,
            "badges": badges([delivery_status(row, now)]),
            "fault": row.error,
            "sections": (
                {
                    "heading": "Facts",
                    "facts": (
                        ("Route", linked(row.route)),
                        ("Why", row.get_occasion_display()),
                        ("Written", moment(row.created_at)),
                        ("Sent", moment(row.sent_at)),
                        ("Attempts", row.attempts),
                        ("Next attempt", moment(again)),
                        ("Message", format_html('<span class="kept-lines">{}</span>', row.body)),
                        ("Id", row.pk),
                    ),
                },
            ),
            "lists": (
                {
                    "heading": "Tells of",
                    "headers": ("Alert", "State", "Since"),
                    "rows": [
                        {
                            "url": page_of(alert),
                            "cells": (alert.title, badges(labels(alert, now)), moment(alert.opened_at)),
                        }
                        for alert in alerts[:LISTED]
                    ],
                    "empty": "No alert: it was a test.",
                },
            ),
        }

    @admin.display(description="message")
    def what(self, row: Delivery) -> SafeString:
        return format_html('<span class="breaking">{}</span>', row.title)

    @admin.display(description="state", ordering="status")
    def state(self, row: Delivery) -> SafeString:
        return badge(*delivery_status(row, timezone.now()))

    @admin.display(description="written", ordering="created_at")
    def written(self, row: Delivery) -> SafeString:
        return format_html('<span class="whitespace-nowrap">{}</span>', moment(row.created_at))


@admin.register(Route)
class RouteAdmin(WritingAdmin):
    """Where alerts are told. Saved and removed through the verbs, so that all of it is audited."""

    form = RouteForm
    address: arrangements.Address | None = None  # the one that was posted, checked
    list_display = ("name", "state", "channel", "takes", "reminder_minutes", "last_sent_at")
    search_fields = ("name",)
    readonly_fields = ("channel", "state", "last_error", "last_sent_at", "messages")
    actions_detail = ("test_this",)
    fieldsets = (
        (None, {"fields": ("name", "enabled", "url")}),
        (
            "What it takes",
            {"fields": ("minimum_severity", "environments", "services", "kinds")},
        ),
        ("How often", {"fields": ("reminder_minutes", "send_recoveries")}),
        ("Now", {"fields": ("channel", "state", "last_error", "last_sent_at", "messages")}),
    )

    def get_fieldsets(self, request: HttpRequest, obj: Route | None = None) -> Any:
        """A new route has no state yet."""
        return self.fieldsets if obj else self.fieldsets[:-1]

    def get_actions(self, request: HttpRequest) -> dict[str, Any]:
        """Routes are removed one by one, on a page that says which."""
        return {}

    def get_urls(self) -> list[URLPattern]:
        """The page that asks before a test, before Django's own, which would take it for a key."""
        page = self.admin_site.admin_view(self.test)
        return [path("<int:key>/test/", page, name="alerts_route_test"), *super().get_urls()]

    def prepare(self, request: HttpRequest) -> None:
        """Have the address checked, which takes a process of its own and up to 25 seconds."""
        url = request.POST.get("url", "").strip()
        may = self.has_add_permission(request) or self.has_change_permission(request)
        if may and 0 < len(url) <= MAX_URL:  # a longer one the form refuses
            self.address = arrangements.check_address(url)

    def save_model(self, request: HttpRequest, obj: Route, form: ModelForm, change: bool) -> None:
        arrangements.save_route(route=obj, actor=Actor.person(request.user), address=self.address)

    def delete_model(self, request: HttpRequest, obj: Route) -> None:
        arrangements.remove_route(route=obj, actor=Actor.person(request.user))

    @action(description="Send a test message", url_path="ask-test", icon="send", permissions=["test"])
    def test_this(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return HttpResponseRedirect(reverse("admin:alerts_route_test", args=[object_id]))

    def has_test_permission(self, request: HttpRequest, object_id: str | None = None) -> bool:
        return bool(request.user.has_perm("alerts.change_route"))

    def test(self, request: HttpRequest, key: int) -> HttpResponse:
        """Asks (GET), then queues a test message (POST)."""
        require(request, "alerts.change_route")
        route = Route.objects.filter(pk=key).first()
        if route is None:
            missing: HttpResponse = self._get_obj_does_not_exist_redirect(request, self.opts, str(key))
            return missing
        question = Question(
            title=f"Send a test message to {route.name}",
            lead="One message that says only that the route works. Its page shows whether it arrived.",
            facts=(("Belongs to", route.channel),),
            submit="Send",
            back=reverse("admin:alerts_route_change", args=[route.pk]),
        )

        def act(_: dict[str, Any]) -> tuple[str, str]:
            row = arrangements.send_test(route=route, actor=Actor.person(request.user))
            return "The message is on its way; load this page again to see what became of it.", page_of(row)

        return ask(request, self, question, act)

    @admin.display(description="state")
    def state(self, row: Route) -> SafeString:
        return badge(*route_state(row))

    @admin.display(description="takes")
    def takes(self, row: Route) -> str:
        return filters(row)

    @admin.display(description="messages")
    def messages(self, row: Route) -> SafeString:
        url = reverse("admin:alerts_delivery_changelist")
        return format_html(
            '<a class="text-primary-600 dark:text-primary-500" href="{}?route__id__exact={}">All of this route</a>',
            url,
            row.pk,
        )


class EndedFilter(admin.SimpleListFilter):
    """Those that may come again unless something else is chosen."""

    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("all", "All")]

    def choices(self, changelist: Any) -> Any:
        first, *others = super().choices(changelist)
        yield {**first, "display": "To come"}
        yield from others

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        now = timezone.now()
        return queryset if self.value() == "all" else queryset.valid(now).filter(cancelled_at=None)


@admin.register(MaintenanceWindow)
class MaintenanceWindowAdmin(WritingAdmin):
    """Windows are cancelled, not deleted: charts show what was silenced when."""

    form = WindowForm
    list_display = ("name", "when", "soonest", "covers", "freeze_deployments")
    list_filter = (EndedFilter, "environment", "freeze_deployments")
    search_fields = ("name", "=service", "=subject")
    readonly_fields = ("upcoming", "created_by")
    actions_detail = ("cancel_this",)
    fieldsets = (
        (None, {"fields": ("name", "note")}),
        (
            "When",
            {
                "fields": (
                    *("recurrence", "first_day", "start_time", "time_zone", "minutes", "weekdays", "last_day"),
                    "upcoming",
                )
            },
        ),
        ("For what", {"fields": ("environment", "service", "subject", "freeze_deployments")}),
        ("Who", {"fields": ("created_by",)}),
    )

    def get_fieldsets(self, request: HttpRequest, obj: MaintenanceWindow | None = None) -> Any:
        """A window that is being made has no maker and no occurrences yet."""
        if obj is not None:
            return self.fieldsets
        name, (_, times), covered, _ = self.fieldsets
        return (name, ("When", {"fields": times["fields"][:-1]}), covered)

    def get_urls(self) -> list[URLPattern]:
        """The page that asks before a window is cancelled."""
        page = self.admin_site.admin_view(self.cancel)
        return [path("<int:key>/cancel/", page, name="alerts_maintenancewindow_cancel"), *super().get_urls()]

    def save_model(self, request: HttpRequest, obj: MaintenanceWindow, form: ModelForm, change: bool) -> None:
        arrangements.save_window(window=obj, actor=Actor.person(request.user))

    def has_change_permission(self, request: HttpRequest, obj: MaintenanceWindow | None = None) -> bool:
        return (obj is None or obj.cancelled_at is None) and super().has_change_permission(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: MaintenanceWindow | None = None) -> bool:
        return False

    @action(description="Cancel this window", url_path="ask-cancel", icon="event_busy", permissions=["cancel"])
    def cancel_this(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return HttpResponseRedirect(reverse("admin:alerts_maintenancewindow_cancel", args=[object_id]))

    def has_cancel_permission(self, request: HttpRequest, object_id: str | None = None) -> bool:
        return bool(request.user.has_perm("alerts.change_maintenancewindow"))

    def cancel(self, request: HttpRequest, key: int) -> HttpResponse:
        """Asks (GET), then cancels (POST)."""
        require(request, "alerts.change_maintenancewindow")
        window = MaintenanceWindow.objects.filter(pk=key).first()
        if window is None:
            missing: HttpResponse = self._get_obj_does_not_exist_redirect(request, self.opts, str(key))
            return missing
        back = reverse("admin:alerts_maintenancewindow_change", args=[window.pk])
        question = Question(
            title=f"Cancel the maintenance window {window.name}",
            lead="From now on it silences and freezes nothing. What it held back and is still wrong is told now.",
            facts=(("When", rhythm(window)), ("For", scope(window))),
            submit="Cancel the window",
            danger=True,
            back=back,
            refusal=f"{window.cancelled_by} has cancelled it already." if window.cancelled_at else "",
        )

        def act(_: dict[str, Any]) -> tuple[str, str]:
            arrangements.cancel_window(window=window, actor=Actor.person(request.user))
            return f"{window.name} is cancelled.", back

        return ask(request, self, question, act)

    @admin.display(description="when")
    def when(self, row: MaintenanceWindow) -> str:
        return rhythm(row)

    @admin.display(description="next")
    def soonest(self, row: MaintenanceWindow) -> SafeString | str:
        return preview(row, timezone.now(), 1)

    @admin.display(description="next")
    def upcoming(self, row: MaintenanceWindow) -> SafeString | str:
        return preview(row, timezone.now())

    @admin.display(description="for")
    def covers(self, row: MaintenanceWindow) -> str:
        return scope(row)
