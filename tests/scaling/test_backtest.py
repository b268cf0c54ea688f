"""Replays of what was recorded: equal to what was decided, and comparable with what is tried."""

import json
import re
from datetime import timedelta
from io import StringIO

import pytest
import time_machine
from django.core.management import CommandError, handle_default_options

from apps.core.errors import Conflict, Invalid
from apps.scaling import backtest, runner
from apps.scaling.management.commands.scaling import Command
from apps.scaling.models import ScalingDecision, ScalingEvent, ScalingPolicy
from tests.factories import WorkloadFactory
from tests.scaling.conftest import BOUNDARY, NOW, minutes, policy_for, workload_of

pytestmark = pytest.mark.django_db
LEVELS = (60, 60, 95, 95, 95, 70, 20, 10, 10, 5, 5, 5, 90, 90)  # CPU of each window of five minutes


@pytest.fixture
def lived(policy, twin) -> ScalingPolicy:
    """A policy that ran for an hour and ten minutes on a platform that did what it was told."""
    workload = workload_of(policy)
    minutes(workload, 60, length=10)
    for number, level in enumerate(LEVELS):
        end = BOUNDARY + timedelta(minutes=5 * (number + 1))
        shared = min(100.0, level * 2 / twin.desired)
        minutes(workload, shared, 10, count=twin.desired, until=end, length=5)
        with time_machine.travel(end + timedelta(seconds=20), tick=False):
            runner.tick(end + timedelta(seconds=20))
            for event in ScalingEvent.objects.unsettled():
                runner.act(event.pk, now=end + timedelta(seconds=20))
    return policy


END = BOUNDARY + timedelta(minutes=5 * len(LEVELS), seconds=30)


def test_decisions_made_live_equal_the_replay_of_the_same_minutes(lived):
    found = backtest.backtest(policy=lived, days=1, now=END)

    decided = ScalingDecision.objects.order_by("boundary")
    replayed = {backtest.moment(one.at): one for one in found.present.decisions}
    assert {one.action for one in decided} == {"hold", "scale_up", "scale_down"}
    for one in decided:
        again = replayed[one.boundary]
        assert (one.action, one.instances_before, one.instances_after, one.reason) == (
            again.action, again.before, again.after, again.reason,
        )  # fmt: skip
    assert found.difference is None


def test_another_threshold_is_compared_with_the_policy_in_force(lived):
    tried = backtest.changed(lived, {"scale_down_threshold": 0.02})
    found = backtest.backtest(policy=tried, days=1, now=END)
    # No decision uses the targets, so they need not lie between thresholds that are only tried.
    backtest.backtest(policy=backtest.changed(lived, {"scale_up_threshold": 0.7}), days=1, now=END)

    assert {one.action for one in found.tried.actions} == {"scale_up"}
    assert found.difference[1].action == "scale_down"
    assert found.tried.figures.instance_hours > found.present.figures.instance_hours
    assert ScalingPolicy.objects.get(pk=lived.pk).scale_down_threshold == 0.4


@pytest.mark.parametrize(
    ("settings_", "days", "field"),
    [
        ({"scale_up_threshold": 0.3}, 1, "scale_down_threshold"),
        ({"scale_up_threshold": 1.7}, 1, "scale_up_threshold"),
        ({"min_instances": 9}, 1, "max_instances"),
        ({"evaluation_period_seconds": 90}, 1, "evaluation_period_seconds"),
        ({"metrics": "disk"}, 1, "metrics"),
        ({"colour": "red"}, 1, "colour"),
        ({}, 0, "days"),
        ({}, 91, "days"),
    ],
)
def test_what_cannot_be_is_named(policy, settings_, days, field):
    with pytest.raises(Invalid) as caught:
        backtest.backtest(policy=backtest.changed(policy, settings_), days=days, now=END)
    assert caught.value.field == field


def test_without_a_workload_or_its_minutes_there_is_nothing_to_replay(db):
    with pytest.raises(Conflict, match="There is no workload app/production yet"):
        backtest.backtest(policy=ScalingPolicy.objects.get(pk="policy_production"), days=1, now=NOW)
    with pytest.raises(Conflict, match="have to report CPU or memory"):
        backtest.backtest(policy=policy_for(WorkloadFactory(environment="staging")), days=1, now=NOW)


