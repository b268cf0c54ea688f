"""Endpoints out of and into files, in the console."""

from pathlib import Path
from typing import Any

from django import forms
from django.core.files.uploadedfile import UploadedFile
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from unfold.widgets import UnfoldAdminFileFieldWidget, UnfoldBooleanWidget

from apps.core.audit import Actor
from apps.core.confirm import Question, ask, posted
from apps.core.errors import Invalid
from apps.inventory import exchange
from apps.inventory.models import Endpoint
from apps.inventory.parsers import EXTENSIONS, MAX_BYTES, MEDIA_TYPES


class ImportForm(forms.Form):
    """A file, and whether it is only tried."""

    file = forms.FileField(
        widget=UnfoldAdminFileFieldWidget(attrs={"accept": ",".join(EXTENSIONS)}),
        help_text=f"CSV or YAML (its name ends in {', '.join(EXTENSIONS)}), at most 1 MiB and 5,000 rows.",
    )
    dry_run = forms.BooleanField(
        label="Only try it", required=False, widget=UnfoldBooleanWidget(), help_text="Say what would be done."
    )

    def clean_file(self) -> UploadedFile:
        file: UploadedFile = self.cleaned_data["file"]
        if Path(file.name or "").suffix.lower() not in EXTENSIONS:
            raise forms.ValidationError(f"Choose a file whose name ends in {', '.join(EXTENSIONS)}.")
        return file


def take(page: Any, request: HttpRequest) -> HttpResponse:
    """The page that imports a file: all of it or, when a row is wrong, nothing."""
    question = Question(
        title="Import endpoints",
        lead="All of the file is taken or, when a row is wrong, nothing. The same file again changes nothing, and what "
        "is not in it stays. An export shows the columns.",
        form=ImportForm(posted(request), request.FILES or None),
        submit="Import",
        back=reverse("admin:inventory_endpoint_changelist"),
    )

    def act(values: dict[str, Any]) -> tuple[str, str]:
        file, dry_run = values["file"], values["dry_run"]
        try:
            told = exchange.import_endpoints(
                content=file.read(MAX_BYTES + 1),
                kind=EXTENSIONS[Path(file.name).suffix.lower()],
                actor=Actor.person(request.user),
                dry_run=dry_run,
            )
        except exchange.FileRefused as error:
            more = [f"and {error.count - len(error.faults)} more"] if error.count > len(error.faults) else []
            raise Invalid("\n".join(["Nothing was imported:", *map(str, error.faults), *more])) from error
        verb = "would be " if dry_run else ""
        words = f"{told.created} {verb}added, {told.changed} {verb}changed, {told.unchanged} as they were."
        if told.unwatched:
            words += f" Not asked until their workload has a base URL: {', '.join(told.unwatched)}."
        return words, reverse(f"admin:inventory_endpoint_{'import_file' if dry_run else 'changelist'}")

    return ask(request, page, question, act)


def give(kind: str, endpoints: QuerySet[Endpoint]) -> HttpResponse:
    """A file of these endpoints, to save."""
    media = next(name for name, found in MEDIA_TYPES.items() if found == kind)
    return HttpResponse(
        exchange.export_endpoints(kind=kind, endpoints=endpoints),
        content_type=f"{media}; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="endpoints.{kind}"'},
    )
