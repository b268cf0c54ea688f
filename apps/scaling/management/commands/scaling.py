"""`python manage.py scaling list|show|backtest|pause|resume|scale`: what policies decide, and what they would have."""

import argparse
import json
from datetime import timedelta
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from apps.core.audit import Actor
from apps.core.display import span
from apps.core.errors import Invalid, PulsewatchError
from apps.inventory.models import DEFAULT_SERVICE, Workload
from apps.scaling import backtest, services
from apps.scaling.choices import DecisionAction
from apps.scaling.models import ScalingPolicy
from apps.scaling.rules.policy import percent

SHOWN = 20  # actions of a backtest that are printed; --json has all of them
WHICH = "the policy's id (policy_production), an environment of service app, or service/environment"


class Command(BaseCommand):
    help = "Show scaling policies, try them on recorded history, pause them, or scale by hand."

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True, metavar="list|show|backtest|pause|resume|scale")
        verbs.add_parser("list", help="every policy with its newest decision")
        show = verbs.add_parser("show", help="one policy and its last decisions")
        show.add_argument("policy", help=WHICH)
        show.add_argument("--last", type=int, default=12, metavar="N", help="so many decisions (12)")
        tried = verbs.add_parser("backtest", help="replay a policy, or changed settings, on the recorded minutes")
        tried.add_argument("policy", help=WHICH)
        tried.add_argument(
            "--set",
            dest="pairs",  # not "settings": Django would take them for its own --settings
            action="append",
            default=[],
            metavar="NAME=VALUE",
            help="try another value, such as scale_up_threshold=0.7; may be repeated. Nothing is saved",
        )
        tried.add_argument("--days", type=int, default=30, help="how far back, up to 90 (30)")
        tried.add_argument("--json", action="store_true", help="print everything for programs")
        pause = verbs.add_parser("pause", help="let a policy change nothing for a while")
        pause.add_argument("policy", help=WHICH)
        pause.add_argument("--hours", type=float, default=4.0, help="it goes on by itself afterwards (4)")
        pause.add_argument("--reason", required=True, help="why; it is shown wherever the policy is")
        resume = verbs.add_parser("resume", help="end a pause now")
        resume.add_argument("policy", help=WHICH)
        scale = verbs.add_parser("scale", help="ask for a number of instances by hand")
        scale.add_argument("workload", help="service/environment, such as app/production")
        scale.add_argument("to", type=int, help="how many instances")
        scale.add_argument("--reason", required=True, help="why; it stands in the history")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            getattr(self, f"_{options['verb']}")(argparse.Namespace(**options))
        except Invalid as error:
            raise CommandError(f"{error.field}: {error}" if error.field else str(error)) from error
        except PulsewatchError as error:
            raise CommandError(str(error)) from error

    def _list(self, given: argparse.Namespace) -> None:
        for policy in ScalingPolicy.objects.select_related("service"):
            newest = policy.decisions.order_by("-boundary").first()
            state = "enabled" if policy.enabled else "off"
            said = f"{newest.boundary:%Y-%m-%d %H:%M} UTC  {newest.reason}" if newest else "nothing decided yet"
            bounds = f"{policy.min_instances} to {policy.max_instances}"
            self.stdout.write(f"{policy.pk}  {policy}  {state}, {bounds} instances  {said}")

    def _show(self, given: argparse.Namespace) -> None:
        policy = _policy(given.policy)
        self.stdout.write(f"{policy.pk}: {policy}, {policy.min_instances} to {policy.max_instances} instances")
        for one in policy.decisions.order_by("-boundary")[: max(1, given.last)]:
            change = "" if one.action == DecisionAction.HOLD else f"{one.instances_before} → {one.instances_after}  "
            late = " (late samples: a replay may differ)" if one.late_samples else ""
            self.stdout.write(f"{one.boundary:%Y-%m-%d %H:%M} UTC  {change}{one.reason}{late}")

    def _backtest(self, given: argparse.Namespace) -> None:
        policy = backtest.changed(_policy(given.policy), _settings(given.pairs))
        found = backtest.backtest(policy=policy, days=given.days, now=timezone.now())
        if given.json:
            self.stdout.write(json.dumps(backtest.as_json(found), indent=2))
            return
        self.stdout.write(
            f"{policy} from {found.start:%Y-%m-%d %H:%M} to {found.end:%Y-%m-%d %H:%M} UTC "
            f"({span(found.end - found.start)})\n"
            f"{backtest.LOAD_MODEL}\n\n{'':<26}{'tried':>12}{'present':>12}"
        )
        for label, one, other in _compared(found):
            self.stdout.write(f"{label:<26}{one:>12}{other:>12}")
        self.stdout.write("")
        if found.difference is None:
            self.stdout.write("Both decide the same at every boundary they share.")
        else:
            one, other = found.difference
            at = backtest.moment(one.at)
            self.stdout.write(f"First difference at {at:%Y-%m-%d %H:%M} UTC:")
            self.stdout.write(f"  tried    {one.before} → {one.after}  {one.reason}")
            self.stdout.write(f"  present  {other.before} → {other.after}  {other.reason}")
        self.stdout.write("")
        for action in found.tried.actions[:SHOWN]:
            at = backtest.moment(action.at)
            self.stdout.write(f"{at:%Y-%m-%d %H:%M} UTC  {action.before} → {action.after}  {action.reason}")
        if (more := len(found.tried.actions) - SHOWN) > 0:
            self.stdout.write(f"… and {more} more; --json has all of them")

    def _pause(self, given: argparse.Namespace) -> None:
        try:
            until = timezone.now() + timedelta(hours=given.hours)
        except (ValueError, OverflowError) as error:
            raise Invalid("Give a number of hours that ends within the next 30 days.", field="hours") from error
        policy = services.pause(policy=_policy(given.policy), until=until, reason=given.reason, actor=_actor())
        self.stdout.write(f"{policy} changes nothing until {until:%Y-%m-%d %H:%M} UTC.")

    def _resume(self, given: argparse.Namespace) -> None:
        self.stdout.write(f"{services.resume(policy=_policy(given.policy), actor=_actor())} goes on.")

    def _scale(self, given: argparse.Namespace) -> None:
        service, _, environment = given.workload.rpartition("/")
        row = Workload.objects.select_related("service").filter(
            service__slug=service or DEFAULT_SERVICE, environment=environment
        )
        workload = row.first()
        if workload is None:
            raise CommandError(f"There is no workload {given.workload}: `workload list` names them.")
        event = services.scale_by_hand(workload=workload, to=given.to, reason=given.reason, actor=_actor())
        self.stdout.write(f"{workload} is to have {given.to} instances; a worker sees to it.")
        self.stdout.write(event.pk)


