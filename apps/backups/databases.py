"""The pages that add, check and change a registered database. All of them ask a server, so none is in a transaction."""

from typing import Any

from django.contrib.admin import ModelAdmin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse

from apps.backups import services
from apps.backups.engines.base import EngineError, Preflight
from apps.backups.forms import AddDatabaseForm, ChangeDatabaseForm
from apps.backups.runner import engine_of
from apps.core.audit import Actor
from apps.core.confirm import Question, ask, posted, require
from apps.core.display import page_of, size
from apps.core.errors import Invalid, PulsewatchError
from apps.core.redaction import redact
from apps.inventory.models import Database


def add(page: ModelAdmin, request: HttpRequest) -> HttpResponse:
    """Register a database after a preflight."""
    if not page.has_add_permission(request):
        raise PermissionDenied
    question = Question(
        title="Add a database",
        lead="From now on it is backed up every day at 02:00 UTC, each backup is read back and checked, and a restore "
        "drill proves one a month. The plan can be changed afterwards.",
        form=AddDatabaseForm(posted(request)),
        submit="Check and add",
        back=reverse("admin:inventory_database_changelist"),
    )

    def act(values: dict[str, Any]) -> tuple[str, str]:
        try:
            database, preflight = services.add_database(
                actor=Actor.person(request.user), **{**values, "service": values["service"].slug}
            )
        except EngineError as error:
            raise Invalid(str(error), field="url") from error
        warnings = [_sentence(finding.text, finding.remedy) for finding in preflight.findings]
        return " ".join([f"{database} is registered: {_found(preflight)}.", *warnings]), page_of(database)

    return ask(request, page, question, act)


def edit(page: ModelAdmin, request: HttpRequest, database: Database) -> HttpResponse:
    """Change URLs and limit; URLs that are left empty stay."""
    require(request, "inventory.change_database")
    question = Question(
        title=f"Change {database}",
        lead="URLs are kept encrypted and never shown. A new one is checked before the old one is given up.",
        form=ChangeDatabaseForm(posted(request), database=database),
        submit="Check and save",
        back=page_of(database),
    )

    def act(values: dict[str, Any]) -> tuple[str, str]:
        changes: dict[str, Any] = {"url": values["url"], "max_rate_mb": values["max_rate_mb"]}
        for what in ("replica", "scratch"):
            if values.get(f"drop_{what}"):
                changes[f"{what}_url"] = ""
            elif values[f"{what}_url"]:
                changes[f"{what}_url"] = values[f"{what}_url"]
        services.change_database(database=database, actor=Actor.person(request.user), **changes)
        return f"{database} is changed.", page_of(database)

    return ask(request, page, question, act)


def check(page: ModelAdmin, request: HttpRequest, database: Database) -> HttpResponse:
    """What a backup of this database needs and what is missing, asked now."""
    require(request, "backups.run_backup")
    context: dict[str, Any] = {
        **page.admin_site.each_context(request),
        "opts": page.opts,
        "title": f"Check {database}",
        "back": page_of(database),
    }
    try:
        preflight = engine_of(database).preflight()
    except PulsewatchError as error:
        context["fault"] = redact(str(error))
    else:
        context |= {
            "errors": [finding for finding in preflight.findings if finding.level == "error"],
            "warnings": [finding for finding in preflight.findings if finding.level != "error"],
            "facts": (
                ("Server", preflight.server),
                ("Client", preflight.client),
                ("Data and indexes", f"about {size(preflight.size_bytes)}"),
                ("Objects", _objects(preflight)),
            ),
        }
    return TemplateResponse(request, "admin/backups/check.html", context)


def _found(preflight: Preflight) -> str:
    return f"{preflight.server}, about {size(preflight.size_bytes)}, {_objects(preflight)}"


def _objects(preflight: Preflight) -> str:
    objects = preflight.objects
    counts = [("tables", objects.tables), ("views", objects.views), ("routines", objects.routines)]
    counts += [("triggers", objects.triggers), ("events", objects.events)]
    return ", ".join(f"{count} {name}" for name, count in counts if count or name == "tables")


def _sentence(text: str, remedy: str) -> str:
    return f"{text} {remedy}".strip()
