"""Starting, finishing, cancelling, rolling back: what is allowed when, and who is told what."""

import threading
from datetime import timedelta

import pytest
import time_machine
from django.db import connection
from django.utils import timezone

from apps.builds.models import Build
from apps.core.errors import Conflict, Invalid
from apps.core.models import AuditEntry
from apps.deployments import observation, preparation, records, runner, services
from apps.deployments.models import ChecklistItem, Deployment, EnvironmentVariable, EnvironmentVariableRule
from apps.deployments.rules.variables import Report
from apps.inventory import services as inventory
from tests.deployments.conftest import CI, COMMIT, started
from tests.factories import BackupJobFactory, BuildFactory, DatabaseFactory

pytestmark = pytest.mark.django_db


def ended(workload, version: str = "v1.0.0", status: str = "completed") -> Deployment:
    """A deployment with its verdict, without a gate."""
    row = started(workload, version)
    records.end(row, status=status, now=timezone.now(), text="told by the test")
    row.refresh_from_db()
    return row


def test_a_deployment_takes_the_lock_and_a_second_one_is_told_who_holds_it(workload):
    first = started(workload)

    with pytest.raises(Conflict, match=rf"is being changed by {first.pk} \(ana\) since .* UTC") as caught:
        started(workload, "v1.0.1")

    assert caught.value.facts["held_by"] == first.pk
    assert Deployment.objects.get() == first
    services.fail(deployment=first, actor=CI, error_message="out of disk")
    assert started(workload, "v1.0.1").status == "in_progress"


@pytest.mark.django_db(transaction=True)
@pytest.mark.engine
def test_of_two_ci_jobs_at_once_one_starts(workload):
    won, refused, together = [], [], threading.Barrier(4)

    def start(number: int) -> None:
        together.wait()
        try:
            won.append(started(workload, f"v1.0.{number}").pk)
        except Conflict as conflict:
            refused.append(str(conflict))
        finally:
            connection.close()

    threads = [threading.Thread(target=start, args=[number]) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert (len(won), len(refused)) == (1, 3)
    assert [row.pk for row in Deployment.objects.all()] == won


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"version": "latest"}, "version"),
        ({"version": "v1.2"}, "version"),
        ({"commit_sha": "a1b2"}, "commit_sha"),
        ({"commit_sha": "g" * 40}, "commit_sha"),
        ({"status": "sideways"}, "status"),
        ({"status": "completed"}, "status"),
        ({"committed_at": timezone.now() + timedelta(days=1)}, "committed_at"),
        ({"deployment_url": "javascript:alert(1)"}, "deployment_url"),
        ({"instances_deployed": -1}, "instances_deployed"),
        ({"backup": True}, "backup"),
    ],
)
def test_wrong_input_stores_nothing_and_names_the_field(workload, change, field):
    with pytest.raises(Invalid) as caught:
        started(workload, **change)

    assert caught.value.field == field
    workload.refresh_from_db()
    assert (workload.change_lock, Deployment.objects.count()) == (None, 0)


def test_a_long_message_is_cut_and_a_secret_in_it_hidden(workload):
    row = started(workload, commit_message="password=open-sesame-123 " + "x" * 600)

    assert 400 < len(row.commit_message) <= 500
    assert "sesame" not in row.commit_message


def test_what_may_follow_is_named_when_something_else_is_reported(workload):
    row = started(workload, status="queued")

    with pytest.raises(Conflict, match="queued cannot become completed; it may become in_progress or cancelled") as no:
        services.finish(deployment=row, actor=CI)
    assert no.value.facts["legal"] == ["in_progress", "cancelled"]
    services.begin(deployment=row, actor=CI)
    services.finish(deployment=row, actor=CI)
    services.finish(deployment=row, actor=CI)  # twice changes nothing
    assert row.steps.filter(kind="gate_started").count() == 1
    services.fail(deployment=row, actor=CI)
    with pytest.raises(Conflict, match="has ended as failed; nothing follows"):
        services.finish(deployment=row, actor=CI)


