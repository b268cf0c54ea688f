"""Slices on real targets and a real database; a slice is shorter here, and begins when the test says."""

import asyncio
import gc
import time
from collections import Counter
from datetime import datetime, timedelta

import pytest
from django.db import OperationalError

from apps.alerts.models import Alert
from apps.core import audit, garbage
from apps.health import prober, recording, slices, standings
from apps.health.models import DatabaseCheck, DatabaseState, EndpointCheck, EndpointState, ProbeSlice
from apps.health.prober import Prober, Report
from apps.health.recording import Flip
from apps.health.rules import schedule
from apps.health.rules.checks import Course
from apps.health.watched import Watched
from apps.inventory import targets
from apps.inventory.models import Database, Endpoint
from tests.factories import ServiceFactory
from tests.health import quick
from tests.health.quick import LENGTH, START, QuickClock, endpoints, probe, probe_at
from tests.receiver import Reply, Trouble

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("short_slices")]


def statuses() -> Counter[str]:
    return Counter(EndpointState.objects.values_list("status", flat=True))


def test_an_endpoint_is_checked_at_its_time_and_its_state_is_known(server):
    (endpoint,) = endpoints(server, expected_status="200-204")

    report = probe()

    assert report is not None
    assert (report.checks, report.missed) == (1, 0)
    state, check = EndpointState.objects.get(), EndpointCheck.objects.get()
    slot = schedule.slots(f"endpoint:{endpoint.pk}", 10, START, START + LENGTH)[0]
    assert (state.endpoint_id, state.status, state.actual_status) == (endpoint.pk, "healthy", 200)
    assert (state.endpoint_path, state.expected_status, state.http_method) == (endpoint.endpoint_path, "200-204", "GET")
    assert (check.at, check.status, check.http_status, check.error) == (slot, "healthy", 200, "")
    assert check.response_time_ms == state.response_time
    assert state.since == state.last_checked == slot
    assert ProbeSlice.objects.get().finished_at is not None


@pytest.mark.engine
def test_a_target_goes_down_after_three_failures_opens_one_alert_and_is_back_after_two_good_answers(server):
    (endpoint,) = endpoints(server)
    probe(0)
    server.starts_over(Reply(503))
    for number in (1, 2):
        probe(number)
    assert (statuses(), Alert.objects.count()) == ({"degraded": 1}, 0)
    probe(3)
    state = EndpointState.objects.get()
    assert (state.status, state.consecutive_failures) == ("failed", 3)
    assert state.error_message == "answered 503 instead of 200"
    alert = Alert.objects.get()
    assert (alert.kind, alert.subject, alert.closed_at) == ("endpoint_down", f"endpoint:{endpoint.pk}", None)
    assert "It answered 503 instead of 200. Down since 2026-03-02 12:00 UTC" in alert.detail
    assert (alert.environment, alert.severity) == ("production", "critical")
    server.starts_over(Reply(200))
    probe(4)
    assert statuses() == {"failed": 1}
    probe(5)
    assert statuses() == {"healthy": 1}
    assert [check.status for check in EndpointCheck.objects.order_by("at")] == [
        *("healthy", "failed", "failed", "failed", "healthy", "healthy")
    ]


def test_good_answers_wait_for_one_another_and_a_change_does_not(server, monkeypatch):
    batches: list[Counter[str]] = []
    store = recording.store

    def watch(results, missed=()):
        batches.append(Counter(result.verdict.status for result in results))
        return store(results, missed)

    monkeypatch.setattr(recording, "store", watch)
    monkeypatch.setattr(prober, "BATCH_SECONDS", 1e6)
    monkeypatch.setattr(prober, "_superseded", lambda *_: False)  # a busy machine gives up no check here
    endpoints(server, 40)
    probe(0)
    assert batches == [{"healthy": 40}], "also when nobody has asked them before"

    batches.clear()
    monkeypatch.setattr(quick, "QUICK", 5)
    server.starts_over(Reply(503), *[Reply(200)] * 38, Reply(200))
    probe(1)
    assert batches[0]["failed"] == 1
    assert len(batches) > 1, "it is not stored at the end of the slice"


