"""Admin base classes, and the pages of the audit trail and the stop switch."""

from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from unfold.admin import ModelAdmin
from unfold.paginator import InfinitePaginator

from apps.core import services
from apps.core.audit import Actor
from apps.core.errors import Invalid
from apps.core.models import AuditEntry, StopSwitch


class ReadOnlyAdmin(ModelAdmin):
    """History: can be looked at, never changed by hand. Pages forward without counting the table."""

    paginator = InfinitePaginator
    show_full_result_count = False
    list_per_page = 50

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(AuditEntry)
class AuditEntryAdmin(ReadOnlyAdmin):
    list_display = ("at", "actor", "action", "subject", "reason")
    list_filter = ("actor_kind",)
    search_fields = ("=subject", "=actor", "=request_id")
    search_help_text = "A whole subject (workload:app/production), user name or request id"
    list_select_related = ()


@admin.register(StopSwitch)
class StopSwitchAdmin(ReadOnlyAdmin):
    """One page: whether automation is stopped, and the button to change it."""

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        if not self.has_view_permission(request):
            raise PermissionDenied
        switch = StopSwitch.objects.filter(pk=StopSwitch.SINGLETON).first()
        turn_on = not (switch and switch.on)
        reason, fault = "", ""
        if request.method == "POST":
            if not request.user.has_perm("core.change_stopswitch"):
                raise PermissionDenied
            reason = request.POST.get("reason", "")
            try:
                wanted = request.POST.get("on") == "yes"
                services.set_stop_switch(on=wanted, reason=reason, actor=Actor.person(request.user))
            except Invalid as error:
                fault = str(error)
            else:
                messages.success(request, "Automation is stopped." if wanted else "Automation runs again.")
                return HttpResponseRedirect(reverse("admin:core_stopswitch_changelist"))
        context = {
            **self.admin_site.each_context(request),
            "title": "Stop switch",
            "switch": switch,
            "turn_on": turn_on,
            "may_change": request.user.has_perm("core.change_stopswitch"),
            "reason": reason,
            "fault": fault,
            "opts": self.model._meta,
            **(extra_context or {}),
        }
        return TemplateResponse(request, "admin/core/stopswitch/switch.html", context)
