"""What people may do about a policy in the console. Each asks first and says what will happen."""

from typing import Any

from django.contrib.admin import ModelAdmin
from django.contrib.admin.utils import quote
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.http import urlencode

from apps.core.audit import Actor
from apps.core.confirm import Question, ask, posted, require
from apps.core.display import moment, page_of
from apps.core.errors import Conflict, Invalid
from apps.inventory import services as inventory
from apps.inventory.models import Workload
from apps.scaling import backtest, display, drawing, history, records, services
from apps.scaling.forms import BacktestForm, NewPolicyForm, PauseForm, ScaleForm, SettingsForm
from apps.scaling.models import ScalingPolicy
from apps.scaling.rules.evaluation import Decision
from apps.scaling.rules.policy import percent
from apps.scaling.rules.replay import Figures

ACTIONS_SHOWN = 50  # of a backtest; the command line and the API have them all


def workload_of(policy: ScalingPolicy) -> Workload | None:
    """What the policy scales."""
    rows = Workload.objects.select_related("service")
    return rows.filter(service=policy.service_id, environment=policy.environment).first()


def add(page: ModelAdmin, request: HttpRequest) -> HttpResponse:
    """A policy for a service in an environment that has none."""
    require(request, "scaling.add_scalingpolicy")
    given: dict[str, Any] = {"initial": request.GET.dict()}
    question = Question(
        title="Add a scaling policy",
        lead="It is evaluated at the end of each window. Where the workload's platform can scale it acts, else it says "
        "what it would do.",
        form=NewPolicyForm(posted(request), **given),
        submit="Add",
        back=reverse("admin:scaling_scalingpolicy_changelist"),
    )

    def act(values: dict[str, Any]) -> tuple[str, str]:
        row = services.save_policy(ScalingPolicy(**values), actor=Actor.person(request.user))
        return f"The policy of {row} is there.", page_of(row)

    return ask(request, page, question, act)


def change(page: ModelAdmin, request: HttpRequest, row: ScalingPolicy) -> HttpResponse:
    """Other settings; a backtest hands them over in the address."""
    require(request, "scaling.change_scalingpolicy")
    # Of its own row: what the form finds wrong must not be shown as what is.
    form = SettingsForm(
        posted(request), instance=ScalingPolicy.objects.get(pk=row.pk), initial=_known(request, backtest.SETTABLE)
    )
    question = Question(
        title=f"Settings of {row}",
        lead="They hold from the next window on. “Try other settings” on the policy's page shows what they would have "
        "done in the past.",
        form=form,
        submit="Save",
        back=page_of(row),
    )

    def act(values: dict[str, Any]) -> tuple[str, str]:
        services.change_policy(policy=row, settings=values, actor=Actor.person(request.user))
        return f"{row} has these settings now.", page_of(row)

    return ask(request, page, question, act)


def _known(request: HttpRequest, names: tuple[str, ...]) -> dict[str, str]:
    return {name: request.GET[name] for name in names if name in request.GET}


def pause(page: ModelAdmin, request: HttpRequest, row: ScalingPolicy) -> HttpResponse:
    """Let it change nothing for a while."""
    require(request, "scaling.pause_scalingpolicy")
    now = timezone.now()
    question = Question(
        title=f"Pause the policy of {row}",
        lead="It changes nothing until the pause ends, whatever the load does. It goes on deciding and says that it "
        "held because of the pause. Scaling by hand stays possible.",
        facts=(("Paused until now", moment(row.paused_until)),) if display.is_paused(row, now) else (),
        form=PauseForm(posted(request)),
        submit="Pause",
        back=page_of(row),
    )

    def act(values: dict[str, Any]) -> tuple[str, str]:
        paused = services.pause(
            policy=row, until=now + values["until"], reason=values["reason"], actor=Actor.person(request.user)
        )
        return f"{row} changes nothing until {moment(paused.paused_until)}.", page_of(row)

    return ask(request, page, question, act)


def resume(page: ModelAdmin, request: HttpRequest, row: ScalingPolicy) -> HttpResponse:
    """End the pause."""
    require(request, "scaling.pause_scalingpolicy")
    paused = display.is_paused(row, timezone.now())
    question = Question(
        title=f"Resume the policy of {row}",
        lead="The next window may change the number of instances again.",
        facts=(("Paused until", moment(row.paused_until)), ("By", row.paused_by), ("Because", row.paused_reason)),
        submit="Resume",
        back=page_of(row),
        refusal="" if paused else "It is not paused.",
    )

    def act(_: dict[str, Any]) -> tuple[str, str]:
        services.resume(policy=row, actor=Actor.person(request.user))
        return f"{row} goes on.", page_of(row)

    return ask(request, page, question, act)


def scale(page: ModelAdmin, request: HttpRequest, row: ScalingPolicy) -> HttpResponse:
    """Ask for a number of instances of a policy's workload."""
    return _scale(page, request, str(row), workload_of(row), row, back=page_of(row))


def scale_workload(page: ModelAdmin, request: HttpRequest, workload: Workload) -> HttpResponse:
    """Ask for a number of instances, whether there is a policy or not."""
    policy = ScalingPolicy.objects.filter(service=workload.service_id, environment=workload.environment).first()
    return _scale(
        page, request, str(workload), workload, policy, back=reverse("admin:scaling_scalingpolicy_changelist")
    )