def test_what_may_change_how_a_target_stands_is_known_from_what_is_stored():
    def target(pk: int, status: str = "unknown", last: datetime | None = START) -> Watched:
        return Watched("endpoint", pk, 60, 3, 2, 1000, START, None, last=last, status=status, since=last)

    new, well, slow, down = target(1, last=None), target(2, "healthy"), target(3, "degraded"), target(4, "failed")
    stands = standings.Standings()
    for one in (new, well, slow, down):
        stands.add(one)

    def news(*statuses: str) -> list[list[str]]:
        return [[status for status in statuses if stands.changes(one, status)] for one in (new, well, slow, down)]

    every = ("healthy", "degraded", "failed", "unknown")
    assert news(*every) == [["failed"], ["degraded", "failed"], ["healthy", "failed"], ["healthy", "degraded"]]
    stands.flipped([Flip(one, "", Course("failed", START, 3, 0)) for one in (new, well, slow, down)])
    assert news(*every) == [["healthy", "degraded"]] * 4


def test_garbage_is_looked_for_as_usual_after_a_slice(server):
    endpoints(server)
    usual, during = gc.get_threshold(), []

    class Looking(Prober):
        async def _see(self, one):
            during.append((gc.get_threshold(), gc.get_freeze_count() > 0))
            return await super()._see(one)

    async def run() -> None:
        made = [Looking(allow_loopback=True, clock=QuickClock(START)) for _ in range(2)]
        await asyncio.gather(*(one.run(0, 1, START) for one in made))

    asyncio.run(run())
    assert during == [(garbage.SELDOM, True)]
    assert (gc.get_threshold(), gc.get_freeze_count()) == (usual, 0)


def test_a_doubled_message_and_a_second_beat_check_nothing_twice(server):
    endpoints(server, 20)

    async def twice() -> list[Report | None]:
        made = [Prober(allow_loopback=True, clock=QuickClock(START)) for _ in range(2)]
        return list(await asyncio.gather(*(one.run(0, 1, START) for one in made)))

    reports = asyncio.run(twice())
    assert [report for report in reports if report].__len__() == 1
    assert probe() is None, "a third one finds it finished"
    assert len(server.requests) == EndpointCheck.objects.count() == 20


def test_shards_share_the_targets_and_each_has_every_one_of_its_own(server):
    endpoints(server, 40)
    reports = [probe(shard=shard, shards=3) for shard in range(3)]
    assert all(report and report.checks for report in reports)
    assert sum(report.checks for report in reports if report) == 40
    assert EndpointState.objects.count() == 40


def test_a_slice_whose_worker_died_is_adopted_and_made_good(server):
    endpoints(server, 30)
    dead = ProbeSlice.objects.create(shard=0, shards=1, starts_at=START, holder="dead", beat_at=START)
    kept = list(Endpoint.objects.order_by("pk")[:10])
    for endpoint in kept:  # the dead one stored these before it died
        slot = schedule.slots(f"endpoint:{endpoint.pk}", 10, START, START + LENGTH)[0]
        EndpointCheck.objects.create(endpoint=endpoint, at=slot, status="healthy")
    slices_beat, slices.BEAT_SECONDS = slices.BEAT_SECONDS, 0.05
    try:
        report = probe_at(START + 4 * LENGTH)
    finally:
        slices.BEAT_SECONDS = slices_beat

    assert report is not None
    assert report.adopted == 1
    dead.refresh_from_db()
    assert dead.holder != "dead"
    assert dead.finished_at is not None
    lost = EndpointCheck.objects.filter(at__lt=START + LENGTH).exclude(endpoint__in=kept)
    # Half a minute ago is soon enough to be made good; nothing is stored twice, nothing is left out.
    assert Counter(lost.values_list("status", flat=True)) == {"healthy": 20}
    assert EndpointCheck.objects.filter(at__gte=START + 4 * LENGTH).count() == 30


