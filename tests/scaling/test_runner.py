"""Evaluating and acting: once for each window, and whatever dies or misbehaves in between is settled."""

import threading
from datetime import UTC, datetime, timedelta

import pytest
import time_machine
from django.db import connection

from apps.core import services as core
from apps.core.errors import Conflict, Invalid
from apps.health.models import UtilisationMinute
from apps.inventory import services as inventory
from apps.scaling import records, runner, services
from apps.scaling.models import ScalingDecision, ScalingEvent, ScalingPolicy
from tests.factories import ServiceFactory, WorkloadFactory
from tests.scaling.conftest import BOUNDARY, ME, NOW, minutes, policy_for, workload_of

pytestmark = pytest.mark.django_db


def ticked(now=NOW):
    """The decision of one tick, and the event it led to after a worker was at it."""
    runner.tick(now)
    for event in ScalingEvent.objects.unsettled():
        runner.act(event.pk, now=now)
    return ScalingDecision.objects.order_by("-boundary").first(), ScalingEvent.objects.newest_first().first()


def test_a_busy_workload_gets_an_instance_with_a_reason_that_carries_the_figures(policy, twin):
    minutes(workload_of(policy), 82.3, 68.5)

    decision, event = ticked()

    assert (decision.action, decision.instances_before, decision.instances_after) == ("scale_up", 2, 3)
    assert (decision.boundary, decision.evaluated_at) == (BOUNDARY, NOW)
    assert decision.reason == "CPU 82.3 % for 10 minutes (threshold 80 %)"
    assert decision.figures[-1]["cpu"] == {"measured": 82.3, "up": 82.3, "down": 82.3}
    assert (event.action, event.instances_before, event.instances_after, event.success) == ("scale_up", 2, 3, True)
    assert (event.timestamp, event.triggered_by, event.trigger_reason) == (BOUNDARY, "autoscaler", decision.reason)
    assert (event.cpu_percent_avg, event.memory_percent_avg) == pytest.approx((82.3, 68.5))
    assert twin.asked == [3]
    assert workload_of(policy).change_lock is None
    assert UtilisationMinute.objects.get(minute=BOUNDARY - timedelta(minutes=1)).units == 2


def test_an_idle_one_loses_an_instance_and_rests_through_the_cooldown(policy, twin):
    minutes(workload_of(policy), 10, 10)
    decision, _ = ticked()
    assert (decision.action, twin.desired) == ("scale_down", 1)

    later = NOW + timedelta(minutes=5)
    minutes(workload_of(policy), 95, 10, count=1, until=BOUNDARY + timedelta(minutes=5), length=5)
    decision, _ = ticked(later)
    assert (decision.action, decision.rule) == ("hold", "waiting")


def test_a_window_is_evaluated_once_whatever_beats_and_redeliveries_do(policy, twin):
    minutes(workload_of(policy), 90)
    for _ in range(3):
        ticked()
    assert ScalingDecision.objects.count() == 1
    assert twin.asked == [3]


@pytest.mark.django_db(transaction=True)
@pytest.mark.engine
def test_two_workers_that_evaluate_at_once_make_one_decision_and_one_change(twin):
    policy = policy_for(
        WorkloadFactory(service=ServiceFactory(slug="shop"), platform="docker", environment="production")
    )
    quiet = policy_for(
        WorkloadFactory(service=ServiceFactory(slug="calm"), platform="docker", environment="production")
    )
    minutes(workload_of(policy), 90)
    minutes(workload_of(quiet), 60)
    together, failed = threading.Barrier(4), []

    def evaluate() -> None:
        together.wait()
        try:
            runner.evaluate_due(NOW, [])
        except Exception as error:
            failed.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=evaluate) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert not failed
    assert ScalingDecision.objects.filter(policy=policy).count() == 1
    assert ScalingDecision.objects.filter(policy=quiet).count() == 1
    event = ScalingEvent.objects.get()
    changed = [threading.Thread(target=lambda: (runner.act(event.pk, now=NOW), connection.close())) for _ in range(3)]
    for thread in changed:
        thread.start()
    for thread in changed:
        thread.join()
    assert twin.asked == [3]


