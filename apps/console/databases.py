"""Databases in the console: whether each answers, beside whether it could be restored."""

from typing import Any

from django import forms
from django.contrib import admin
from django.forms import modelform_factory
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.safestring import SafeString
from unfold.decorators import action
from unfold.widgets import (
    UnfoldAdminDecimalFieldWidget,
    UnfoldAdminIntegerFieldWidget,
    UnfoldAdminSelectWidget,
    UnfoldAdminTextInputWidget,
    UnfoldBooleanWidget,
)

from apps.backups import admin as backups
from apps.backups import details
from apps.backups.forms import SecretURLField
from apps.console import checks, histories
from apps.core.audit import Actor
from apps.core.choices import Environment
from apps.core.confirm import Question, ask, posted, require
from apps.core.display import badge, page_of, span
from apps.core.pages import buttons
from apps.health.choices import SubjectKind
from apps.inventory import targets
from apps.inventory.choices import DatabaseEngine
from apps.inventory.models import DEFAULT_SERVICE, Database, Service

admin.site.unregister(Database)

_WIDGETS = {
    forms.BooleanField: UnfoldBooleanWidget,
    forms.IntegerField: UnfoldAdminIntegerFieldWidget,
    forms.FloatField: UnfoldAdminDecimalFieldWidget,
}


def _with_widget(field: Any, **words: Any) -> forms.Field:
    made: forms.Field = field.formfield(**words)
    return field.formfield(widget=_WIDGETS[type(made)]()) if type(made) in _WIDGETS else made


WatchForm = modelform_factory(Database, fields=targets.WATCH_FIELDS, formfield_callback=_with_widget)


@admin.register(Database)
class DatabaseAdmin(backups.DatabaseAdmin):
    """The page of backups with how the database fares now and what became of it."""

    list_display = ("name", "state", "standing", "newest", "drilled", "upcoming", "environment", "where")
    list_select_related = ("plan", "health")
    actions_list = ("watch_only",)
    views = {
        **backups.DatabaseAdmin.views,
        "try": checks.try_now,
        "watch": lambda page, request, row: watch(page, request, row),
    }
    detail = staticmethod(lambda request, row: _page(request, row))
    detail_template = "console/database.html"
    page_related = ("plan", "service", "health")

    @admin.display(description="health")
    def state(self, row: Database) -> SafeString:
        return checks.status_badge(row)

    @admin.display(description="backups")
    def standing(self, row: Database) -> SafeString:
        return badge("watched only") if row.engine == DatabaseEngine.REDIS else super().standing(row)

    @action(description="Watch a Redis server", url_path="watch-only", permissions=["add"])
    def watch_only(self, request: HttpRequest) -> HttpResponse:
        """Register what is watched and not backed up."""
        return watch_only(self, request)


def watch(page: DatabaseAdmin, request: HttpRequest, database: Database) -> HttpResponse:
    """How often and how strictly a database is looked at."""
    require(request, "inventory.change_database")
    question = Question(
        title=f"Watch over {database}",
        lead="Pulsewatch connects, asks for something small, and counts the connections.",
        # Of its own row: what the form finds wrong must not be shown as what is.
        form=WatchForm(posted(request), instance=Database.objects.get(pk=database.pk)),
        submit="Save",
        back=page_of(database),
    )

    def act(values: dict[str, Any]) -> tuple[str, str]:
        targets.change_watch(database=database, actor=Actor.person(request.user), **values)
        return f"{database} is watched as you said.", page_of(database)

    return ask(request, page, question, act)