def test_one_that_is_left_open_times_out_and_frees_the_lock(workload):
    row = started(workload)

    runner.tick(row.open_until + timedelta(seconds=1))

    row.refresh_from_db()
    workload.refresh_from_db()
    assert (row.status, workload.change_lock) == ("failed", None)
    assert row.error_message.startswith("Nobody finished it by ")
    # A late finisher frees nothing that is not his.
    other = started(workload, "v2.0.0")
    with pytest.raises(Conflict, match="has ended"):
        services.finish(deployment=row, actor=CI)
    workload.refresh_from_db()
    assert workload.change_lock == other.pk


def test_a_version_that_failed_needs_an_override(workload):
    bad = started(workload)
    services.fail(deployment=bad, actor=CI, error_message="it burns")

    with pytest.raises(Conflict, match=rf"v1\.0\.0 failed on .* in {bad.pk} .* it burns"):
        started(workload)
    assert started(workload, override_reason="mended the disk").override_reason == "mended the disk"


def test_only_a_successful_build_is_deployed(workload):
    build = Build(pk="build_1", service=workload.service, build_status="failed")
    with pytest.raises(Conflict, match="build_1 is failed: only a successful build is deployed"):
        started(workload, build=build)


def test_a_rollback_is_a_record_of_its_own(workload):
    good = ended(workload, "v1.0.0")
    bad = ended(workload, "v1.1.0")
    assert services.rollback_available(bad)
    assert not services.rollback_available(good)

    row = services.rollback(deployment=bad, reason="slow", actor=CI)

    assert (row.kind, row.status, row.version, row.undoes, row.rollback_reason) == (
        *("rollback", "queued", "v1.0.0"),
        *(bad, "slow"),
    )
    with pytest.raises(Conflict, match="is being changed by"):
        services.rollback(deployment=bad, reason="again", actor=CI)
    done = runner.roll_back(row.pk, now=timezone.now())
    assert done.status == "failed"  # platform advisory only advises
    assert AuditEntry.objects.filter(action="deployment.rollback").get().reason == "slow"


@pytest.mark.parametrize("reason", ["", "  ", "x" * 501])
def test_a_rollback_needs_a_reason(workload, reason):
    ended(workload, "v1.0.0")
    with pytest.raises(Invalid, match="Say why"):
        services.rollback(deployment=ended(workload, "v1.1.0"), reason=reason, actor=CI)


def test_a_sensitive_value_is_refused_and_no_value_is_stored(workload):
    EnvironmentVariableRule.objects.create(service=workload.service, key="API_KEY", sensitive=True, min_length=20)
    EnvironmentVariableRule.objects.create(service=workload.service, key="MODE", pattern="live|test")
    row = started(workload, environment_variables=SETTLED)
    told = {item.key: item.validation_status for item in row.environment_variables.all()}
    assert told == {"API_KEY": "valid", "MODE": "valid"}

    with pytest.raises(Invalid, match="API_KEY is sensitive: its value must not be sent") as caught:
        preparation.report_variables(deployment=row, reports=[Report("API_KEY", value="open-sesame")], actor=CI)
    assert "sesame" not in str(caught.value)
    stored = [value for item in EnvironmentVariable.objects.values() for value in item.values()]
    assert not any("sesame" in str(value) or value == "live" for value in stored)


SETTLED = (Report("API_KEY", is_set=True, length=32, matches=True), Report("MODE", value="live"))


def test_a_missing_required_variable_blocks_unless_it_is_overridden(workload):
    EnvironmentVariableRule.objects.create(service=workload.service, key="DATABASE_URL", sensitive=True)

    with pytest.raises(Conflict, match="DATABASE_URL required, but not reported") as caught:
        started(workload)
    assert caught.value.facts["blocking"]
    assert not Deployment.objects.exists()
    row = started(workload, override_reason="it is set, CI cannot see it")
    assert set(ChecklistItem.objects.exclude(overridden_by="").values_list("key", flat=True)) == {
        *("variables_configured", "secrets_present"),
    }
    assert row.steps.filter(kind="overridden").exists()


