"""Deployments with what happened to each, what the gate saw, and the button that rolls one back."""

from typing import Any

from django.contrib import admin
from django.contrib.admin.utils import quote, unquote
from django.db.models import QuerySet
from django.forms import ModelForm
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from unfold.admin import TabularInline
from unfold.decorators import action, display

from apps.core.admin import HistoryAdmin, WritingAdmin
from apps.core.audit import Actor
from apps.core.confirm import Question, ask, posted, require
from apps.core.errors import Conflict
from apps.core.forms import ReasonForm
from apps.deployments import preparation, services
from apps.deployments.choices import DeploymentStatus, ItemState
from apps.deployments.models import ChecklistItem, Deployment, DeploymentStep, EnvironmentVariableRule
from apps.deployments.rules.checklist import ITEMS

COLOURS = {
    DeploymentStatus.QUEUED.label: "info",
    DeploymentStatus.IN_PROGRESS.label: "info",
    DeploymentStatus.COMPLETED.label: "success",
    DeploymentStatus.FAILED.label: "danger",
    DeploymentStatus.CANCELLED.label: "warning",
    DeploymentStatus.ROLLED_BACK.label: "warning",
}


class Lines(TabularInline):
    """Rows of a deployment, to look at."""

    extra = 0
    can_delete = False
    hide_title = True

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class StepInline(Lines):
    model = DeploymentStep
    verbose_name_plural = "timeline"
    fields = readonly_fields = ("at", "text", "by")


class ItemInline(Lines):
    model = ChecklistItem
    verbose_name_plural = "checklist"
    fields = readonly_fields = ("title", "phase", "how", "detail", "by", "override_reason")

    @admin.display(description="item")
    def title(self, row: ChecklistItem) -> str:
        return ITEMS[row.key].title if row.key in ITEMS else row.key

    @display(
        description="state",
        label={
            ItemState.PASSED.label: "success",
            ItemState.FAILED.label: "danger",
            ItemState.OPEN.label: "warning",
            ItemState.NOT_APPLICABLE.label: "info",
        },
    )
    def how(self, row: ChecklistItem) -> str:
        return row.get_state_display()


