"""The page between a button and what it does: it says exactly what will happen, and only a POST does it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from django.contrib import messages
from django.contrib.admin import ModelAdmin
from django.core.exceptions import PermissionDenied
from django.forms import Form
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, QueryDict
from django.template.response import TemplateResponse

from apps.core.errors import Invalid, PulsewatchError


@dataclass(frozen=True, slots=True)
class Question:
    """One such page."""

    title: str
    submit: str
    back: str  # where the person came from
    lead: str = ""
    facts: Sequence[tuple[str, Any]] = ()
    warnings: Sequence[str] = ()
    form: Form | None = None  # bound when the request is a POST
    choice: Form | None = None  # chooses by GET what the page is about
    danger: bool = False  # something can be lost
    refusal: str = ""  # why it cannot be done now; then there is no button


# Does it with the form's values; gives what to tell the person and where to go.
Act = Callable[[dict[str, Any]], tuple[str, str]]


def require(request: HttpRequest, permission: str) -> None:
    """Raises PermissionDenied, which becomes a 403."""
    if not request.user.has_perm(permission):
        raise PermissionDenied


def posted(request: HttpRequest) -> QueryDict | None:
    """What a form is bound to: what was sent, or nothing on the first look."""
    return request.POST if request.method == "POST" else None


def ask(request: HttpRequest, page: "ModelAdmin[Any]", question: Question, act: Act) -> HttpResponse:
    """The page for a GET; for a POST what was asked for, or the page again with the reason why not."""
    form, refusal = question.form, question.refusal
    if request.method == "POST" and not question.refusal and (form is None or form.is_valid()):
        try:
            told, where = act(form.cleaned_data if form else {})
        except PulsewatchError as error:
            field = error.field if isinstance(error, Invalid) else ""
            if form is not None:
                form.add_error(field if field in form.fields else None, str(error))
            else:
                refusal = str(error)
        else:
            messages.success(request, told)
            return HttpResponseRedirect(where)
    context = {
        **page.admin_site.each_context(request),
        "opts": page.opts,
        "title": question.title,
        "lead": question.lead,
        "facts": question.facts,
        "warnings": question.warnings,
        "form": form or (),
        "choice": question.choice,
        "refusal": refusal,
        "impossible": bool(question.refusal),
        "verb": question.submit,
        "variant": "danger" if question.danger else "primary",
        "back": question.back,
    }
    return TemplateResponse(request, "admin/core/confirm.html", context)