def test_the_time_nobody_probed_is_unknown_and_not_failed(server):
    endpoints(server, 10)
    probe(0)
    server.starts_over(Reply(200))
    report = probe(12)
    assert report is not None
    between = EndpointCheck.objects.filter(at__gte=START + LENGTH, at__lt=START + 12 * LENGTH)
    assert between.count() == 110
    outcomes = Counter(between.values_list("status", flat=True))
    assert outcomes == {"unknown": 100, "healthy": 10}, "the newest ones are made good"
    assert set(between.filter(status="unknown").values_list("error", flat=True)) == {"Pulsewatch did not check in time"}
    assert statuses() == {"healthy": 10}


def test_a_slice_that_begins_late_still_makes_its_checks(server):
    endpoints(server, 10)
    report = probe_at(START, begins=START + timedelta(seconds=2))
    assert report is not None
    assert report.checks + report.missed == 10
    assert report.checks >= 5, "a busy machine may have made it later still"
    assert set(EndpointState.objects.values_list("status", flat=True)) == {"healthy"}


def test_everything_down_at_once_opens_one_alert_and_leaves_states_unknown(server):
    endpoints(server, 12, failures_before_down=1)
    probe(0)
    assert statuses() == {"healthy": 12}
    server.starts_over(Trouble.RESET)
    probe(1)
    assert statuses() == {"unknown": 12}, "also those that fell before it was seen"
    probe(2)
    assert statuses() == {"unknown": 12}
    still_open = Alert.objects.filter(closed_at=None, cleared_at=None)
    assert [alert.kind for alert in still_open] == ["mass_failure"]
    server.starts_over(Reply(200))
    probe(3)
    assert statuses() == {"healthy": 12}
    assert not Alert.objects.filter(kind="mass_failure", closed_at=None, cleared_at=None).exists()


def test_a_suspicion_of_ourselves_ends_when_there_is_no_target_left_that_could_clear_us():
    before = slices.claim(0, 1, START - LENGTH, START - LENGTH)
    slices.finish([before], START, suspicious=True)

    probe(0)

    now = ProbeSlice.objects.get(starts_at=START)
    assert now.finished_at is not None
    assert not now.suspicious


def test_nothing_is_measured_while_the_process_stands_still(server):
    endpoints(server, 2)

    class Sleepy(Prober):
        async def _see(self, one):
            seen = await super()._see(one)
            time.sleep(2)  # the loop stands still
            return seen

    async def run() -> Report | None:
        return await Sleepy(allow_loopback=True, clock=QuickClock(START)).run(0, 1, START)

    server.starts_over(Reply(500))
    asyncio.run(run())
    assert set(EndpointCheck.objects.values_list("status", flat=True)) == {"unknown"}
    assert set(statuses()) == {"unknown"}


def test_what_waits_to_be_stored_carries_no_pages(server):
    carried = []

    class Weighing(Prober):
        async def _store_batch(self) -> None:
            carried.extend(waiting.seen.body for waiting in self._results if waiting.verdict)
            await super()._store_batch()

    async def run() -> Report | None:
        return await Weighing(allow_loopback=True, clock=QuickClock(START)).run(0, 1, START)

    server.starts_over(Reply(200, b"x" * 100_000))
    endpoints(server, 2, body_contains="xxx")
    asyncio.run(run())
    assert statuses() == {"healthy": 2}
    assert set(carried) == {b""}, "50,000 may wait for a database that is frozen"


def test_alerts_that_cannot_be_settled_now_cost_no_check(server, monkeypatch):
    def deadlock(*_: object) -> None:
        raise OperationalError(1213, "Deadlock found when trying to get lock")

    server.starts_over(Reply(503))
    endpoints(server, 20, failures_before_down=1)  # which take several batches
    monkeypatch.setattr(standings, "notice", deadlock)

    report = probe()

    assert report is not None
    assert (report.checks, statuses()) == (20, {"failed": 20})
    assert ProbeSlice.objects.get().finished_at is not None