def test_a_web_process_takes_on_so_much_and_one_at_a_time(lived):
    hurried = backtest.changed(lived, {"evaluation_period_seconds": 60})
    with pytest.raises(Invalid, match=r"give up to 57, or run `python manage.py scaling backtest policy_") as caught:
        backtest.for_the_web(policy=hurried, days=90, now=END)
    assert caught.value.field == "days"
    with backtest._running, pytest.raises(Conflict, match="Another backtest is running"):
        backtest.for_the_web(policy=hurried, days=1, now=END)
    # What was refused, and what failed, keeps nobody from the next one.
    with pytest.raises(Invalid, match="Give 1 to 90 days"):
        backtest.for_the_web(policy=hurried, days=91, now=END)
    assert backtest.for_the_web(policy=hurried, days=1, now=END).minutes == 80


def told(*arguments: str) -> str:
    """What the command prints. By way of Django's own options, among which none of ours may be taken for another."""
    command = Command(stdout=StringIO())
    options = command.create_parser("manage.py", "scaling").parse_args(arguments)
    handle_default_options(options)
    with time_machine.travel(END, tick=False):
        command.execute(**vars(options) | {"skip_checks": True})
    return command.stdout.getvalue()


def test_the_command_compares_and_its_json_has_every_action(lived):
    text = told("backtest", "shop/production", "--days", "1", "--set", "scale_down_threshold=0.02")
    assert "tried     present" in text
    assert "First difference at 2026-03-02" in text
    # Both are measured by the threshold in force, and each by its own.
    assert re.search(r"minutes above 80 % +\d+ +\d+\nminutes above their own +\d+ +\d+", text)
    found = json.loads(told("backtest", lived.pk, "--days", "1", "--set", "scale_up_threshold=0.5", "--json"))
    figures = found["figures"]
    assert figures["minutes_above_threshold"] < figures["minutes_above_own_threshold"]
    assert figures["minutes_above_threshold"] <= found["present"]["figures"]["minutes_above_threshold"]
    assert backtest.LOAD_MODEL in text

    found = json.loads(told("backtest", lived.pk, "--days", "1", "--json"))
    assert found["actions"] == found["present"]["actions"]
    assert found["actions"][0].keys() == {"at", "action", "from", "to", "reason"}
    assert found["first_difference"] is None


def test_the_command_shows_pauses_and_resumes(lived):
    assert "policy_shop_production  shop/production  enabled, 1 to 6 instances" in told("list")
    assert told("show", lived.pk, "--last", "3").count("UTC") == 3
    ScalingDecision.objects.filter(boundary=BOUNDARY + timedelta(minutes=5)).update(late_samples=True)
    assert told("show", lived.pk, "--last", "50").count("(late samples: a replay may differ)") == 1
    assert "changes nothing until 2026-03-02 15:10 UTC" in told(
        "pause", "shop/production", "--hours", "2", "--reason", "load test"
    )
    assert told("resume", lived.pk) == "shop/production goes on.\n"
    assert told("scale", "shop/production", "3", "--reason", "sale").splitlines()[1].startswith("scale_20260302_")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("show", "nope"), "There is no scaling policy nope; there are: policy_"),
        (("backtest", "production", "--set", "colour=red"), "write NAME=VALUE; known are: min_instances"),
        (("backtest", "production", "--set", "min_instances=many"), "that is no value for min_instances"),
        (("backtest", "production"), "There is no workload app/production yet"),
        (("scale", "nope/production", "3", "--reason", "x"), "There is no workload nope/production"),
        (("pause", "production", "--hours", "-1", "--reason", "x"), "within the next 30 days"),
        (("pause", "production", "--hours", "nan", "--reason", "x"), "within the next 30 days"),
        (("pause", "production", "--hours", "1e12", "--reason", "x"), "within the next 30 days"),
        (("pause", "production", "--hours", "1e8", "--reason", "x"), "within the next 30 days"),
        (("backtest", "production", "--set", "scale_up_threshold=nan"), "Give a share above 0 and up to 1"),
    ],
)
def test_wrong_words_on_the_command_line_are_one_sentence(db, arguments, message):
    with pytest.raises(CommandError, match=message):
        told(*arguments)
