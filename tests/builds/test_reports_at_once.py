"""Reports that arrive at the same moment, on a real server."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connection, connections

from apps.builds import services
from apps.builds.models import Diagnostic, DiagnosticReport, DiagnosticSource
from apps.core.audit import Actor
from apps.core.models import AuditEntry
from apps.inventory.models import Service
from tests.factories import BuildFactory

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.engine]

CI = Actor.automation("ci")


@pytest.fixture
def service():
    return Service.objects.create(slug="shop", name="Shop")


@pytest.fixture(autouse=True)
def threads_really_meet():
    if connection.vendor == "sqlite":
        pytest.skip("SQLite has one writer at a time: nothing happens at once")


def output(numbers) -> bytes:
    return "".join(f"src/a.ts({n},1): error TS2322: Type '{n}' is wrong.\n" for n in numbers).encode()


def at_once(*calls):
    """Run all calls at the same moment; gives what they return."""
    barrier = threading.Barrier(len(calls))

    def run(call):
        try:
            barrier.wait(20)
            return call()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(run, calls))


def report(build, content):
    return services.report_diagnostics(build=build, actor=CI, report_format="tsc", content=content, complete=True)


def test_the_same_report_delivered_four_times_at_once_is_stored_once(service):
    build = BuildFactory(service=service)
    rows = at_once(*[lambda: report(build, output(range(300)))] * 4)

    assert len({row.pk for (row,) in rows}) == 1
    assert DiagnosticSource.objects.count() == DiagnosticReport.objects.count() == 1
    assert Diagnostic.objects.count() == 300
    assert AuditEntry.objects.filter(action="diagnostics.report").count() == 1
    build.refresh_from_db()
    assert build.error_count == 300


def test_reports_of_four_builds_at_once_leave_what_the_newest_shows(service):
    builds = [BuildFactory(service=service) for _ in range(4)]
    shown = [range(n * 50, n * 50 + 100) for n in range(4)]
    at_once(*[lambda n=n: report(builds[n], output(shown[n])) for n in range(4)])

    active = Diagnostic.objects.active()
    assert {row.line_number for row in active} == set(shown[3]) - {0}
    assert all(row.last_build_id == builds[3].pk for row in active)
    assert DiagnosticReport.objects.count() == 4
    assert Diagnostic.objects.values("fingerprint").distinct().count() == Diagnostic.objects.count()


def test_a_build_that_fails_while_it_is_reported_ends_with_critical_errors(service):
    for _ in range(3):
        build = BuildFactory(service=service)
        at_once(
            lambda build=build: report(build, output(range(200))),
            lambda build=build: services.change_build(build=build, actor=CI, status="failed"),
        )

        assert set(Diagnostic.objects.values_list("severity", flat=True)) == {"critical"}


def test_a_build_that_is_said_to_fail_and_to_succeed_at_once_does_one_of_them(service):
    build = BuildFactory(service=service)

    def end(status):
        try:
            return services.change_build(build=build, actor=CI, status=status).build_status
        except services.Conflict as conflict:
            return conflict.facts

    answers = at_once(*[lambda status=status: end(status) for status in ("failed", "success", "failed", "success")])

    build.refresh_from_db()
    assert answers.count(build.build_status) == 2
    assert answers.count({"legal": []}) == 2
    assert AuditEntry.objects.filter(subject=f"build:{build.pk}").count() == 1


def test_a_person_who_defers_while_a_report_comes_is_not_overruled(service):
    report(BuildFactory(service=service), output(range(1, 200)))
    rows = list(Diagnostic.objects.all()[:20])
    build = BuildFactory(service=service)
    at_once(
        lambda: report(build, output(range(1, 200))),
        lambda: [services.move_diagnostic(diagnostic=row, status="deferred", actor=CI) for row in rows],
    )

    assert Diagnostic.objects.filter(status="deferred").count() == 20
    assert not Diagnostic.objects.exclude(last_build=build).exists()
