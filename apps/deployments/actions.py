"""What people may do about a deployment in the console. Each asks first, but for ticking, which can be taken back."""

from typing import Any

from django.contrib import messages
from django.contrib.admin import ModelAdmin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect

from apps.core.audit import Actor
from apps.core.confirm import Question, ask, posted, require
from apps.core.display import moment, page_of
from apps.core.errors import Conflict, Invalid
from apps.core.forms import ReasonForm
from apps.deployments import preparation, services
from apps.deployments.choices import DeploymentKind, DeploymentStatus
from apps.deployments.models import Deployment, Gate
from apps.deployments.rules import checklist
from apps.inventory import services as inventory
from apps.inventory.choices import Platform


def returns_to(row: Deployment) -> tuple[Deployment | None, str]:
    """What a rollback of this deployment would bring back, or why it cannot be undone now."""
    try:
        target = services.rollback_target(row)
    except Conflict as conflict:
        return None, str(conflict)
    if row.workload.change_lock is not None:
        return None, inventory.lock_text(row.workload)
    return target, ""


def roll_back(page: ModelAdmin, request: HttpRequest, row: Deployment) -> HttpResponse:
    """Bring back what ran before."""
    require(request, "deployments.rollback_deployment")
    target, refusal = returns_to(row)
    question = Question(
        title=f"Roll back {row.version} of {row.workload}",
        lead="A new deployment record is made, and the workload's platform is asked to bring the former version "
        "back. Nobody else can change the workload meanwhile. Deploying the undone version again needs an override.",
        facts=(
            ("Undone", f"{row.pk} ({row.version})"),
            ("Returns to", f"{target.pk} ({target.version})" if target else "-"),
            ("Platform", row.workload.get_platform_display()),
        ),
        warnings=_by_hand(row, target),
        form=ReasonForm(posted(request)),
        submit="Roll back",
        danger=True,
        back=page_of(row),
        refusal=refusal,
    )

    def act(values: dict[str, Any]) -> tuple[str, str]:
        new = services.rollback(deployment=row, reason=values["reason"], actor=Actor.person(request.user))
        return f"{new} is queued.", page_of(new)

    return ask(request, page, question, act)


def _by_hand(row: Deployment, target: Deployment | None) -> tuple[str, ...]:
    """What a person has to know of a workload whose platform Pulsewatch cannot ask."""
    if target is None or row.workload.platform != Platform.ADVISORY:
        return ()
    text = f"This workload has no platform that Pulsewatch could ask: bring {target.version} back yourself. The record "
    return (text + "will end as failed and say so. Choose a platform on the workload's page to have it done.",)


def cancel(page: ModelAdmin, request: HttpRequest, row: Deployment) -> HttpResponse:
    """Withdraw one that waits."""
    require(request, "deployments.move_deployment")
    question = Question(
        title=f"Cancel {row.version} to {row.workload}",
        lead="It never begins, and the workload is free for others. CI is told so when it reports the next time.",
        facts=_facts(row),
        form=ReasonForm(posted(request)),
        submit="Cancel this deployment",
        danger=True,
        back=page_of(row),
        refusal="" if may_cancel(row) else "Only a deployment that waits can be cancelled.",
    )

    def act(values: dict[str, Any]) -> tuple[str, str]:
        services.cancel(deployment=row, actor=Actor.person(request.user), reason=values["reason"])
        return f"{row} is cancelled.", page_of(row)

    return ask(request, page, question, act)


def fail(page: ModelAdmin, request: HttpRequest, row: Deployment) -> HttpResponse:
    """Say in CI's place that it went wrong."""
    require(request, "deployments.move_deployment")
    question = Question(
        title=f"Declare {row.version} to {row.workload} failed",
        lead="For a deployment whose CI died, or that you have stopped by hand. It ends as failed and the workload is "
        "free for others. What runs is not touched: roll back afterwards if it has to be.",
        facts=_facts(row),
        form=ReasonForm(posted(request)),
        submit="Declare failed",
        danger=True,
        back=page_of(row),
        refusal="" if may_end(row) else "Only a deployment that is in progress can be declared failed.",
    )

    def act(values: dict[str, Any]) -> tuple[str, str]:
        services.fail(deployment=row, actor=Actor.person(request.user), error_message=values["reason"])
        return f"{row} is failed.", page_of(row)

    return ask(request, page, question, act)


def finish(page: ModelAdmin, request: HttpRequest, row: Deployment) -> HttpResponse:
    """Say in CI's place that it is out."""
    require(request, "deployments.move_deployment")
    question = Question(
        title=f"Start the gate of {row.version} to {row.workload}",
        lead="For a deployment that is out although CI has not said so. The gate looks at the instances and decides; "
        "when it fails and the workload asks for it, the former version is called back.",
        facts=(
            *_facts(row),
            ("Automatic rollback", "on" if row.workload.auto_rollback else "off"),
        ),
        submit="It is out: start the gate",
        back=page_of(row),
        refusal="" if may_start_gate(row) else "The gate starts once, for a deployment that is in progress.",
    )

    def act(_: dict[str, Any]) -> tuple[str, str]:
        services.finish(deployment=row, actor=Actor.person(request.user))
        return f"The gate of {row} looks.", page_of(row)

    return ask(request, page, question, act)


def tick(page: ModelAdmin, request: HttpRequest, row: Deployment) -> HttpResponse:
    """Settle a manual item in the person's name, or take that back."""
    require(request, "deployments.tick_deployment")
    if request.method != "POST":
        raise PermissionDenied
    key, done = request.POST.get("key", ""), request.POST.get("done") == "yes"
    note = request.POST.get("note", "")
    try:
        preparation.tick(deployment=row, key=key, done=done, actor=Actor.person(request.user), note=note)
    except (Invalid, Conflict) as error:
        messages.error(request, str(error))
    else:
        messages.success(request, f"{checklist.ITEMS[key].title}: {'ticked' if done else 'open again'}.")
    return HttpResponseRedirect(f"{page_of(row)}#checklist")


def may_cancel(row: Deployment) -> bool:
    """Whether it still waits."""
    return row.status == DeploymentStatus.QUEUED and row.kind == DeploymentKind.DEPLOYMENT and not row.observed


def may_end(row: Deployment) -> bool:
    """Whether somebody may say in CI's place how it went."""
    return row.status == DeploymentStatus.IN_PROGRESS and row.kind == DeploymentKind.DEPLOYMENT and not row.observed


def may_start_gate(row: Deployment) -> bool:
    """Whether CI could still say that it is out."""
    return may_end(row) and not Gate.objects.filter(pk=row.pk).exists()


def _facts(row: Deployment) -> tuple[tuple[str, str], ...]:
    return (
        ("Deployment", row.pk),
        ("Started by", row.triggered_by),
        ("Since", moment(row.started_at)),
    )
