"""Pages of single rows in the console: what is known of a row, what a person may do about it, and its live part."""

from collections.abc import Callable
from functools import partial
from typing import Any

from django.contrib.admin.utils import quote, unquote
from django.core.exceptions import PermissionDenied
from django.db.models import AutoField, Model
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse

from apps.core.admin import ReadOnlyAdmin
from apps.core.display import page_of

View = Callable[[Any, HttpRequest, Any], HttpResponse]


class DetailAdmin(ReadOnlyAdmin):
    """A read-only page of each row, made by `detail`, and confirmed actions under their own addresses."""

    views: dict[str, View] = {}  # the end of the address → what it does
    detail: Callable[[HttpRequest, Any], dict[str, Any]]
    detail_template = "admin/core/detail.html"
    live_template = "admin/core/live.html"
    page_related: tuple[str, ...] = ()

    def get_urls(self) -> list[URLPattern]:
        """The pages of the actions, before Django's own, which would take them for keys."""
        names: dict[str, Callable[..., HttpResponse]] = {
            name: partial(self._on_row, view=view) for name, view in self.views.items()
        }
        names["live"] = self.live
        stem = f"{self.opts.app_label}_{self.opts.model_name}"
        own = [
            path(f"<path:object_id>/{name}/", self.admin_site.admin_view(view), name=f"{stem}_{name}".replace("-", "_"))
            for name, view in names.items()
        ]
        return [*own, *super().get_urls()]

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """The page of a row; nothing on it can be changed."""
        if request.method != "GET":
            raise PermissionDenied
        return self._on_row(request, object_id, view=type(self)._detail)

    def live(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """The part of the page that changes while the row is open."""
        return self._on_row(request, object_id, view=type(self)._live)

    def _on_row(self, request: HttpRequest, object_id: str, *, view: View) -> HttpResponse:
        if not self.has_view_permission(request):
            raise PermissionDenied
        rows = self.model._default_manager.select_related(*self.page_related)
        # As the admin writes keys into addresses, or as a person types an id that a log line gave.
        keys = [key for key in {unquote(object_id), object_id} if _is_key(self.model, key)]
        row = rows.filter(pk__in=keys).first()
        if row is None:
            missing: HttpResponse = self._get_obj_does_not_exist_redirect(request, self.opts, object_id)
            return missing
        return view(self, request, row)

    def _detail(self, request: HttpRequest, row: Any) -> HttpResponse:
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": str(row),
            "original": row,
            "live_url": f"{page_of(row).removesuffix('change/')}live/",
            **type(self).detail(request, row),
        }
        return TemplateResponse(request, self.detail_template, context)

    def _live(self, request: HttpRequest, row: Any) -> HttpResponse:
        return TemplateResponse(request, self.live_template, type(self).detail(request, row))


def button(text: str, url: str, colour: str = "") -> dict[str, str]:
    """A button that leads to a page."""
    return {"text": text, "url": url, "colour": colour}


def buttons(request: HttpRequest, row: Model, *wanted: tuple[str, str, str, str, bool]) -> list[dict[str, str]]:
    """Those that make sense now and that this person may press: text, address, permission, colour, makes sense."""
    stem = f"admin:{row._meta.app_label}_{row._meta.model_name}_"
    return [
        button(text, reverse(stem + name.replace("-", "_"), args=[quote(row.pk)]), colour)
        for text, name, permission, colour, possible in wanted
        if possible and request.user.has_perm(permission)
    ]


def _is_key(model: type[Model], text: str) -> bool:
    if isinstance(model._meta.pk, AutoField):
        return text.isdecimal() and len(text) < 19
    return "\0" not in text
