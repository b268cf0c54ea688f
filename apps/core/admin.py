"""Admin base classes, and the pages of the audit trail and the stop switch."""

from copy import copy
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.core.exceptions import PermissionDenied, ValidationError
from django.db import IntegrityError
from django.db.models import QuerySet
from django.forms import ModelForm
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from unfold import paginator
from unfold.admin import ModelAdmin

from apps.core import services
from apps.core.audit import Actor
from apps.core.errors import Conflict, Invalid
from apps.core.models import AuditEntry, StopSwitch


class InfinitePaginator(paginator.InfinitePaginator):
    """Pages forward without counting the table, as far as somebody reads.

    A page begins by reading past all rows before it: the last one of a million would take seconds. By this name
    Unfold's templates know that the number of rows is none.
    """

    template_name = "admin/core/pagination.html"
    num_pages = 200


class ReadOnlyAdmin(ModelAdmin):
    """History: can be looked at, never changed by hand."""

    paginator = InfinitePaginator
    show_full_result_count = False
    list_per_page = 50

    class Media:
        css = {"all": ["core/lists.css"]}

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class WritingAdmin(ModelAdmin):
    """A fault found only while writing shows in the form, like one that validation finds. Nothing is kept of it."""

    fault: Invalid | Conflict | None = None

    class Media:
        css = {"all": ["core/lists.css"]}

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """The page to add or change a row. A write that fails is rolled back, and the form shows why."""
        mine = copy(self)  # this object serves all requests at once
        try:
            if request.method == "POST":
                mine.prepare(request)
            response: HttpResponse = super(WritingAdmin, mine).changeform_view(
                request, object_id, form_url, extra_context
            )
            return response
        except (Invalid, Conflict) as error:
            mine.fault = error
        except IntegrityError:
            mine.fault = Conflict(
                "Somebody else changed the same things at this moment; look what is there and save again."
            )
        page: HttpResponse = super(WritingAdmin, mine).changeform_view(request, object_id, form_url, extra_context)
        return page

    def prepare(self, request: HttpRequest) -> None:
        """What takes its time, before Django opens the transaction in which it validates and saves what was posted.

        What comes of it may be kept on this object: it is for one request. Raises Invalid.
        """

    def get_form(
        self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any
    ) -> "type[ModelForm[Any]]":
        """The form, which in the second round of `changeform_view` knows the fault."""
        form: type[ModelForm[Any]] = super().get_form(request, obj, change, **kwargs)
        return form if self.fault is None else _with_fault(form, self.fault)

    def response_action(self, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse | None:
        """Run an action on the chosen rows; a made-up key is answered with a message."""
        try:
            for key in request.POST.getlist(ACTION_CHECKBOX_NAME):
                self.opts.pk.clean(key, None)
        except ValidationError:
            self.message_user(request, "Nothing was done: what was chosen is no row of this list.", messages.ERROR)
            return None
        response: HttpResponse | None = super().response_action(request, queryset)
        return response


def _with_fault(form: "type[ModelForm[Any]]", fault: Invalid | Conflict) -> "type[ModelForm[Any]]":
    class Faulty(form):  # type: ignore[misc, valid-type]  # a base known only now
        def full_clean(self) -> None:
            super().full_clean()
            if not self.errors:  # what validation finds by now says it better
                field = fault.field if isinstance(fault, Invalid) and fault.field in self.fields else None
                self.add_error(field, str(fault))

    return Faulty


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
            reason, on = request.POST.get("reason", ""), request.POST.get("on")
            try:
                if on not in ("yes", "no"):
                    raise Invalid("Say on=yes or on=no: nothing was changed, for it is not clear which was meant.")
                wanted = on == "yes"
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
