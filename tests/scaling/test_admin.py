"""Scaling in the console: told in plain words, changed by those who may, tried before it is put in force."""

from datetime import UTC, datetime, timedelta

import pytest
from django.contrib.admin.utils import quote
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from apps.console import roles
from apps.core.models import AuditEntry
from apps.inventory import services as inventory
from apps.scaling.models import ScalingDecision, ScalingEvent, ScalingPolicy
from tests.api.test_builds import EVIL
from tests.factories import ServiceFactory, UserFactory, WorkloadFactory
from tests.scaling.conftest import minutes, policy_for, workload_of

pytestmark = pytest.mark.django_db

LISTS = ("scalingpolicy", "scalingdecision", "scalingevent")
VERBS = ("change_settings", "pause", "resume", "scale")


@pytest.fixture(autouse=True)
def groups(db) -> None:
    roles.ensure_groups()


@pytest.fixture
def operator(client):
    client.force_login(UserFactory(group="operator", username="otto"))
    return client


@pytest.fixture
def viewer(client):
    client.force_login(UserFactory(group="viewer", username="vera"))
    return client


@pytest.fixture
def viewer_too():
    other = Client()
    other.force_login(UserFactory(group="viewer", username="vera"))
    return other


def page(name: str, row: ScalingPolicy | ScalingDecision | ScalingEvent) -> str:
    return reverse(f"admin:scaling_{row._meta.model_name}_{name}", args=[quote(row.pk)])


def text_of(client, url: str, **query: object) -> str:
    reply = client.get(url, query)
    assert reply.status_code == 200
    return reply.content.decode()


def settings_of(policy: ScalingPolicy, **others: object) -> dict[str, object]:
    """What the form holds when nothing was changed."""
    names = (
        *("min_instances", "max_instances", "scale_up_threshold", "scale_down_threshold", "metrics"),
        *("scale_up_cooldown_seconds", "scale_down_cooldown_seconds", "evaluation_period_seconds"),
        *("datapoints_to_trigger", "target_cpu_percent", "target_memory_percent"),
    )
    return {name: getattr(policy, name) for name in names} | {"enabled": "on"} | others


def decided(policy: ScalingPolicy, count: int) -> None:
    now = timezone.now().replace(second=0, microsecond=0)
    figures = {"start": "2026-03-02T11:55:00Z", "reported": 2, "expected": 3,
               "cpu": {"measured": None, "up": 40.0, "down": 71.0}}  # fmt: skip
    ScalingDecision.objects.bulk_create(
        ScalingDecision(
            policy=policy, boundary=now - timedelta(minutes=5 * number), evaluated_at=now,
            action="scale_up" if number == 3 else "hold", rule="within", reason=f"held: CPU 71 % {EVIL}",
            instances_before=2, instances_after=3 if number == 3 else 2, figures=[figures], late_samples=number == 2,
        )
        for number in range(count)
    )  # fmt: skip


def changed(policy: ScalingPolicy, count: int, **others: object) -> None:
    now = timezone.now()
    given = {"success": True, "settled_at": now, "triggered_by": "autoscaler", "action": "scale_up"} | others
    ScalingEvent.objects.bulk_create(
        ScalingEvent(
            id=f"scale_{policy.pk}_{number}", service=policy.service, workload=workload_of(policy),
            environment=policy.environment, timestamp=now - timedelta(minutes=7 * number), instances_before=2,
            instances_after=3, trigger_reason=f"CPU 91 % {EVIL}", **given,
        )
        for number in range(count)
    )  # fmt: skip


def test_a_policy_tells_what_it_decided_and_draws_its_day_and_escapes_what_others_wrote(operator, policy, twin):
    minutes(workload_of(policy), 71, until=timezone.now().replace(second=0, microsecond=0), length=300)
    decided(policy, 5)
    changed(policy, 2)
    changed(policy_for(WorkloadFactory(environment="staging")), 1, success=False, error_message=EVIL)

    told = text_of(operator, page("change", policy))
    for words in ("held: CPU 71 %", "2 → 3", "scales", "up above 80 %", "target CPU 70 %", "maximum 6", "scaled up",
                  "CPU or memory above 80 % in 2 windows", "Try other settings", "Scale by hand"):  # fmt: skip
        assert words in told
    pages = [page("change", row) for row in (*ScalingDecision.objects.all()[:3], *ScalingEvent.objects.all())]
    lists = [reverse(f"admin:scaling_{name}_changelist") for name in LISTS]
    shown = [text_of(operator, url) for url in (*pages, *lists)]
    assert "<script>alert" not in told + "".join(shown)
    for words in ("2 of 3", "not measured", "71 %", "late samples", "the policy", "failed"):
        assert any(words in one for one in shown)