@admin.register(Deployment)
class DeploymentAdmin(HistoryAdmin):
    list_display = ("started_at", "version", "service", "environment", "state", "took", "triggered_by", "remark")
    list_filter = ("environment", "status", "kind")
    search_fields = ("=id", "=version", "=commit_sha", "=triggered_by")
    search_help_text = "A whole id, version, commit or user name"
    inlines = (StepInline, ItemInline)
    actions_detail = ("roll_back_this",)
    fieldsets = (
        (None, {"fields": ("id", "state", "version", "service", "environment", "kind", "remark", "error_message")}),
        ("Gate", {"fields": ("verdict", "evidence")}),
        ("Times", {"fields": ("started_at", "completed_at", "took", "committed_at")}),
        (
            "Where from",
            {
                "fields": (
                    "triggered_by",
                    "commit_sha",
                    "commit_message",
                    "build",
                    "github_run_id",
                    "deployment_log_url",
                )
            },
        ),
        ("Rollback", {"fields": ("undoes", "returns_to", "rolled_back_by", "rollback_reason")}),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Deployment]:
        return super().get_queryset(request).select_related("service", "gate", "workload__service")

    def get_urls(self) -> list[URLPattern]:
        """The page that asks before a rollback, before Django's own, which would take it for a key."""
        page = self.admin_site.admin_view(self.roll_back)
        return [path("<path:key>/roll-back/", page, name="deployments_deployment_roll_back"), *super().get_urls()]

    @action(description="Roll back", url_path="ask-roll-back", icon="undo", permissions=["roll_back"])
    def roll_back_this(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return HttpResponseRedirect(reverse("admin:deployments_deployment_roll_back", args=[object_id]))

    def has_roll_back_permission(self, request: HttpRequest, object_id: str | None = None) -> bool:
        return bool(request.user.has_perm("deployments.rollback_deployment"))

    def roll_back(self, request: HttpRequest, key: str) -> HttpResponse:
        """Asks for a reason (GET), then queues the rollback (POST)."""
        require(request, "deployments.rollback_deployment")
        row = Deployment.objects.select_related("workload__service").filter(pk__in={key, unquote(key)}).first()
        if row is None:
            raise Http404
        refusal, returns_to = "", None
        try:
            returns_to = services.rollback_target(row)
        except Conflict as conflict:
            refusal = str(conflict)
        question = Question(
            title=f"Roll back {row.version} of {row.workload}",
            lead="A new deployment record is made, and the workload's platform is asked to bring the former version "
            "back. Nobody else can change the workload meanwhile.",
            facts=(
                ("Undone", f"{row.pk} ({row.version})"),
                ("Returns to", f"{returns_to.pk} ({returns_to.version})" if returns_to else "-"),
                ("Platform", row.workload.get_platform_display()),
            ),
            form=ReasonForm(posted(request)),
            submit="Roll back",
            danger=True,
            back=_page(row),
            refusal=refusal,
        )

        def act(values: dict[str, Any]) -> tuple[str, str]:
            new = services.rollback(deployment=row, reason=values["reason"], actor=Actor.person(request.user))
            return f"{new} is queued.", _page(new)

        return ask(request, self, question, act)

    @display(description="status", label=COLOURS, ordering="status")
    def state(self, row: Deployment) -> str:
        return row.get_status_display()

    @admin.display(description="took", empty_value="-")
    def took(self, row: Deployment) -> str | None:
        return None if row.duration_seconds is None else f"{row.duration_seconds:,}\u00a0s"

    @admin.display(description="remark", empty_value="")
    def remark(self, row: Deployment) -> str:
        """What is unusual about it, in a few words."""
        words = []
        if row.rolled_back_by_id:
            words.append("rolled back")
        if row.undoes_id:
            words.append(f"undoes {row.undoes_id}")
        if row.status == DeploymentStatus.COMPLETED and not row.health_check_passed and not row.observed:
            words.append("health not proven")
        if row.observed:
            words.append("reported by webhook")
        if row.conflict:
            words.append(f"conflict: {row.conflict}")
        if row.override_reason:
            words.append(f"overridden: {row.override_reason}")
        return "; ".join(words)

    @admin.display(description="verdict", empty_value="no gate")
    def verdict(self, row: Deployment) -> str | None:
        gate = getattr(row, "gate", None)
        if gate is None:
            return None
        word = gate.get_verdict_display() if gate.verdict else f"looking, {gate.looks} looks so far"
        return f"{word}. {' '.join(gate.reasons)}"

    @admin.display(description="evidence", empty_value="-")
    def evidence(self, row: Deployment) -> SafeString | None:
        gate = getattr(row, "gate", None)
        seen = gate.evidence.get("instances", []) if gate else []
        if not seen:
            return None
        lines = format_html_join(
            "",
            "<li>{}: {} of {} healthy samples in a row, {} in all; last {}</li>",
            (
                (one["instance"], one["healthy_in_a_row"], one["needed"], one["samples"], one["last_status"])
                for one in seen
            ),
        )
        return format_html("<ul>{}</ul>", lines)


@admin.register(EnvironmentVariableRule)
class EnvironmentVariableRuleAdmin(WritingAdmin):
    list_display = ("key", "service", "required", "sensitive", "min_length", "pattern")
    list_filter = ("service", "sensitive")
    list_select_related = ("service",)
    search_fields = ("key",)

    def save_model(self, request: HttpRequest, obj: EnvironmentVariableRule, form: ModelForm, change: bool) -> None:
        preparation.save_rule(obj, actor=Actor.person(request.user))

    def has_delete_permission(self, request: HttpRequest, obj: EnvironmentVariableRule | None = None) -> bool:
        """A rule that no longer holds is made optional, so that the audit trail tells of it."""
        return False


def _page(row: Deployment) -> str:
    return reverse("admin:deployments_deployment_change", args=[quote(row.pk)])
