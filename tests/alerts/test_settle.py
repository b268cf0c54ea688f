"""Alerts open and close as the parts of Pulsewatch say what is wrong."""

import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from django.db import IntegrityError, connection, transaction

from apps.alerts.models import Alert, AlertEvent
from apps.alerts.services import Firing, settle

NOW = datetime(2026, 3, 2, 3, 0, tzinfo=UTC)
DOWN = Firing(
    subject="endpoint:17",
    title="GET https://shop.example/api is down",
    detail="Refused 3 times in a row. Look at the web server.",
    severity="warning",
    environment="production",
    service="shop",
)
KIND = "endpoint_down"


def at(minutes: float) -> datetime:
    return NOW + timedelta(minutes=minutes)


def kinds() -> list[str]:
    return list(AlertEvent.objects.order_by("pk").values_list("kind", flat=True))


@pytest.mark.django_db
def test_an_alert_opens_once_and_closes_once(django_assert_num_queries):
    assert len(settle(KIND, [DOWN], now=NOW).opened) == 1
    with django_assert_num_queries(1):
        assert not settle(KIND, [DOWN], now=at(1))
    assert len(settle(KIND, [], now=at(3)).closed) == 1
    with django_assert_num_queries(1):
        assert not settle(KIND, [], now=at(4))
    alert = Alert.objects.get()
    assert (alert.opened_at, alert.closed_at, alert.open_subject) == (NOW, at(3), None)
    assert [event.text for event in AlertEvent.objects.order_by("pk")] == [DOWN.detail, "Well again after 3 min."]


@pytest.mark.django_db
def test_only_the_subjects_that_were_looked_at_are_settled():
    other = replace(DOWN, subject="endpoint:18")
    settle(KIND, [DOWN, other], now=NOW)
    settle("database_down", [replace(DOWN, subject="database:shop")], now=NOW)
    assert len(settle(KIND, [], now=at(1), subjects=["endpoint:17"]).closed) == 1
    assert set(Alert.objects.open().values_list("subject", flat=True)) == {"endpoint:18", "database:shop"}


@pytest.mark.django_db
def test_severity_only_rises_and_who_acknowledged_the_lesser_trouble_is_asked_again():
    settle(KIND, [DOWN], now=NOW)
    Alert.objects.update(acknowledged_at=NOW, acknowledged_by="ana", acknowledged_note="on it")
    assert len(settle(KIND, [replace(DOWN, severity="critical")], now=at(1)).escalated) == 1
    assert not settle(KIND, [replace(DOWN, severity="info")], now=at(2))
    alert = Alert.objects.get()
    assert (alert.severity, alert.acknowledged_at) == ("critical", None)
    assert kinds() == ["opened", "escalated"]


@pytest.mark.django_db
def test_new_words_replace_the_old_ones_without_a_new_event():
    settle(KIND, [DOWN], now=NOW)
    settle(KIND, [replace(DOWN, detail="Refused 9 times; token=s3cr3t-value-9", path="/admin/")], now=at(1))
    alert = Alert.objects.get()
    assert alert.path == "/admin/"
    assert "s3cr3t" not in alert.detail
    assert kinds() == ["opened"]


@pytest.mark.django_db
def test_what_flaps_is_kept_open_until_it_has_been_well_for_ten_minutes():
    for minute in range(4):
        settle(KIND, [DOWN] if minute % 2 == 0 else [], now=at(minute))
    alert = Alert.objects.open().get()
    assert (alert.flapping, alert.flaps, alert.cleared_at) == (True, 1, at(3))
    settle(KIND, [DOWN], now=at(4))  # and again
    settle(KIND, [], now=at(5))
    assert kinds() == ["opened", "closed", "opened", "flapping"]
    assert not settle(KIND, [], now=at(14.9))
    assert len(settle(KIND, [], now=at(15)).closed) == 1
    assert Alert.objects.get(pk=alert.pk).flaps == 2


@pytest.mark.django_db
def test_a_clock_that_is_set_back_closes_what_is_well():
    settle(KIND, [DOWN], now=NOW)
    settle(KIND, [], now=at(-60))
    assert Alert.objects.get().closed_at == NOW


@pytest.mark.django_db
def test_case_does_not_make_another_subject():
    settle(KIND, [replace(DOWN, subject="database:Shop")], now=NOW)
    assert not settle(KIND, [replace(DOWN, subject="database:shop")], now=at(1))
    assert len(settle(KIND, [], subjects=["database:SHOP"], now=at(2)).closed) == 1


@pytest.mark.django_db
@pytest.mark.parametrize(
    "wrong",
    [{"subject": "17"}, {"subject": "endpoint:ä"}, {"subject": "endpoint:1 2"}, {"severity": "bad"},
     {"environment": "live"}, {"title": " "}],
)  # fmt: skip
def test_nonsense_is_a_fault_of_the_caller(wrong):
    with pytest.raises(ValueError, match=r"."):
        settle(KIND, [replace(DOWN, **wrong)], now=NOW)
    with pytest.raises(ValueError, match="no kind"):
        settle("fire", [], now=NOW)


@pytest.mark.django_db(transaction=True)
@pytest.mark.engine
def test_two_workers_that_notice_the_same_open_and_close_one_alert():
    many = [replace(DOWN, subject=f"endpoint:{number}") for number in range(40)]
    for firing, minute in ((many, 0), (many[:20], 1), ([], 2)):
        barrier, faults = threading.Barrier(2), []

        def work(firing=firing, minute=minute, barrier=barrier, faults=faults):
            try:
                barrier.wait(10)
                settle(KIND, firing, now=at(minute))
            except Exception as error:  # every fault of a thread is the test's
                faults.append(error)
            finally:
                connection.close()

        threads = [threading.Thread(target=work) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert not faults
        assert Alert.objects.open().count() == len(firing)
    assert Alert.objects.count() == 40
    assert sorted(kinds()) == ["closed"] * 40 + ["opened"] * 40


@pytest.mark.django_db
@pytest.mark.engine
def test_the_database_refuses_a_second_open_alert_of_a_subject():
    settle(KIND, [DOWN], now=NOW)
    twin = Alert.objects.get()
    twin.pk = "alert_twin"
    with pytest.raises(IntegrityError, match="alerts_one_open"), transaction.atomic():
        twin.save(force_insert=True)
    twin.closed_at = NOW
    twin.save(force_insert=True)
