"""Notes in the console: written and taken away, never changed."""

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.forms import ModelForm
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils import timezone

from apps.console import services
from apps.console.models import Note
from apps.core.admin import WritingAdmin
from apps.core.audit import Actor


@admin.register(Note)
class NoteAdmin(WritingAdmin):
    list_display = ("at", "environment", "text", "by")
    list_filter = ("environment",)
    search_fields = ("text", "by")
    show_full_result_count = False
    fields = ("environment", "text", "at")

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        """It has just happened; the address may say where."""
        return {"at": timezone.now(), **super().get_changeform_initial_data(request)}

    def save_model(self, request: HttpRequest, obj: Note, form: ModelForm, change: bool) -> None:
        made = services.add_note(
            text=obj.text, environment=obj.environment, at=obj.at, actor=Actor.person(request.user)
        )
        obj.pk, obj.text = made.pk, made.text

    def delete_model(self, request: HttpRequest, obj: Note) -> None:
        services.remove_note(note=obj, actor=Actor.person(request.user))

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Note]) -> None:
        for row in queryset:
            self.delete_model(request, row)

    def has_change_permission(self, request: HttpRequest, obj: Note | None = None) -> bool:
        return False

    def response_add(self, request: HttpRequest, obj: Note, post_url_continue: str | None = None) -> HttpResponse:
        """Back to the overview, where it is drawn."""
        self.message_user(request, "The note is on the time axis now.")
        return HttpResponseRedirect(reverse("admin:index"))