def test_neither_lists_nor_a_page_need_more_queries_for_more_rows(operator, policy, django_assert_max_num_queries):
    for number in range(12):
        other = policy_for(WorkloadFactory(service=ServiceFactory(), environment="staging"))
        decided(other, number)
        changed(other, number)
    minutes(workload_of(policy), 71, until=timezone.now().replace(second=0, microsecond=0), length=300)
    decided(policy, 20)
    changed(policy, 20)
    for name, most in zip(LISTS, (8, 10, 9), strict=True):
        operator.get(reverse(f"admin:scaling_{name}_changelist"))
        with django_assert_max_num_queries(most) as captured:
            operator.get(reverse(f"admin:scaling_{name}_changelist"))
        assert not [query for query in captured.captured_queries if "COUNT(" in query["sql"].upper()]
    with django_assert_max_num_queries(13):
        operator.get(page("change", policy))


@pytest.mark.parametrize(
    ("wrong", "field", "words"),
    [
        ({"scale_up_threshold": 0.3, "scale_down_threshold": 0.5}, "scale_down_threshold", "must lie below"),
        ({"scale_up_threshold": 80}, "scale_up_threshold", "a share above 0"),
        ({"min_instances": 7}, "max_instances", "must not be below the minimum of 7"),
        ({"min_instances": 0}, "min_instances", "at least one"),
        ({"evaluation_period_seconds": 90}, "evaluation_period_seconds", "whole minutes"),
        ({"evaluation_period_seconds": 0}, "evaluation_period_seconds", "whole minutes"),
        ({"target_cpu_percent": 85}, "target_cpu_percent", "between the thresholds"),
        ({"metrics": "disk"}, "metrics", "not one of the available choices"),
    ],
)
def test_a_wrong_setting_is_told_beside_its_field_and_changes_nothing(operator, policy, wrong, field, words):
    given = settings_of(policy, **wrong)
    replies = [
        operator.post(page("change_settings", policy), given),
        operator.post(
            reverse("admin:scaling_scalingpolicy_add"),
            {**given, "service": policy.service_id, "environment": "staging"},
        ),
    ]
    if not field.startswith("target"):  # no decision uses them, so a backtest does not ask
        replies.append(operator.get(page("backtest", policy), {**given, "days": 1}))
    for reply in replies:
        assert reply.status_code == 200
        assert words in str(reply.context["form"].errors[field])
    assert ScalingPolicy.objects.get(pk=policy.pk).updated_at == policy.updated_at
    assert ScalingPolicy.objects.count() == 3


def test_a_policy_is_added_changed_paused_and_resumed_under_a_name(operator, policy):
    given = settings_of(policy, service=policy.service_id, environment="staging")
    operator.post(reverse("admin:scaling_scalingpolicy_add"), given)
    again = operator.post(reverse("admin:scaling_scalingpolicy_add"), given)
    assert "already has a scaling policy" in again.content.decode()
    assert ScalingPolicy.objects.filter(pk="policy_shop_staging").exists()

    operator.post(page("change_settings", policy), settings_of(policy, max_instances=8))
    asked = text_of(operator, page("pause", policy))
    assert "changes nothing until the pause ends" in asked
    refused = operator.post(page("pause", policy), {"until": "4", "reason": " "})
    assert "reason" in refused.context["form"].errors
    operator.post(page("pause", policy), {"until": "4", "reason": f"sale {EVIL}"})
    policy.refresh_from_db()
    assert (policy.max_instances, policy.paused_by) == (8, "otto")
    assert abs(policy.paused_until - datetime.now(UTC) - timedelta(hours=4)) < timedelta(minutes=1)
    told = text_of(operator, page("change", policy))
    assert "Paused by otto for another" in told
    assert "<script>alert" not in told
    operator.post(page("resume", policy))
    policy.refresh_from_db()
    assert policy.paused_until is None
    assert "It is not paused." in text_of(operator, page("resume", policy))
    entries = AuditEntry.objects.filter(actor="otto", subject="scaling_policy:shop/production")
    assert {entry.action.rpartition(".")[2] for entry in entries} == {"update", "pause", "resume"}


def test_scaling_by_hand_asks_names_the_bounds_and_takes_the_lock(operator, policy, twin):
    workload = workload_of(policy)
    minutes(workload, 50, count=3)
    asked = text_of(operator, page("scale", policy))
    for words in ("1 to 6", "Docker", "The policy goes on", 'value="3"'):
        assert words in asked
    refused = operator.post(page("scale", policy), {"to": 7, "reason": "sale"})
    assert "Give a number from 1 to 6" in str(refused.context["form"].errors["to"])
    reply = operator.post(page("scale", policy), {"to": 5, "reason": "sale"}, follow=True)
    event = ScalingEvent.objects.get()
    assert (event.instances_after, event.triggered_by_user, event.trigger_reason) == (5, "otto", "sale")
    assert "under way" in reply.content.decode()
    assert event.pk in text_of(operator, page("scale", policy))  # who holds the lock, instead of a button
    assert operator.post(page("scale", policy), {"to": 4, "reason": "sale"}).status_code == 200
    assert ScalingEvent.objects.count() == 1
    inventory.free_lock(workload_id=workload.pk, holder=event.pk)