def _scale(
    page: ModelAdmin,
    request: HttpRequest,
    name: str,
    workload: Workload | None,
    policy: ScalingPolicy | None,
    *,
    back: str,
) -> HttpResponse:
    require(request, "scaling.scale")
    count = history.last_count(workload) if workload else 0
    goes_on = policy is not None and policy.enabled and not display.is_paused(policy, timezone.now())
    least, most = services.bounds(policy)
    question = Question(
        title=f"Scale {name} by hand",
        lead="A worker asks the platform and confirms what it says. Nobody else can change the workload meanwhile.",
        facts=(
            ("Ran in the newest minute", str(count) if count else "not known"),
            ("Bounds of the policy", f"{least} to {most}")
            if policy
            else ("Bounds", f"{least} to {most:,}, for it has no policy"),
            ("Platform", workload.get_platform_display() if workload else "-"),
        ),
        warnings=("The policy goes on: pause it first if the number has to stay.",) if goes_on else (),
        form=ScaleForm(posted(request), initial={"to": min(max(count, least), most)}),
        submit="Scale",
        danger=True,
        back=back,
        refusal=_cannot_scale(name, workload),
    )

    def act(values: dict[str, Any]) -> tuple[str, str]:
        assert workload is not None
        event = services.scale_by_hand(
            workload=workload, to=values["to"], reason=values["reason"], actor=Actor.person(request.user)
        )
        return f"{name} is to have {event.instances_after} instances; a worker sees to it.", page_of(event)

    return ask(request, page, question, act)


def _cannot_scale(name: str, workload: Workload | None) -> str:
    if workload is None:
        return f"There is no workload {name} yet."
    if not records.scales(workload):
        return (
            f"Platform {workload.get_platform_display()} scales nothing: change the count yourself, or set a platform "
            "that scales on the workload's page."
        )
    return inventory.lock_text(workload) if workload.change_lock else ""


def try_out(page: ModelAdmin, request: HttpRequest, row: ScalingPolicy) -> HttpResponse:
    """Other settings beside those in force, on the recorded minutes. Changes nothing, so the address may be shared."""
    instance = ScalingPolicy.objects.select_related("service").get(pk=row.pk)
    form = BacktestForm(request.GET if "days" in request.GET else None, instance=instance)
    found, refusal = None, ""
    if form.is_valid():
        try:
            found = backtest.for_the_web(policy=instance, days=form.cleaned_data["days"], now=timezone.now())
        except Invalid as error:
            form.add_error(error.field if error.field in form.fields else None, str(error))
        except Conflict as error:
            refusal = str(error)
    context = {
        **page.admin_site.each_context(request),
        "opts": page.opts,
        "original": row,
        "title": f"Try other settings of {row}",
        "form": form,
        "refusal": refusal,
        "back": page_of(row),
        "load_model": backtest.LOAD_MODEL,
        **(_shown(request, row, form, found) if found else {}),
    }
    return TemplateResponse(request, "admin/scaling/backtest.html", context)


def _shown(request: HttpRequest, row: ScalingPolicy, form: BacktestForm, found: backtest.Backtest) -> dict[str, Any]:
    changed = {name: request.GET[name] for name in backtest.SETTABLE if name in form.changed_data}
    address = reverse("admin:scaling_scalingpolicy_change_settings", args=[quote(row.pk)])
    actions = found.tried.actions
    return {
        "found": found,
        "span": f"{moment(found.start)} to {moment(found.end)}",
        "figures": _figures(found.tried.figures, found.present.figures, found.threshold),
        "drawing": drawing.of_backtest(found.tried, found.present, start=found.start, end=found.end),
        "difference": found.difference and {
            "at": moment(backtest.moment(found.difference[0].at)),
            "sides": [_line(one) for one in found.difference],
        },
        "acts": [_line(one) for one in actions[:ACTIONS_SHOWN]],
        "more": max(0, len(actions) - ACTIONS_SHOWN),
        "changed": [(form.fields[name].label, getattr(row, name), text) for name, text in changed.items()],
        "adopt": f"{address}?{urlencode(changed)}"
        if changed and request.user.has_perm("scaling.change_scalingpolicy")
        else "",
    }  # fmt: skip


def _line(one: Decision) -> dict[str, Any]:
    return {
        "at": moment(backtest.moment(one.at)),
        "change": f"{one.before} → {one.after}" if one.before != one.after else f"{one.before}",
        "reason": one.reason,
    }


def _figures(tried: Figures, present: Figures, threshold: float) -> list[tuple[str, str, str, str]]:
    """What it is, in force, tried, the difference."""
    lines = (
        ("Changes of the count", present.actions, tried.actions, "{:,}"),
        ("Instance-hours", present.instance_hours, tried.instance_hours, "{:,.1f}"),
        (f"Minutes above {percent(threshold)}, the scale-up threshold in force", present.minutes_above_threshold,
         tried.minutes_above_threshold, "{:,}"),
        ("Minutes above its own scale-up threshold", present.minutes_above_own_threshold,
         tried.minutes_above_own_threshold, "{:,}"),
        ("Minutes with figures", present.minutes_known, tried.minutes_known, "{:,}"),
        ("Changes undone within 30 minutes", present.thrash_count, tried.thrash_count, "{:,}"),
    )  # fmt: skip
    return [
        (name, form.format(one), form.format(other), _difference(other - one, form)) for name, one, other, form in lines
    ]


def _difference(by: float, form: str) -> str:
    text = form.format(abs(by))
    return "same" if not text.strip("0.,") else f"{'+' if by > 0 else '-'}{text}"