def test_the_certificate_of_an_address_that_has_none_any_more_is_forgotten(server):
    kept, fresh = endpoints(server, 2)
    Endpoint.objects.filter(pk=kept.pk).update(keep_alive=True)
    probe(0)
    EndpointState.objects.update(tls_expires_at=START)

    server.starts_over(Trouble.RESET)
    probe(1)
    assert EndpointState.objects.filter(tls_expires_at=START).count() == 2, "who does not answer has shown nothing"
    server.starts_over(Reply(200))
    probe(2)
    # A connection that is kept shows its certificate only once.
    assert dict(EndpointState.objects.values_list("pk", "tls_expires_at")) == {kept.pk: START, fresh.pk: None}


def test_a_clock_set_back_or_forward_stops_no_check(server):
    endpoints(server, 5)
    probe(0)
    assert EndpointCheck.objects.count() == 5
    probe_at(START - timedelta(hours=1))
    assert EndpointCheck.objects.count() == 10
    assert EndpointState.objects.filter(last_checked__lt=START).count() == 5, "the new time counts"
    assert ProbeSlice.objects.count() == 1, "slices of what is now the future are gone"
    report = probe_at(START + timedelta(days=1))
    assert report is not None
    assert report.checks == 5
    assert statuses() == {"healthy": 5}


def test_an_endpoint_that_is_removed_meanwhile_costs_the_others_nothing(server):
    gone, *_ = endpoints(server, 8)

    class Removing(Prober):
        async def _store_some(self):
            if Endpoint.objects.filter(pk=gone.pk).exists():
                Endpoint.objects.filter(pk=gone.pk).delete()
            await super()._store_some()

    async def run() -> Report | None:
        return await Removing(allow_loopback=True, clock=QuickClock(START)).run(0, 1, START)

    import os

    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "true"
    try:
        asyncio.run(run())
    finally:
        del os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"]
    assert EndpointCheck.objects.count() == EndpointState.objects.count() == 7


def test_databases_are_watched_beside_endpoints_with_their_own_words(server, redis_server):
    actor = audit.Actor.automation("test")
    service = ServiceFactory()
    for name, url in (("cache", redis_server.url), ("gone", "redis://127.0.0.1:1/0")):
        targets.watch_database(
            name=name, url=url, environment="staging", service=service.slug, actor=actor, interval_seconds=10
        )
    Database.objects.update(updated_at=START - timedelta(days=1))
    for number in range(3):
        probe(number)
    well, gone = DatabaseState.objects.order_by("connection_name")
    assert (well.status, well.connection_status, well.query_test_status) == ("healthy", "connected", "success")
    assert well.average_query_time > 0
    assert 0 < well.connection_pool_size < well.connections_max
    assert (gone.status, gone.connection_status, gone.query_test_status) == ("failed", "disconnected", "not_tested")
    alert = Alert.objects.get()
    assert (alert.kind, alert.subject, alert.environment) == ("database_down", "database:gone", "staging")
    assert alert.severity == "warning", "nobody gets up for what is not in production"
    assert DatabaseCheck.objects.filter(status="failed", response_time_ms=None).count() == 3


def test_a_target_that_cannot_be_read_is_unknown_and_says_why(server, settings):
    (endpoint,) = endpoints(server)
    targets.save_endpoint(endpoint=endpoint, actor=audit.Actor.automation("test"), headers={"X-Key": "abc"})
    endpoint.workload.base_url = server.url.replace("127.0.0.1", "localhost")
    endpoint.workload.save()
    Endpoint.objects.update(updated_at=START - timedelta(days=1))
    probe()
    state = EndpointState.objects.get()
    assert state.status == "unknown"
    assert "given for another base URL" in state.error_message
    assert server.requests == []
