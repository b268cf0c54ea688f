"""Diagnostics from build to build: what is new, carried on, resolved and seen again."""

from io import BytesIO

import pytest

from apps.builds import intake, services
from apps.builds.models import Build, Diagnostic, DiagnosticReport
from apps.core.audit import Actor
from apps.core.errors import Conflict, Invalid
from apps.core.models import AuditEntry
from apps.inventory.models import Service
from tests.factories import BuildFactory

pytestmark = pytest.mark.django_db

CI = Actor.automation("ci")
ONE = b"src/a.ts(12,5): error TS2322: Type 'string' is not assignable to type 'number'.\n"
MOVED = ONE.replace(b"12,5", b"40,9")
OTHER = b"src/b.ts(1,1): error TS7006: Parameter 'x' implicitly has an 'any' type.\n"


@pytest.fixture
def app():
    return Service.objects.get(slug="app")


def build(app, **told):
    return BuildFactory(service=app, **told)


def report(of: Build, content: bytes, *, complete: bool = True, **options) -> DiagnosticReport:
    (row,) = services.report_diagnostics(
        build=of, actor=CI, report_format="tsc", content=content, complete=complete, **options
    )
    return row


def statuses() -> dict[str, str]:
    return dict(Diagnostic.objects.values_list("error_code", "status"))


@pytest.mark.engine
def test_a_diagnostic_is_carried_from_build_to_build_and_resolved_when_it_is_gone(app):
    first, second, third, fourth = (build(app) for _ in range(4))
    assert report(first, ONE + OTHER).added == 2

    row = report(second, MOVED + OTHER)
    assert (row.added, row.carried, row.resolved) == (0, 2, 0)
    moved = Diagnostic.objects.get(error_code="TS2322")
    assert (moved.first_build, moved.last_build, moved.place) == (first, second, "src/a.ts:40:9")
    assert (moved.category, moved.severity, moved.status) == ("type_mismatch", "high", "identified")

    row = report(third, OTHER)
    assert (row.carried, row.resolved) == (1, 1)
    gone = Diagnostic.objects.get(error_code="TS2322")
    assert (gone.status, gone.last_build, gone.resolution_notes) == (
        "resolved", second, f"No longer reported by {third.pk}."
    )  # fmt: skip
    assert gone.resolved_at

    row = report(fourth, ONE)
    assert (row.reopened, row.resolved) == (1, 1)
    again = Diagnostic.objects.get(error_code="TS2322")
    assert (again.pk, again.status, again.resolved_at, again.first_build) == (gone.pk, "identified", None, first)


@pytest.mark.engine
def test_two_equal_diagnostics_of_one_file_stay_two(app):
    assert report(build(app), ONE + MOVED + ONE).added == 3

    row = report(build(app), b"\n".join([MOVED, ONE]))
    assert (row.carried, row.resolved) == (2, 1)
    assert sorted(Diagnostic.objects.active().values_list("line_number", flat=True)) == [12, 40]


def test_a_partial_report_resolves_nothing(app):
    report(build(app), ONE + OTHER)

    row = report(build(app), OTHER, complete=False)
    assert (row.complete, row.resolved) == (False, 0)
    assert statuses() == {"TS2322": "identified", "TS7006": "identified"}


@pytest.mark.parametrize("elsewhere", [{"branch": "feature/login"}, {"environment": "staging"}, {"service": "another"}])
def test_a_report_from_elsewhere_resolves_nothing_here(app, elsewhere):
    report(build(app), ONE)
    if "service" in elsewhere:
        elsewhere = {"service": Service.objects.create(slug="shop", name="Shop")}
    report(BuildFactory(**{"service": app, **elsewhere}), b"")

    assert statuses() == {"TS2322": "identified"}


def test_output_that_may_not_be_whole_is_not_taken_for_complete(app):
    report(build(app), ONE + OTHER)

    for content, doubt in (
        (b"sh: 1: tsc: not found\n", "text that tsc does not print"),
        (ONE + b"Found 7 errors.", "7"),
    ):
        row = report(build(app), content)
        assert (row.complete, row.resolved) == (False, 0)
        assert doubt in row.doubts[0]
    assert report(build(app), b"> app@1.0.0 check\n> tsc --noEmit\n\n").resolved == 2


def test_a_deferred_one_stays_deferred_but_learns_its_last_build(app):
    report(build(app), ONE)
    services.move_diagnostic(diagnostic=Diagnostic.objects.get(), status="deferred", actor=CI, notes="upstream")
    second = build(app)
    report(second, ONE)

    row = Diagnostic.objects.get()
    assert (row.status, row.last_build, row.resolution_notes) == ("deferred", second, "upstream")
    report(build(app), b"")
    assert statuses() == {"TS2322": "resolved"}


