"""Deployments that others report, and those that both CI and others tell of."""

from datetime import timedelta

import pytest
from django.utils import timezone

from apps.core.errors import Conflict
from apps.deployments import observation, records, runner, services
from apps.deployments.figures import measured
from apps.deployments.models import Deployment
from tests.deployments.conftest import CI, COMMIT, started

pytestmark = pytest.mark.django_db


def observed(workload, status="in_progress", external_id="github:1", version="v1.0.0", **options):
    return observation.observe(
        **{
            "workload": workload,
            "external_id": external_id,
            "status": status,
            "version": version,
            "commit_sha": COMMIT,
            "actor": CI,
            **options,
        }
    )


def test_what_github_announces_and_ci_then_starts_is_one_deployment(workload):
    told = observed(workload, github_run_id="77")

    ours = started(workload, github_run_id="77")

    told.refresh_from_db()
    assert (told.status, told.error_message) == ("cancelled", f"It is {ours.pk}, which CI started here.")
    assert observed(workload, "completed").pk == ours.pk
    ours.refresh_from_db()
    assert ours.status == "in_progress"  # its own gate decides, not the report
    assert [row.pk for row in Deployment.objects.open()] == [ours.pk]


def test_of_two_announcements_the_one_of_the_same_commit_is_taken(workload):
    other = observed(workload, external_id="github:2", version="v3.0.0", commit_sha="f" * 40)
    told = observed(workload)

    started(workload, commit_sha=COMMIT[:9])

    other.refresh_from_db()
    told.refresh_from_db()
    assert (other.status, told.status) == ("in_progress", "cancelled")


def test_deployments_caught_up_on_late_stand_where_they_began(workload):
    """A reconcile brings an old deployment after a newer one; a rollback still returns to what ran before."""
    now = timezone.now()
    newest = observed(workload, "completed", "github:3", "v3.0.0", claimed_at=now - timedelta(hours=1))
    observed(workload, "completed", "github:1", "v1.0.0", claimed_at=now - timedelta(hours=3))
    middle = observed(workload, "completed", "github:2", "v2.0.0", claimed_at=now - timedelta(hours=2))

    assert services.rollback_target(newest) == middle
    with pytest.raises(Conflict, match="has been brought out since"):
        services.rollback_target(middle)
    workload.refresh_from_db()
    assert workload.current_deployment_id == newest.pk


@pytest.mark.parametrize(
    ("failed", "again"),
    [("v9.9.0", "9.9.0"), ("9.9.0", "v9.9.0"), (COMMIT, COMMIT[:7]), (COMMIT[:9], COMMIT)],
)
def test_a_version_that_failed_is_known_however_it_is_written(workload, failed, again):
    row = started(workload, failed)
    services.fail(deployment=row, actor=CI, error_message="out of disk")

    with pytest.raises(Conflict, match="failed on"):
        started(workload, again)

    good = started(workload, again, override_reason="the disk is larger now")
    records.forget_failure(good)
    records.end(good, status="completed", now=timezone.now(), text="told by the test")
    assert started(workload, failed).status == "in_progress"


@pytest.mark.parametrize(("status", "current", "remembered"), [("completed", True, False), ("failed", False, True)])
def test_the_true_end_told_late_takes_the_place_of_a_time_out(workload, status, current, remembered):
    row = observed(workload)
    late = timezone.now() + timedelta(hours=2)
    runner.tick(late)
    row.refresh_from_db()
    assert (row.status, row.timed_out) == ("failed", True)

    row = observed(workload, status, claimed_at=timezone.now())

    assert (row.status, row.timed_out, row.conflict) == (status, False, "")
    assert row.completed_at < late
    assert row.steps.filter(kind="ended", text__contains="only timed out").exists()
    assert (row.error_message is None) is current
    workload.refresh_from_db()
    assert (workload.current_deployment_id == row.pk) is current
    assert workload.failed_versions.filter(version=row.version).exists() is remembered
    [(_, figures)] = measured([workload], days=30, now=timezone.now())
    assert figures.change_failure_rate == (0 if current else 1)
    # What was told is no guess: a second end is a contradiction.
    assert observed(workload, "failed" if current else "completed").status == status