def _actor() -> Actor:
    return Actor.automation("command line")


def _policy(name: str) -> ScalingPolicy:
    """Raises Invalid, naming what there is."""
    service, _, environment = name.rpartition("/")
    rows = ScalingPolicy.objects.select_related("service")
    found = rows.filter(pk=name).first()
    found = found or rows.filter(service__slug=service or DEFAULT_SERVICE, environment=environment).first()
    if found is None:
        known = ", ".join(rows.values_list("pk", flat=True)[:10]) or "none"
        raise Invalid(f"There is no scaling policy {name[:80]}; there are: {known}.")
    return found


def _settings(pairs: list[str]) -> dict[str, Any]:
    """`name=value` pairs as values of the policy's columns. Raises Invalid for one that is none."""
    found: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or name not in backtest.SETTABLE:
            raise Invalid(f"--set {pair[:60]}: write NAME=VALUE; known are: {', '.join(backtest.SETTABLE)}.")
        try:
            found[name] = ScalingPolicy._meta.get_field(name).to_python(text)
        except ValidationError as error:
            raise Invalid(f"--set {pair[:60]}: that is no value for {name}.") from error
    return found


def _compared(found: backtest.Backtest) -> list[tuple[str, str, str]]:
    one, other, threshold = found.tried.figures, found.present.figures, percent(found.threshold)
    return [
        ("actions", f"{one.actions}", f"{other.actions}"),
        ("instance-hours", f"{one.instance_hours:,.1f}", f"{other.instance_hours:,.1f}"),
        (f"minutes above {threshold}", f"{one.minutes_above_threshold:,}", f"{other.minutes_above_threshold:,}"),
        (
            "minutes above their own",
            f"{one.minutes_above_own_threshold:,}",
            f"{other.minutes_above_own_threshold:,}",
        ),
        ("actions undone in 30 min", f"{one.thrash_count}", f"{other.thrash_count}"),
    ]