def test_a_workload_that_demands_a_fresh_backup_waits_for_one(workload):
    workload.require_backup = True
    workload.save()
    database = DatabaseFactory(service=workload.service, environment=workload.environment)

    with pytest.raises(Conflict, match=f"no verified backup of {database} in the last"):
        started(workload)
    BackupJobFactory(database=database)
    assert started(workload).status == "in_progress"


def test_manual_items_are_ticked_by_a_named_person_and_others_are_not(workload):
    row = started(workload)

    preparation.tick(deployment=row, key="network_policies", done=True, actor=CI, note="as in March")

    item = row.checklist_items.get(key="network_policies")
    assert (item.state, item.by, item.detail) == ("passed", "ci", "as in March")
    with pytest.raises(Invalid, match="Only manual items"):
        preparation.tick(deployment=row, key="health_passing", done=True, actor=CI)
    with pytest.raises(Invalid, match="CI cannot report this item"):
        preparation.report_items(deployment=row, reported={"health_passing": "passed"}, actor=CI)


def test_what_ended_long_ago_is_archived_and_kept(workload):
    row = ended(workload)

    runner.tick(row.started_at + timedelta(days=91))

    row.refresh_from_db()
    assert row.archived


def observed(workload, status: str, external_id: str = "gh-1", **facts: object) -> Deployment:
    return observation.observe(
        **{
            "workload": workload,
            "external_id": external_id,
            "status": status,
            "version": "v3.0.0",
            "commit_sha": COMMIT,
            "actor": CI,
            **facts,
        }
    )


@pytest.mark.parametrize("order", [("queued", "in_progress", "completed"), ("completed", "in_progress", "queued")])
def test_reports_in_any_order_end_the_same(workload, order):
    for status in (*order, *order):
        row = observed(workload, status)

    assert (row.status, row.observed, row.conflict) == ("completed", True, "")
    assert Deployment.objects.count() == 1
    workload.refresh_from_db()
    assert (workload.change_lock, workload.current_deployment_id) == (None, row.pk)


def test_contradictions_are_flagged_and_clocks_ahead_do_no_harm(workload):
    ours = started(workload)
    row = observed(
        *(workload, "failed"), commit_sha="f" * 40, claimed_at=timezone.now() + timedelta(hours=5), error_message="boom"
    )
    assert ours.pk in row.conflict
    assert (row.status, row.error_message) == ("failed", "boom")
    assert row.claimed_at <= timezone.now()
    assert observed(workload, "completed", commit_sha="f" * 40).conflict == (
        "It had ended as failed and is now reported as completed."
    )


def test_what_came_within_one_second_is_told_apart_by_its_id_and_the_last_one_is_current(workload):
    moment = timezone.now().replace(microsecond=0)

    def report(number: int, status: str) -> Deployment:
        return observed(workload, status, f"gh-{number}", claimed_at=moment, commit_sha=f"{number}" * 40)

    with time_machine.travel(moment, tick=False) as clock:
        rows = []
        for number in range(6):
            clock.shift(0.1)
            rows.append(
                observed(workload, "in_progress", f"gh-{number}", claimed_at=moment, commit_sha=f"{number}" * 40)
            )
        assert list(Deployment.objects.newest_first()) == rows[::-1]
        # The reports of their ends come in any order.
        for number in (2, 5, 0, 3):
            report(number, "completed")

    workload.refresh_from_db()
    assert workload.current_deployment_id == rows[5].pk


def test_eight_that_came_at_the_same_microsecond_keep_their_order(workload):
    with time_machine.travel(timezone.now(), tick=False):
        rows = [observed(workload, "in_progress", f"gh-{number}", commit_sha=f"{number}" * 40) for number in range(8)]

    assert list(Deployment.objects.newest_first()) == rows[::-1]


def test_a_report_about_what_ci_started_here_is_about_that(workload):
    ours = started(workload, github_run_id="77")

    row = observed(workload, "completed", github_run_id="77")

    assert (row.pk, row.status) == (ours.pk, "in_progress")  # CI moves it itself, through the gate
    assert Deployment.objects.count() == 1


