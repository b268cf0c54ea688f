"""States of deployments in words: badges, what is unusual, what waits for whom, what to do next."""

from datetime import UTC, datetime, timedelta

import pytest

from apps.deployments import display
from apps.deployments.models import Deployment, Gate
from apps.inventory.models import Workload

pytestmark = pytest.mark.django_db

NOW = datetime(2026, 3, 31, 3, 0, tzinfo=UTC)


def deployment(**facts: object) -> Deployment:
    began = NOW - timedelta(minutes=5)
    told = {"started_at": began, "created_at": began, "open_until": NOW, "triggered_by": "mario", "version": "v1.0.0"}
    return Deployment(id="deploy_1", workload=Workload(platform="webhook"), **{**told, **facts})


def seen(instance: str, samples: int, last: str) -> dict[str, object]:
    return {"instance": instance, "samples": samples, "last_status": last}


@pytest.mark.parametrize(
    ("instances", "words"),
    [
        ([], ["Register the workload's instances"]),
        ([seen("web-1", 0, "unknown")], ["web-1 gave no sample"]),
        ([seen("web-1", 0, "unknown"), seen("web-2", 0, "unknown")], ["web-1 and 1 more gave no sample"]),
        ([seen("web-1", 2, "healthy"), seen("web-2", 0, "unknown")], ["web-2 gave no sample", "web-1 was healthy"]),
        ([seen("web-1", 4, "degraded")], ["web-1 was already degraded before"]),
    ],
)
def test_after_a_gate_that_could_not_decide_each_gap_has_its_next_step(instances, words):
    steps = display.next_steps(Gate(evidence={"instances": instances}))

    assert [any(word in step for step in steps) for word in words] == [True] * len(words)
    assert len(steps) == len(words) + bool(instances)


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"status": "queued"}, "Waits for CI to begin"),
        ({"status": "in_progress"}, "mario brings it out"),
        ({"status": "queued", "kind": "rollback"}, "No worker of queue “fast” has taken it for 5 min"),
        ({"status": "in_progress", "kind": "rollback"}, "Asking the platform (Webhook)"),
    ],
)
def test_what_is_open_says_for_whom_it_waits(facts, words):
    shown = display.progress(deployment(**facts), NOW)

    assert shown is not None
    assert words in f"{shown.headline} {shown.warning}"
    assert shown.percent is None


def test_what_has_ended_shows_no_progress():
    assert display.progress(deployment(status="failed"), NOW) is None


def test_what_is_unusual_is_named_and_the_ordinary_is_not():
    odd = deployment(
        status="completed", kind="rollback", undoes_id="deploy_0", rolled_back_by_id="deploy_2", observed=True,
        conflict="It had ended.", override_reason="a hurry", archived=True,
    )  # fmt: skip

    found = [text for text, _, _ in display.remarks(odd)]

    assert found == ["rollback", "rolled back", "reported by webhook", "conflict", "overridden", "archived"]
    assert display.status_label(odd)[1] == ""  # undone: no longer a success
    assert display.remarks(deployment(status="completed")) == []
    assert display.verdict_label(deployment(status="completed")) is None
