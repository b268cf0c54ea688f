"""A platform that is slow, breaks off or lies, beats that come twice, and clocks that were wrong for a while."""

import threading
from datetime import timedelta

import pytest
import time_machine
from django.db import connection

from apps.inventory.platforms.base import Count, PlatformUnavailable
from apps.scaling import runner
from apps.scaling.models import ScalingDecision, ScalingEvent
from tests.factories import ServiceFactory, WorkloadFactory
from tests.scaling.conftest import BOUNDARY, NOW, Twin, minutes, policy_for, workload_of
from tests.scaling.test_runner import ticked

pytestmark = pytest.mark.django_db
A_YEAR = timedelta(days=365)


def test_a_change_whose_answer_was_lost_is_confirmed_by_what_the_platform_runs(policy, twin, monkeypatch):
    minutes(workload_of(policy), 90)
    order = twin.scale

    def lost(to: int, *, seen: Count) -> None:
        order(to, seen=seen)
        raise PlatformUnavailable("The platform in memory did not answer within 5 s.")

    monkeypatch.setattr(twin, "scale", lost)
    _, event = ticked()
    assert (event.success, event.error_message, twin.desired) == (True, None, 3)


def test_a_look_that_fails_while_a_change_is_confirmed_is_followed_by_another(policy, twin, monkeypatch):
    minutes(workload_of(policy), 90)
    looks, count = [], twin.count

    def now_and_then() -> Count:
        looks.append(len(looks))
        if len(looks) in (3, 4):  # the first for the decision, the second for the act
            raise PlatformUnavailable("The platform in memory does not answer: wait for it.")
        return count()

    monkeypatch.setattr(twin, "count", now_and_then)
    _, event = ticked()
    assert (event.success, len(looks)) == (True, 5)


def test_a_platform_that_falls_silent_after_it_accepted_is_told_of_in_its_words(policy, twin, monkeypatch):
    minutes(workload_of(policy), 90)
    order = twin.scale

    def then_silent(to: int, *, seen: Count) -> None:
        order(to, seen=seen)
        twin.down = True

    monkeypatch.setattr(twin, "scale", then_silent)
    with time_machine.travel(NOW):
        _, event = ticked()
    assert event.success is False
    assert event.error_message == (
        "The platform accepted 3, and then did not say how many run: The platform in memory does not answer: wait for "
        "it."
    )

    # It has done it all the same, which the next window finds out.
    twin.down = False
    later = NOW + timedelta(minutes=5)
    minutes(workload_of(policy), 60, count=3, until=BOUNDARY + timedelta(minutes=5), length=5)
    with time_machine.travel(later):
        ticked(later)
    late = ScalingEvent.objects.exclude(pk=event.pk).get()
    assert (late.triggered_by, late.instances_before, late.instances_after) == ("other", 2, 3)
    assert late.trigger_reason == f"{event.pk}, which counted as failed, changed the count from 2 to 3 after all"


@pytest.mark.parametrize("count", [-1, 10**10])
def test_a_count_that_cannot_be_holds_this_workload_and_no_other(policy, twin, count):
    minutes(workload_of(policy), 90)
    twin.desired = count
    calm = policy_for(WorkloadFactory(service=ServiceFactory(slug="calm"), environment="production"))
    minutes(workload_of(calm), 60)
    ticked()
    decision = ScalingDecision.objects.get(policy=policy)
    assert (decision.rule, decision.instances_before) == ("platform", 0)
    assert f"says that {count} instances run" in decision.reason
    assert ScalingDecision.objects.get(policy=calm).rule == "within"


def test_platforms_that_never_answer_do_not_keep_the_others_from_being_decided(policy, twin, monkeypatch):
    workload = workload_of(policy)
    minutes(workload, 60)
    silent = policy_for(WorkloadFactory(service=ServiceFactory(slug="a"), environment="production", platform="docker"))
    minutes(workload_of(silent), 60)
    ends = threading.Event()

    class Silent(Twin):
        def count(self) -> Count:
            ends.wait(20)
            return Count(2)

    monkeypatch.setattr(runner, "READ_SECONDS", 0.3)
    monkeypatch.setattr(runner, "scaler_of", lambda one: twin if one.pk == workload.pk else Silent())
    try:
        runner.tick(NOW)
        known = {one.policy_id: one for one in ScalingDecision.objects.all()}
    finally:
        ends.set()
    assert known[policy.pk].rule == "within"
    assert known[silent.pk].rule == "platform"
    assert "did not answer within 0.3 s" in known[silent.pk].reason


@pytest.mark.django_db(transaction=True)
@pytest.mark.engine
def test_two_beats_that_find_a_foreign_change_at_once_record_it_once(twin):
    policy = policy_for(
        WorkloadFactory(service=ServiceFactory(slug="shop"), platform="docker", environment="production")
    )
    minutes(workload_of(policy), 60, until=BOUNDARY + timedelta(minutes=5), length=15)
    ticked()
    twin.desired = 4
    together, count = threading.Barrier(3), twin.count
    later = NOW + timedelta(minutes=5)

    def both() -> Count:
        together.wait(10)
        return count()

    twin.count = both

    def evaluate() -> None:
        try:
            runner.evaluate_due(later, [])
        finally:
            connection.close()

    threads = [threading.Thread(target=evaluate) for _ in range(3)]
    with time_machine.travel(later, tick=False):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    event = ScalingEvent.objects.get()
    assert (event.instances_before, event.instances_after) == (2, 4)


def test_a_change_settled_while_the_platform_was_read_is_nobody_elses(policy, twin, monkeypatch):
    """What the platform said is older than what has been confirmed since."""
    workload = workload_of(policy)
    minutes(workload, 60, until=BOUNDARY + timedelta(minutes=5), length=15)
    ticked()
    later = NOW + timedelta(minutes=5)
    read = runner._note_foreign

    def meanwhile(asked, now, *, since) -> None:
        ScalingEvent.objects.create(
            id="scale_by_hand", service=workload.service, workload=workload, environment="production",
            timestamp=later, action="manual_scale", instances_before=2, instances_after=5, trigger_reason="sale",
            triggered_by="manual", success=True, settled_at=later + timedelta(seconds=1),
        )  # fmt: skip
        read(asked, now, since=since)

    monkeypatch.setattr(runner, "_note_foreign", meanwhile)
    with time_machine.travel(later, tick=False):
        runner.tick(later)
    assert ScalingEvent.objects.get().pk == "scale_by_hand"


def test_what_was_written_while_the_clock_was_a_year_ahead_holds_nobody_up(policy, twin):
    workload = workload_of(policy)
    minutes(workload, 90, until=BOUNDARY + A_YEAR)
    with time_machine.travel(NOW + A_YEAR, tick=False):
        ticked(NOW + A_YEAR)
    assert twin.desired == 3

    minutes(workload, 90, count=3)
    with time_machine.travel(NOW, tick=False):
        runner.tick(NOW)
    decision = ScalingDecision.objects.get(boundary=BOUNDARY)
    assert (decision.action, decision.instances_after) == ("scale_up", 4)

    # The worker that had it died while the clock was wrong.
    event = ScalingEvent.objects.unsettled().get()
    ScalingEvent.objects.filter(pk=event.pk).update(lease_until=NOW + A_YEAR + runner.LEASE, created_at=NOW + A_YEAR)
    assert runner.recover(ScalingEvent.objects.unsettled(), NOW) == 1
    assert runner.act(event.pk, now=NOW).success is True
    assert twin.desired == 4