def test_a_worker_that_died_before_it_acted_is_taken_over(policy, twin):
    minutes(workload_of(policy), 90)
    runner.tick(NOW)
    event = ScalingEvent.objects.get()
    ScalingEvent.objects.update(lease_until=NOW + runner.LEASE)  # as if a worker had taken it and died

    assert runner.act(event.pk, now=NOW) is None
    assert runner.recover(ScalingEvent.objects.unsettled(), NOW + timedelta(seconds=30)) == 0
    assert runner.recover(ScalingEvent.objects.unsettled(), NOW + runner.LEASE) == 1
    assert runner.act(event.pk, now=NOW + runner.LEASE).success is True
    assert twin.asked == [3]


def test_a_worker_that_died_after_it_acted_is_found_out_by_reading_the_platform(policy, twin):
    minutes(workload_of(policy), 90)
    runner.tick(NOW)
    twin.desired = 3  # it was done, and nobody wrote it down

    event = runner.act(ScalingEvent.objects.get().pk, now=NOW)

    assert (event.success, twin.asked) == (True, [])
    assert workload_of(policy).change_lock is None


def test_a_lost_message_is_sent_again(policy, twin):
    minutes(workload_of(policy), 90)
    runner.tick(NOW)
    ScalingEvent.objects.update(created_at=NOW)
    assert runner.recover(ScalingEvent.objects.unsettled(), NOW + timedelta(seconds=60)) == 0
    assert runner.recover(ScalingEvent.objects.unsettled(), NOW + timedelta(minutes=2)) == 1


def test_a_platform_that_cannot_be_reached_holds_and_says_so(policy, twin):
    minutes(workload_of(policy), 90)
    twin.down = True

    decision, event = ticked()

    assert (decision.action, decision.rule, event) == ("hold", "platform", None)
    assert "does not answer" in decision.reason


def test_a_platform_that_fails_while_it_acts_is_an_event_and_the_next_window_tries_again(policy, twin):
    minutes(workload_of(policy), 90)

    def fail() -> None:
        twin.down = True

    twin.before_scaling = fail
    _, event = ticked()
    assert (event.success, twin.desired) == (False, 2)
    assert "does not answer" in event.error_message
    assert workload_of(policy).change_lock is None

    twin.down, twin.before_scaling = False, lambda: None
    later = NOW + timedelta(minutes=5)
    minutes(workload_of(policy), 90, until=BOUNDARY + timedelta(minutes=5), length=5)
    ticked(NOW + timedelta(seconds=30))
    assert ScalingEvent.objects.count() == 1  # no storm within the window
    decision, event = ticked(later)
    assert (decision.action, event.success, twin.desired) == ("scale_up", True, 3)  # failures start no cooldown


def test_a_platform_that_answers_something_else_than_asked_is_not_believed(policy, twin):
    minutes(workload_of(policy), 90)
    twin.follows = False
    _, event = ticked()
    assert event.success is False
    assert event.error_message == "The platform accepted 3 and runs 2 after 0.2 s."


def test_a_count_that_somebody_moved_meanwhile_is_left_alone(policy, twin):
    minutes(workload_of(policy), 90)
    runner.tick(NOW)
    twin.desired = 5
    event = runner.act(ScalingEvent.objects.get().pk, now=NOW)
    assert (event.success, twin.asked) == (False, [])
    assert "from 2 to 5 meanwhile" in event.error_message


@pytest.mark.parametrize(
    ("lock", "trigger", "who"),
    [("", "other", "somebody outside Pulsewatch"), ("deploy_1", "deployment", "deploy_1 (ana)")],
)
def test_a_count_moved_by_somebody_else_is_recorded_once(policy, twin, lock, trigger, who):
    workload = workload_of(policy)
    minutes(workload, 60, until=BOUNDARY + timedelta(minutes=10), length=20)
    ticked()
    assert not ScalingEvent.objects.exists()
    twin.desired = 4
    if lock:
        inventory.take_lock(workload=workload, holder=lock, by="ana", now=NOW)
    with time_machine.travel(NOW + timedelta(minutes=5)):
        ticked(NOW + timedelta(minutes=5))
    with time_machine.travel(NOW + timedelta(minutes=10)):
        ticked(NOW + timedelta(minutes=10))

    event = ScalingEvent.objects.get()
    assert (event.triggered_by, event.success, event.instances_before, event.instances_after) == (trigger, True, 2, 4)
    assert event.trigger_reason == f"{who} changed the count from 2 to 4"