def test_a_report_delivered_twice_changes_nothing_twice(app):
    report(build(app), ONE + OTHER)
    of = build(app)
    first = report(of, ONE)
    Diagnostic.objects.filter(error_code="TS7006").update(status="identified", resolved_at=None)
    entries = AuditEntry.objects.count()
    second = report(of, ONE)

    assert (second.pk, second.resolved) == (first.pk, 1)
    assert DiagnosticReport.objects.filter(build=of).count() == 1
    assert statuses()["TS7006"] == "identified"
    assert AuditEntry.objects.count() == entries


def test_a_late_report_of_an_older_build_changes_no_diagnostic(app):
    older, newer = build(app), build(app)
    report(newer, ONE)
    row = report(older, OTHER)

    assert (row.outdated, row.added, row.resolved) == (True, 0, 0)
    assert statuses() == {"TS2322": "identified"}
    older.refresh_from_db()
    assert older.error_count == 1


def test_errors_of_a_build_that_fails_are_critical(app):
    of = build(app)
    report(of, ONE + OTHER.replace(b"error", b"warning") + b"error TS18003: No inputs were found.\n")
    severities = dict(Diagnostic.objects.values_list("error_code", "severity"))
    assert severities == {"TS2322": "high", "TS7006": "medium", "TS18003": "high"}

    services.change_build(build=of, actor=CI, status="failed")
    severities = dict(Diagnostic.objects.values_list("error_code", "severity"))
    assert severities == {"TS2322": "critical", "TS7006": "medium", "TS18003": "critical"}

    late = build(app, build_status="failed")
    report(late, ONE)
    assert Diagnostic.objects.get(error_code="TS2322").severity == "critical"
    report(build(app), ONE)
    assert Diagnostic.objects.get(error_code="TS2322").severity == "high"


def test_the_build_counts_what_its_tools_last_said(app):
    of = build(app)
    report(of, ONE, complete=False)
    report(of, OTHER, complete=False)
    of.refresh_from_db()
    assert of.error_count == 2
    report(of, ONE)
    report(of, OTHER.replace(b"error", b"warning"), complete=False)
    of.refresh_from_db()
    assert (of.error_count, of.warning_count) == (1, 1)


@pytest.mark.parametrize("status", ["pending", "cancelled"])
def test_a_build_that_has_not_run_has_no_diagnostics(app, status):
    with pytest.raises(Conflict, match=f"is {status}"):
        report(build(app, build_status=status), ONE)


@pytest.mark.parametrize(
    ("content", "options", "field", "sentence"),
    [
        (b"../x.ts(1,1): error TS1: a\n", {}, "report", "outside the root"),
        (b"/etc/passwd(1,1): error TS1: a\n", {"root": "/srv/app"}, "report", "outside the root"),
        (b"/srv/app/a.ts(1,1): error TS1: a\n", {}, "report", "say with root"),
        (ONE, {"root": "srv/app"}, "root", "absolute path"),
        (ONE, {"root": "/srv/app", "folder": "../other"}, "root", "outside the root"),
    ],
)
def test_a_path_outside_the_root_refuses_the_whole_report(app, content, options, field, sentence):
    with pytest.raises(Invalid, match=sentence) as caught:
        report(build(app), ONE + content, **options)

    assert caught.value.field == field
    assert not Diagnostic.objects.exists()
    assert not DiagnosticReport.objects.exists()
    assert not AuditEntry.objects.exists()


def test_an_unknown_format_is_refused(app):
    with pytest.raises(Invalid, match="tsc, sarif"):
        services.report_diagnostics(build=build(app), actor=CI, report_format="junit", content=b"")


def test_what_a_person_wrote_outlives_reports(app):
    report(build(app), ONE + OTHER)
    noted = Diagnostic.objects.get(error_code="TS2322")
    services.move_diagnostic(diagnostic=noted, status="deferred", actor=CI, notes="waiting for upstream")

    gone = report(build(app), b"")

    notes = dict(Diagnostic.objects.values_list("error_code", "resolution_notes"))
    assert notes == {"TS2322": "waiting for upstream", "TS7006": f"No longer reported by {gone.build_id}."}
    report(build(app), ONE + OTHER)
    notes = dict(Diagnostic.objects.values_list("error_code", "resolution_notes"))
    assert notes == {"TS2322": "waiting for upstream", "TS7006": None}


def test_secrets_are_cut_out_before_anybody_waits_for_the_branch():
    text = "src/a.ts(1,1): error TS2322: Type 'password=\"{}\"' is wrong.\n"
    content = BytesIO((text.format("hunter2hunter2") + text.format("another-secret")).encode())

    [delivery] = intake.read("tsc", content, root="", folder="", complete=True)

    assert not [found for found in delivery.run.found if "hunter2" in found.message or "another" in found.message]
    assert len(set(delivery.fingerprints)) == 2  # two they stay
