"""API tokens in the console: who has one, when it was used; a new one is shown once, an old one revoked for good."""

from datetime import timedelta
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.cache import never_cache
from unfold.decorators import action, display
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextInputWidget

from apps.api import services
from apps.api.choices import Scope
from apps.api.models import ApiToken, WebhookDelivery
from apps.core.admin import ReadOnlyAdmin
from apps.core.audit import Actor
from apps.core.errors import Conflict, Invalid

LASTING = {"90": "90 days", "365": "one year", "1": "one day", "": "until it is revoked"}


class TokenForm(forms.Form):
    """What a new token is to be."""

    name = forms.CharField(max_length=100, widget=UnfoldAdminTextInputWidget, help_text="What it is for, such as ci")
    scopes = forms.MultipleChoiceField(
        choices=[(scope.value, scope.value) for scope in Scope],
        widget=forms.CheckboxSelectMultiple,
        help_text="Writing includes reading. Give no more than the program needs.",
    )
    expires = forms.ChoiceField(
        label="Lasts", choices=list(LASTING.items()), required=False, widget=UnfoldAdminSelectWidget
    )


@admin.register(ApiToken)
class ApiTokenAdmin(ReadOnlyAdmin):
    """A list to look at; adding shows the token once, on the page that answers the form."""

    list_display = ("name", "state", "allowed", "last_used_at", "expires_at", "created_by")
    search_fields = ("name", "=prefix")
    fields = (
        *("name", "state", "prefix", "allowed", "last_used_at", "expires_at"),
        *("created_at", "created_by", "revoked_at", "revoked_by"),
    )
    actions_detail = ("revoke",)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.has_perm("api.add_apitoken"))

    def has_revoke_permission(self, request: HttpRequest, object_id: str | None = None) -> bool:
        """Changing a token is revoking it: nothing else of it changes."""
        return bool(request.user.has_perm("api.change_apitoken"))

    @display(description="State", label={"live": "success", "expired": "warning", "revoked": "danger"})
    def state(self, row: ApiToken) -> str:
        return row.state(timezone.now())

    @admin.display(description="May do")
    def allowed(self, row: ApiToken) -> str:
        return ", ".join(row.scopes)

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Ask for name, scopes and end; then show the token, once. No cache and no history keeps that page."""
        if not self.has_add_permission(request):
            raise PermissionDenied
        form = TokenForm(request.POST or None)
        context = {"form": form, "token": None}
        if form.is_valid():
            days = form.cleaned_data["expires"]
            try:
                row, text = services.create_token(
                    name=form.cleaned_data["name"],
                    scopes=form.cleaned_data["scopes"],
                    lasting=timedelta(days=int(days)) if days else None,
                    actor=Actor.person(request.user),
                )
            except (Invalid, Conflict) as error:
                form.add_error(
                    error.field if isinstance(error, Invalid) and error.field in form.fields else None, str(error)
                )
            else:
                context |= {"token": text, "row": row}
        return self._page(request, "create", "Add an API token", context)

    @action(description="Revoke", url_path="revoke", permissions=["revoke"])
    def revoke(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Ask whether it is meant, then end the token."""
        row = self.get_object(request, object_id)
        if row is None:
            return HttpResponseRedirect(reverse("admin:api_apitoken_changelist"))
        if request.method == "POST":
            try:
                services.revoke_token(token=row, actor=Actor.person(request.user))
                self.message_user(request, f"Token {row.name} is revoked: its next request is refused.")
            except Conflict as error:
                self.message_user(request, str(error), messages.ERROR)
            return HttpResponseRedirect(reverse("admin:api_apitoken_change", args=[row.pk]))
        return self._page(request, "revoke", f"Revoke {row.name}", {"row": row, "state": row.state(timezone.now())})

    def _page(self, request: HttpRequest, name: str, title: str, context: dict[str, Any]) -> HttpResponse:
        own = {**self.admin_site.each_context(request), "title": title, "opts": self.opts}
        return _uncached(request, TemplateResponse(request, f"admin/api/apitoken/{name}.html", own | context))


@never_cache
def _uncached(request: HttpRequest, response: TemplateResponse) -> TemplateResponse:
    return response


@admin.register(WebhookDelivery)
class WebhookDeliveryAdmin(ReadOnlyAdmin):
    """What GitHub and Zeabur have sent, and what became of it."""

    list_display = ("received_at", "source", "event", "outcome", "detail", "deployment_id")
    list_filter = ("outcome", "source", "event")
    search_fields = ("=delivery_id", "=deployment_id")
    search_help_text = "A whole delivery id (X-GitHub-Delivery) or deployment"
    fields = (
        *("received_at", "source", "delivery_id", "event", "outcome", "detail", "deployment_id"),
        *("attempts", "content"),
    )