@pytest.mark.parametrize(("count", "to"), [(0, 1), (9, 6)])
def test_a_count_outside_the_bounds_is_brought_inside_at_once(policy, twin, count, to):
    minutes(workload_of(policy), 60)
    twin.desired = count
    decision, event = ticked()
    assert (decision.instances_after, event.success, twin.desired) == (to, True, to)


def test_a_deployment_in_progress_holds_whatever_the_count(policy, twin):
    workload = workload_of(policy)
    minutes(workload, 90)
    twin.desired = 9
    inventory.take_lock(workload=workload, holder="deploy_1", by="ana", now=NOW)
    decision, event = ticked()
    assert (decision.action, event) == ("hold", None)
    assert decision.reason == "held: deploy_1 (ana) is changing it"


def test_the_stop_switch_and_a_pause_hold(policy, twin):
    minutes(workload_of(policy), 90)
    services.pause(policy=policy, until=datetime.now(UTC) + timedelta(days=1), reason="load test", actor=ME)
    ScalingPolicy.objects.update(paused_until=NOW + timedelta(hours=1))
    decision, _ = ticked()
    assert decision.reason == "held: paused by test until 2026-03-02 13:00 UTC: load test"

    ScalingDecision.objects.all().delete()
    core.set_stop_switch(on=True, reason="incident", actor=ME)
    decision, _ = ticked()
    assert (decision.reason, twin.asked) == ("held: the stop switch is on", [])


@pytest.mark.parametrize("how", ["stop switch", "paused", "off", "deleted"])
def test_what_forbids_a_change_is_heeded_between_the_decision_and_the_act_too(policy, twin, how):
    minutes(workload_of(policy), 90)
    runner.tick(NOW)
    if how == "stop switch":
        core.set_stop_switch(on=True, reason="incident", actor=ME)
    elif how == "paused":
        services.pause(policy=policy, until=datetime.now(UTC) + timedelta(days=1), reason="load test", actor=ME)
    elif how == "off":
        ScalingPolicy.objects.update(enabled=False)
    else:
        ScalingDecision.objects.all().delete()
        ScalingPolicy.objects.all().delete()

    event = runner.act(ScalingEvent.objects.get().pk, now=NOW)

    assert (event.success, twin.asked) == (False, [])
    said = {
        "stop switch": "The stop switch was turned on before the change was made.",
        "paused": "test paused the policy (load test) before the change was made.",
    }
    assert event.error_message == said.get(how, "The policy was switched off before the change was made.")
    assert workload_of(policy).change_lock is None


def test_a_pause_that_is_over_holds_nothing(policy, twin):
    minutes(workload_of(policy), 90)
    runner.tick(NOW)
    ScalingPolicy.objects.update(paused_until=NOW - timedelta(seconds=1), paused_by="ana", paused_reason="over")
    assert runner.act(ScalingEvent.objects.get().pk, now=NOW).success


def test_without_samples_nothing_is_decided(policy, twin):
    decision, event = ticked()
    assert (decision.action, decision.rule, event) == ("hold", "too_little_reported", None)


@pytest.mark.engine
def test_samples_that_come_late_change_no_stored_decision_and_mark_it(policy, twin):
    other = policy_for(WorkloadFactory(service=ServiceFactory(slug="calm"), environment="production"))
    minutes(workload_of(policy), 90, reported=0)
    minutes(workload_of(other), 60)
    ticked()
    first, calm = (ScalingDecision.objects.get(policy=one) for one in (policy, other))
    assert (first.samples, calm.samples, first.looked_from) == (0, 20, BOUNDARY - timedelta(minutes=10))

    ticked(NOW + timedelta(seconds=30))
    assert not ScalingDecision.objects.filter(late_samples=True).exists()
    late = UtilisationMinute.objects.filter(workload=workload_of(policy))
    late.update(reported=2, cpu_count=2, cpu_sum=180, memory_count=2, memory_sum=100, samples=2)
    ticked(NOW + timedelta(seconds=60))

    again = ScalingDecision.objects.get(late_samples=True)
    assert (again.pk, again.reason, again.rule) == (first.pk, first.reason, "too_little_reported")