class WatchOnlyForm(forms.Form):
    """A Redis server to watch from now on."""

    name = forms.SlugField(
        max_length=50,
        widget=UnfoldAdminTextInputWidget(),
        help_text="Short: letters, digits, - and _. It names the server in commands, metrics and alerts.",
    )
    environment = forms.ChoiceField(
        choices=Environment.choices, initial=Environment.PRODUCTION, widget=UnfoldAdminSelectWidget()
    )
    service = forms.ModelChoiceField(
        queryset=Service.objects.all(),
        to_field_name="slug",
        initial=DEFAULT_SERVICE,
        widget=UnfoldAdminSelectWidget(),
        empty_label=None,
    )
    url = SecretURLField(label="URL", help_text="redis://user:password@host:6379/0. Kept encrypted, never shown again.")

    def clean_url(self) -> str:
        url: str = self.cleaned_data["url"]
        if not url.startswith(("redis://", "rediss://")):
            raise forms.ValidationError(
                "Give a URL that starts with redis:// or rediss://. Other databases are backed up too: add them with +."
            )
        return url


def watch_only(page: DatabaseAdmin, request: HttpRequest) -> HttpResponse:
    """Register a Redis server; the first check tells whether it answers."""
    require(request, "inventory.add_database")
    question = Question(
        title="Watch a Redis server",
        lead="Pulsewatch connects each minute, sends PING and counts the clients. Nothing is backed up.",
        form=WatchOnlyForm(posted(request)),
        submit="Watch",
        back=reverse("admin:inventory_database_changelist"),
    )

    def act(values: dict[str, Any]) -> tuple[str, str]:
        database = targets.watch_database(
            actor=Actor.person(request.user), **{**values, "service": values["service"].slug}
        )
        return f"{database} is watched from now on.", page_of(database)

    return ask(request, page, question, act)


def _page(request: HttpRequest, row: Database) -> dict[str, Any]:
    """The page of a database."""
    now = timezone.now()
    found = _watched(row) if row.engine == DatabaseEngine.REDIS else details.of_database(request, row)
    return {
        **found,
        "health": {"badge": checks.status_badge(row), "verdict": checks.verdict(row, now)},
        "actions": found["actions"]
        + checks.try_button(request, row)
        + buttons(request, row, ("Watch", "watch", "inventory.change_database", "", True)),
        "charts": histories.charts(row, now)[0] if row.watch or checks.looked_at(row) else [],
        "sections": ({"heading": "How it answers", "facts": _facts(row)}, *found["sections"]),
        "lists": [*found["lists"], *checks.lists(row)],
    }


def _watched(row: Database) -> dict[str, Any]:
    """What there is to say of one that is not backed up."""
    return {
        "badges": badge("watched only"),
        "progress": None,
        "actions": [],
        "sections": (
            {
                "heading": "What it is",
                "facts": (
                    ("Where", details.where(row)),
                    ("Environment", row.get_environment_display()),
                    ("Service", str(row.service)),
                ),
            },
        ),
        "lists": [],
    }


def _facts(row: Database) -> tuple[tuple[str, Any], ...]:
    now, state = timezone.now(), checks.state_of(row)
    asked = (
        f"every {span(row.interval_seconds)}, for at most {span(row.timeout_seconds)}; slow from {row.slow_query_ms} ms"
    )
    if state is None or state.last_tested is None:
        return (("Looked at", asked if row.watch else "no"),)
    day = histories.uptimes([row], SubjectKind.DATABASE, now).get(row.pk)
    used, most = state.connection_pool_size, state.connections_max
    return (
        ("Connection", state.get_connection_status_display() or "-"),
        ("Query", state.get_query_test_status_display()),
        ("Connecting takes", checks.milliseconds(state.connect_ms)),
        (
            "Query takes",
            f"{checks.milliseconds(state.query_ms)}, on average {checks.milliseconds(state.average_query_time)}"
            if state.query_ms is not None
            else "-",
        ),
        ("Connections", f"{used} of {most} ({used / most:.0%})" if used is not None and most else str(used or "-")),
        ("Looked at", checks.ago(state.last_tested, now)),
        ("Failures in a row", str(state.consecutive_failures)),
        ("Uptime", f"{checks.uptime(day)} in 24 hours" if day is not None else "-"),
        ("Watched", asked if row.watch else "no longer"),
    )