def test_a_workload_without_a_policy_is_scaled_by_hand_too(operator, viewer_too, twin):
    scaled = WorkloadFactory(service=ServiceFactory(slug="shop"), environment="development", platform="docker")
    advised = WorkloadFactory(service=ServiceFactory(slug="mail"), environment="development")
    minutes(scaled, 50, count=3)
    address = reverse("admin:scaling_scalingpolicy_scale_workload", args=[scaled.pk])

    listed = text_of(operator, reverse("admin:scaling_scalingpolicy_changelist"))
    assert "shop/development" in listed
    assert address in listed
    assert "mail/development" not in listed
    asked = text_of(operator, address)
    for words in ("1 to 1,000, for it has no policy", "Docker", 'value="3"'):
        assert words in asked
    assert "The policy goes on" not in asked
    refused = operator.post(address, {"to": 0, "reason": "sale"})
    assert refused.context["form"].errors["to"]
    reply = operator.post(address, {"to": 7, "reason": "sale"}, follow=True)
    event = ScalingEvent.objects.get()
    assert (event.instances_after, event.triggered_by_user, event.trigger_reason) == (7, "otto", "sale")
    assert "under way" in reply.content.decode()
    assert event.pk in text_of(operator, address)
    assert "scales nothing" in text_of(
        operator, reverse("admin:scaling_scalingpolicy_scale_workload", args=[advised.pk])
    )
    assert operator.get(reverse("admin:scaling_scalingpolicy_scale_workload", args=[10**6])).status_code == 404
    # Where there is a policy its bounds hold, whatever the address.
    policy_for(scaled_too := WorkloadFactory(environment="staging", platform="docker"), max_instances=4)
    other = reverse("admin:scaling_scalingpolicy_scale_workload", args=[scaled_too.pk])
    assert "1 to 4" in text_of(operator, other)
    assert other not in text_of(operator, reverse("admin:scaling_scalingpolicy_changelist"))
    assert viewer_too.get(address).status_code == 403
    assert viewer_too.post(address, {"to": 2, "reason": "x"}).status_code == 403
    assert address not in text_of(viewer_too, reverse("admin:scaling_scalingpolicy_changelist"))


def test_a_workload_that_nothing_scales_is_advised(operator):
    advised = policy_for(WorkloadFactory(service=ServiceFactory(slug="mail")))
    told = text_of(operator, page("change", advised))
    assert "This policy only advises" in told
    assert "No minute is recorded yet" in told
    assert "Scale by hand" not in told
    assert "scales nothing" in text_of(operator, page("scale", advised))
    lonely = ScalingPolicy.objects.get(pk="policy_production")
    assert "There is no workload app/production yet" in text_of(operator, page("change", lonely))
    assert "There is no workload" in text_of(operator, page("backtest", lonely), **settings_of(lonely, days=7))
    for name in LISTS[1:]:
        assert "yet" in text_of(operator, reverse(f"admin:scaling_{name}_changelist"))


def test_other_settings_are_tried_beside_those_in_force(viewer, policy):
    workload = workload_of(policy)
    end = timezone.now().replace(second=0, microsecond=0)
    minutes(workload, 75, until=end, length=120)
    before = text_of(viewer, page("backtest", policy))
    assert "What would have happened?" in before
    assert 'value="0.8"' in before

    same = text_of(viewer, page("backtest", policy), **settings_of(policy, days=1))
    assert "Both decide the same" in same
    assert "These are the settings in force." in same
    tried = settings_of(policy, days=1, scale_up_threshold=0.72)
    found = text_of(viewer, page("backtest", policy), **tried)
    for words in ("Scale-up threshold: 0.8 → <strong>0.72</strong>", "First difference", "2 → 3", "2: held",
                  "The total load is taken as recorded", "CPU 75 % for 10 minutes (threshold 72 %)"):  # fmt: skip
        assert words in found
    assert "Take these settings over" not in found  # a viewer may not
    assert ScalingPolicy.objects.get(pk=policy.pk).scale_up_threshold == 0.8
    viewer.force_login(UserFactory(group="operator", username="otto"))
    adopt = viewer.get(page("backtest", policy), tried).context["adopt"]
    assert 'value="0.72"' in text_of(viewer, adopt)


def test_viewers_look_and_change_nothing(viewer, policy):
    told = text_of(viewer, page("change", policy))
    assert "Change settings" not in told
    for name in VERBS:
        for send in (viewer.get, viewer.post):
            assert send(page(name, policy)).status_code == 403
    assert viewer.get(reverse("admin:scaling_scalingpolicy_add")).status_code == 403
    assert viewer.post(page("change", policy)).status_code == 403


def test_the_overview_shows_counts_bounds_and_changes(viewer, policy, twin):
    decided(policy, 5)
    changed(policy, 1)
    changed(policy_for(WorkloadFactory(environment="staging")), 1, success=False)
    ScalingPolicy.objects.filter(pk=policy.pk).update(
        paused_until=timezone.now() + timedelta(hours=1), paused_by="otto", paused_reason=EVIL
    )
    told = text_of(viewer, reverse("admin:index"))
    for words in ("data-scaling", "1 to 6", "paused until", "held: CPU 71 %", "nothing decided yet", "advises only",
                  "shop: 2 → 3 instances", "failed: 2 → 3 instances"):  # fmt: skip
        assert words in told
    assert "<script>alert" not in told
    assert "app/production" not in told  # no workload: nothing of the policies that are there from the start