def test_samples_that_come_hours_late_are_noticed_within_the_hour(policy, twin):
    minutes(workload_of(policy), 60)
    ticked()
    UtilisationMinute.objects.all().delete()  # as if they had been summed up wrong
    later = NOW + timedelta(hours=25)
    runner.tick(later)
    assert not ScalingDecision.objects.filter(late_samples=True).exists()
    assert runner.mark_late(later - runner.LATEST) == 1
    assert runner.mark_late(later - runner.LATEST) == 0


def test_an_advisory_workload_gets_advice_and_no_event(db):
    policy = policy_for(WorkloadFactory(service=ServiceFactory(slug="shop"), environment="production"))
    minutes(workload_of(policy), 90)
    decision, event = ticked()
    assert (decision.action, decision.instances_after, event) == ("scale_up", 3, None)


def test_two_hundred_policies_that_hold_take_as_many_statements_as_one(twin, django_assert_max_num_queries):
    for number in range(20):
        workload = WorkloadFactory(service=ServiceFactory(slug=f"s{number}"), environment="production")
        policy_for(workload)
        minutes(workload, 60)
    with django_assert_max_num_queries(10):
        runner.tick(NOW)
    assert ScalingDecision.objects.count() == 20


def test_scaling_by_hand_keeps_to_the_bounds_and_is_audited(policy, twin):
    workload = workload_of(policy)
    minutes(workload, 60)
    for to in (0, 7):
        with pytest.raises(Invalid, match="from 1 to 6"):
            services.scale_by_hand(workload=workload, to=to, reason="sale", actor=ME)
    with pytest.raises(Invalid, match="Say why"):
        services.scale_by_hand(workload=workload, to=4, reason=" ", actor=ME)

    event = services.scale_by_hand(workload=workload, to=4, reason="sale", actor=ME)
    with pytest.raises(Conflict, match="is being scaled to 4"):
        services.scale_by_hand(workload=workload, to=5, reason="sale", actor=ME)
    event = runner.act(event.pk, now=datetime.now(UTC))

    assert (event.action, event.triggered_by, event.triggered_by_user) == ("manual_scale", "manual", "test")
    assert (event.instances_before, event.instances_after, event.success, twin.desired) == (2, 4, True, 4)
    assert records.pasts([workload.pk], until=datetime.now(UTC))[workload.pk].last_up == int(
        event.timestamp.timestamp()
    )


def test_scaling_by_hand_waits_for_a_deployment(policy, twin):
    workload = workload_of(policy)
    inventory.take_lock(workload=workload, holder="deploy_1", by="ana", now=NOW)
    with pytest.raises(Conflict, match="is being changed by deploy_1"):
        services.scale_by_hand(workload=workload, to=4, reason="sale", actor=ME)
    assert not ScalingEvent.objects.exists()


def test_an_advisory_workload_is_not_scaled_by_hand(db):
    with pytest.raises(Conflict, match="its platform is Advisory"):
        services.scale_by_hand(workload=WorkloadFactory(), to=2, reason="sale", actor=ME)


def test_decisions_are_kept_for_seven_days_and_events_for_ninety(policy, twin):
    minutes(workload_of(policy), 90)
    ticked()
    runner.forget(NOW + timedelta(days=6))
    assert (ScalingDecision.objects.count(), ScalingEvent.objects.count()) == (1, 1)
    runner.forget(NOW + timedelta(days=8))
    assert (ScalingDecision.objects.count(), ScalingEvent.objects.count()) == (0, 1)
    core.set_stop_switch(on=True, reason="incident", actor=ME)
    runner.forget(NOW + timedelta(days=91))
    assert ScalingEvent.objects.count() == 1
    core.set_stop_switch(on=False, reason="over", actor=ME)
    runner.forget(NOW + timedelta(days=91))
    assert ScalingEvent.objects.count() == 0
