"""Signs of life: who gives them, and who looks."""

import time
from datetime import UTC, datetime, timedelta

import pytest
from celery import shared_task

from apps.core import heartbeats, lease
from apps.core.models import Heartbeat

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.mark.engine
@pytest.mark.django_db
def test_each_sign_replaces_the_one_before_in_one_statement(django_assert_num_queries):
    heartbeats.beat("fast", NOW)
    with django_assert_num_queries(1):
        heartbeats.beat("fast", NOW + timedelta(minutes=1))
    heartbeats.beat("celery", NOW)  # a queue of somebody else's

    assert [*Heartbeat.objects.values_list("source", "at")] == [("fast", NOW + timedelta(minutes=1))]


@pytest.mark.django_db
def test_from_preparation_on_a_part_that_never_comes_to_life_is_reported():
    heartbeats.beat("fast", NOW - timedelta(hours=1))
    heartbeats.expect(NOW)
    heartbeats.expect(NOW + timedelta(minutes=2))

    assert [part.source for part in heartbeats.stale(NOW)] == ["fast"], "what is known stays known"
    assert [part.source for part in heartbeats.stale(NOW + timedelta(minutes=4))] == ["beat"]


@pytest.mark.django_db
def test_the_sampler_may_be_silent_as_long_as_its_setting_says(settings):
    settings.STALE_AFTER_SECONDS = 600
    heartbeats.beat("sampler", NOW)

    assert heartbeats.stale(NOW + timedelta(minutes=9)) == []
    assert [part.source for part in heartbeats.stale(NOW + timedelta(minutes=11))] == ["sampler"]


@pytest.mark.django_db
def test_the_metrics_page_tells_how_old_each_sign_is():
    heartbeats.beat("long", datetime.now(UTC) - timedelta(seconds=40))
    heartbeats.beat("fast", datetime.now(UTC) + timedelta(seconds=40))

    ages = {sample.labels["source"]: sample.value for family in heartbeats.read() for sample in family.samples}

    assert ages == {"long": pytest.approx(40, abs=5), "fast": 0}


@shared_task(name="tests.leased")
def leased(seconds: float) -> bool:
    """Work under a lease until a sign of life is there, or for so long."""
    deadline = time.monotonic() + seconds
    with lease.Lease(lambda: True, every=0.02):
        while time.monotonic() < deadline:
            if Heartbeat.objects.exists():
                return True
            time.sleep(0.01)
    return False


@pytest.mark.django_db(transaction=True)
def test_a_worker_that_is_busy_for_hours_shows_by_its_lease_that_it_lives():
    leased(0.2)
    assert not Heartbeat.objects.exists(), "at a command line nobody's worker is proven to live"

    assert leased.apply((10,), routing_key="long").get()

    assert Heartbeat.objects.get().source == "long"