def test_the_second_deployment_of_a_second_gets_another_identifier_whether_it_was_seen_or_not(workload):
    now = timezone.now().replace(microsecond=0)
    first = records.insert(_waiting(workload, now), now=now)
    for taken in (True, False):  # False: somebody was quicker after this one had looked
        inventory.free_lock(workload_id=workload.pk, holder=first.pk)
        Deployment.objects.filter(pk=first.pk).update(status="failed", completed_at=now)
        other = records.insert(_waiting(workload, now), now=now, taken=taken)

        assert other.pk.startswith(f"{first.pk}_")
        workload.refresh_from_db()
        assert workload.change_lock == other.pk
        records.end(other, status="failed", now=now, text="told by the test")


def _waiting(workload, now) -> Deployment:
    return Deployment(
        service=workload.service, environment=workload.environment, workload=workload, version="v1.0.0",
        commit_sha=COMMIT, status="queued", triggered_by="ana", started_at=now, created_at=now,
        open_until=now + timedelta(hours=1), deployment_platform="webhook",
    )  # fmt: skip


def test_the_status_a_deployment_has_already_may_be_said_again(workload):
    row = started(workload)
    assert services.report(deployment=row, status="in_progress", actor=CI).pk == row.pk
    services.report(deployment=row, status="failed", actor=CI, error_message="out of disk")
    steps = row.steps.count()

    again = services.report(deployment=row, status="failed", actor=CI, error_message="said once more")

    assert (again.status, again.error_message) == ("failed", "out of disk")
    assert row.steps.count() == steps
    with pytest.raises(Conflict, match="has ended as failed"):
        services.report(deployment=row, status="completed", actor=CI)


@pytest.mark.parametrize(("status", "to"), [("queued", "in_progress"), ("queued", "cancelled")])
def test_facts_come_with_every_move(workload, status, to):
    row = started(workload, status=status)
    services.report(deployment=row, status=to, actor=CI, github_run_id="4711", migration_applied=True)
    row.refresh_from_db()
    assert (row.status, row.github_run_id, row.migration_applied) == (to, "4711", True)


@pytest.mark.parametrize(("was", "said"), [("queued", "queued"), ("in_progress", "in_progress"), ("gate", "completed")])
def test_facts_that_come_with_the_same_status_again_are_kept_while_it_is_open(workload, was, said):
    row = started(workload, status="queued" if was == "queued" else "in_progress")
    if was == "gate":
        services.finish(deployment=row, actor=CI)

    services.report(deployment=row, status=said, actor=CI, github_run_id="4711")

    row.refresh_from_db()
    assert (row.is_open, row.github_run_id) == (True, "4711")
    assert AuditEntry.objects.filter(action="deployment.facts", subject=f"deployment:{row.pk}").count() == 1


@pytest.mark.engine
def test_variables_that_differ_by_case_are_two(workload):
    reports = [Report("http_proxy", value="http://proxy"), Report("HTTP_PROXY", value="http://proxy")]
    row = started(workload, environment_variables=reports)
    assert {found.key for found in EnvironmentVariable.objects.filter(deployment=row)} == {"http_proxy", "HTTP_PROXY"}


@pytest.mark.parametrize(("made_of", "fits"), [("", True), (COMMIT, True), (COMMIT[:8], True), ("f" * 40, False)])
def test_a_build_of_another_commit_is_refused(workload, made_of, fits):
    build = BuildFactory(service=workload.service, build_status="success", commit_sha=made_of)
    if fits:
        assert started(workload, build=build).build == build
        return
    with pytest.raises(Invalid, match="was made of commit ffff"):
        started(workload, build=build)
    assert not Deployment.objects.exists()


def test_what_the_gate_decides_cannot_be_overridden(workload):
    row = started(workload)
    with pytest.raises(Invalid, match="The gate alone decides"):
        preparation.override(deployment=row, keys=["health_passing"], reason="I know better", actor=CI)
    assert not ChecklistItem.objects.filter(deployment=row, overridden_by=CI.name).exists()


@pytest.mark.parametrize("domain", ["not a domain!!", "<script>alert(1)</script>", "https://a.example.com"])
def test_a_domain_is_a_domain(workload, domain):
    with pytest.raises(Invalid, match="Enter a domain name") as caught:
        started(workload, domain=domain)
    assert caught.value.field == "domain"
