"""Which messages are written, when, for whom. Nothing is sent here."""

from datetime import timedelta

import pytest
from django.db.models.signals import post_delete

from apps.alerts import arrangements, runner
from apps.alerts.models import Alert, AlertEvent, Delivery, MaintenanceWindow, Notice
from apps.alerts.services import acknowledge, settle
from apps.core.audit import Actor
from apps.core.models import StopSwitch
from tests.alerts.conftest import NOW, at, down

KIND = "endpoint_down"
ANA = Actor.automation("ana")
pytestmark = pytest.mark.django_db


def titles(occasion: str = "") -> list[str]:
    rows = Delivery.objects.order_by("created_at", "title")
    return [row.title for row in rows if occasion in ("", row.occasion)]


def window(**facts) -> MaintenanceWindow:
    row = MaintenanceWindow(
        **{"name": "Patch day", "first_day": NOW.date(), "start_time": NOW.time(), "minutes": 30, "created_by": "ana"}
        | facts
    )
    row.save()
    return row


def test_one_alert_is_told_once_when_it_breaks_and_once_when_it_is_well_again(make_route):
    make_route()
    assert runner.gather(NOW) is None
    settle(KIND, [down()], now=NOW)
    assert runner.gather(at(1)) == at(5)
    assert titles() == []
    runner.gather(at(5))
    runner.gather(at(6))
    assert titles() == ["Warning: GET https://shop.example/17 is down (production)"]
    settle(KIND, [], now=at(180))
    runner.gather(at(185))
    runner.gather(at(186))
    assert titles("recovery") == ["Resolved: GET https://shop.example/17 is down (production)"]
    first = Delivery.objects.get(occasion="trouble")
    assert first.body.splitlines()[:2] == [
        "Refused 3 times in a row. Look at the web server.",
        "Since 2026-03-02 03:00 UTC. Service shop.",
    ]
    assert f"message {first.pk}" in first.body
    assert f"/admin/alerts/alert/{Alert.objects.get().pk}/change/" in first.body
    assert "From 2026-03-02 03:00 UTC to 2026-03-02 03:03 UTC, 3 min." in Delivery.objects.get(occasion="recovery").body


def test_what_broke_and_recovered_before_anybody_was_told_is_one_message(make_route):
    make_route()
    settle(KIND, [down()], now=NOW)
    settle(KIND, [], now=at(3))
    runner.gather(at(60))
    assert titles() == ["Resolved: GET https://shop.example/17 is down (production)"]


def test_five_hundred_at_once_are_one_message_and_so_is_their_end(make_route, django_assert_max_num_queries):
    make_route()
    for part in range(10):  # as a prober finds them
        settle(KIND, [down(n) for n in range(50 * part + 50)], now=at(5 * part))
        runner.gather(at(5 * part + 4.9))
    assert titles() == []
    with django_assert_max_num_queries(14):
        runner.gather(at(60))
    assert titles() == ["Warning: 500 endpoints down in production"]
    body = Delivery.objects.get().body.splitlines()
    assert len(body) < 30
    assert "- and 480 more" in body
    with django_assert_max_num_queries(14):
        settle(KIND, [], now=at(600))
    runner.gather(at(660))
    assert titles("recovery") == ["Resolved: 500 endpoints down in production"]
    assert Notice.objects.waiting().count() == 0


def test_a_few_go_out_by_themselves_and_kinds_are_counted(make_route):
    make_route()
    settle(KIND, [down(n) for n in range(4)], now=NOW)
    runner.gather(at(5))
    assert len(titles()) == 4
    settle(KIND, [down(n) for n in range(7)], now=at(10))  # three more in the same minute: a storm after all
    settle("database_down", [down(subject="database:shop", environment="staging", severity="critical")], now=at(11))
    assert runner.gather(at(16)) == at(21)
    runner.gather(at(21))
    assert len(titles()) == 8
    settle("database_down", [], now=at(120))
    runner.gather(at(126))
    settle("database_down", [down(n, subject=f"database:{n}") for n in range(9)], now=at(300))
    runner.gather(at(360))
    settle(KIND, [], now=at(700))
    settle("database_down", [], now=at(700))
    runner.gather(at(760))
    assert titles("recovery")[1:] == ["Resolved: 16 alerts in production"]
    assert "9 databases down, 7 endpoints down." in Delivery.objects.get(alerts=16).body


def test_routes_take_what_they_are_for(make_route):
    make_route("all")
    make_route("night", minimum_severity="critical")
    make_route("staging", environments=["staging"])
    make_route("backups", kinds=["backup_failed"])
    make_route("blog", services=["blog"])
    make_route("off", enabled=False)
    settle(KIND, [down()], now=NOW)
    settle("pulsewatch_stale", [down(subject="pulsewatch:beat", environment="", service="")], now=NOW)
    runner.gather(at(5))

    def told(name: str) -> list[str]:
        return sorted(Delivery.objects.filter(route__name=name).values_list("title", flat=True))

    assert [len(told(name)) for name in ("all", "night", "staging", "backups", "blog", "off")] == [2, 0, 1, 0, 1, 0]
    settle(KIND, [down(severity="critical")], now=at(60))
    runner.gather(at(66))
    assert told("night") == ["Critical: GET https://shop.example/17 is down (production)"]
    settle(KIND, [], now=at(120))
    runner.gather(at(126))
    # Who was told of it hears that it is over, and nobody else.
    assert [len(told(name)) for name in ("all", "night", "staging")] == [4, 2, 1]


def test_who_was_not_told_or_does_not_want_it_hears_of_no_recovery(make_route):
    make_route("quiet", send_recoveries=False)
    settle(KIND, [down()], now=NOW)
    runner.gather(at(5))
    make_route("late")
    settle(KIND, [], now=at(60))
    runner.gather(at(66))
    assert titles() == ["Warning: GET https://shop.example/17 is down (production)"]


def test_reminders_come_at_the_routes_interval_until_somebody_acknowledges(make_route):
    make_route("hourly", reminder_minutes=60)
    make_route("never", reminder_minutes=0)
    settle(KIND, [down()], now=NOW)
    runner.gather(at(5))
    assert runner.remind(at(3600)) == 0
    assert runner.remind(at(3605)) == 1
    assert runner.remind(at(3606)) == 0
    assert titles("reminder") == ["Still warning: GET https://shop.example/17 is down (production)"]
    assert "For 1 h, and nobody has acknowledged it." in Delivery.objects.get(occasion="reminder").body
    assert runner.remind(at(7300)) == 0, "the first one has not gone out: a broken route gathers none"
    Delivery.objects.filter(occasion="reminder").update(status="sent", sent_at=at(7300))
    assert runner.remind(at(7301)) == 1
    Delivery.objects.filter(occasion="reminder").update(status="sent", sent_at=at(7301))
    acknowledge(alert=Alert.objects.get(), actor=ANA, note="on it")
    assert runner.remind(at(9000 + 3600)) == 0
    settle(KIND, [down(severity="critical")], now=at(9000))  # worse than what was acknowledged
    runner.gather(at(9005))
    assert runner.remind(at(9005 + 3600)) == 1
    assert Delivery.objects.filter(occasion="reminder", route__name="never").count() == 0


def test_a_reminder_of_many_costs_no_more_statements_than_one_of_a_few(make_route, django_assert_max_num_queries):
    make_route()
    settle(KIND, [down(number) for number in range(400)], now=NOW)
    runner.gather(at(60))
    with django_assert_max_num_queries(16):
        assert runner.remind(at(60 + 3600)) == 400
    assert Notice.objects.filter(event__kind="reminded", delivery__isnull=False).count() == 400
    assert runner.remind(at(60 + 3601)) == 0


def test_many_reminders_are_one_message(make_route):
    make_route()
    settle(KIND, [down(n) for n in range(30)], now=NOW)
    runner.gather(at(60))
    assert runner.remind(at(3700)) == 30
    assert titles("reminder") == ["Still warning: 30 endpoints down in production"]


def test_a_maintenance_window_keeps_an_alert_until_its_end(make_route):
    make_route()
    window(service="shop")
    settle(KIND, [down(1), down(2), down(3, service="blog")], now=at(60))
    runner.gather(at(65))
    assert titles() == ["Warning: GET https://shop.example/3 is down (production)"]
    assert {row.silenced_until for row in Alert.objects.filter(service="shop")} == {NOW + timedelta(minutes=30)}
    assert AlertEvent.objects.filter(kind="silenced").count() == 2
    settle(KIND, [down(1), down(3, service="blog")], now=at(600))
    runner.gather(at(605))
    assert runner.remind(at(1700)) == 0
    runner.gather(at(1799))
    assert len(titles()) == 1  # what recovered within the window was never told, nor is its end
    runner.gather(at(1806))
    assert len(titles()) == 2
    assert Alert.objects.get(subject="endpoint:1").silenced_until is None
    settle(KIND, [], now=at(2000))
    runner.gather(at(2006))
    assert len(titles("recovery")) == 2


def test_who_was_told_before_a_window_hears_of_the_end_within_it(make_route):
    make_route()
    settle(KIND, [down()], now=at(-300))
    runner.gather(at(-295))
    window()
    settle(KIND, [down(severity="critical")], now=at(60))
    runner.gather(at(66))
    settle(KIND, [], now=at(120))
    runner.gather(at(126))
    assert titles() == [
        "Warning: GET https://shop.example/17 is down (production)",
        "Resolved: GET https://shop.example/17 is down (production)",
    ]


def test_a_cancelled_window_lets_go_what_it_held(make_route, time_machine):
    time_machine.move_to(at(65), tick=False)
    make_route()
    row = window()
    settle(KIND, [down()], now=at(60))
    runner.gather(at(65))
    assert titles() == []
    arrangements.cancel_window(window=row, actor=ANA)
    runner.gather(at(71))
    assert len(titles()) == 1


def test_a_clock_that_is_set_back_holds_nothing_up(make_route):
    make_route()
    settle(KIND, [down()], now=NOW)
    runner.gather(at(-3600))
    assert len(titles()) == 0
    assert runner.gather(at(-3595)) is not None or titles()


def test_alerts_and_messages_are_kept_for_ninety_days(make_route):
    make_route()
    settle(KIND, [down(1), down(2)], now=NOW)
    runner.gather(at(5))
    settle(KIND, [down(2)], now=at(60))
    runner.gather(at(65))
    later = at(65) + timedelta(days=91)
    assert runner.clean_up(later) == 3
    assert list(Alert.objects.values_list("subject", flat=True)) == ["endpoint:2"]
    settle(KIND, [], now=later)
    runner.gather(later + timedelta(seconds=5))
    assert titles("recovery") == ["Resolved: GET https://shop.example/2 is down (production)"]


def test_the_stop_switch_ends_the_clean_up_before_its_next_batch(make_route, monkeypatch):
    monkeypatch.setattr(runner, "REMOVED_AT_ONCE", 2)
    settle(KIND, [down(number) for number in range(5)], now=NOW)
    settle(KIND, [], now=at(60))

    def somebody_stops(**_):
        StopSwitch.objects.update_or_create(pk=1, defaults={"on": True, "changed_at": NOW})

    post_delete.connect(somebody_stops, sender=Alert)
    try:
        assert runner.clean_up(at(65) + timedelta(days=91)) == 2
    finally:
        post_delete.disconnect(somebody_stops, sender=Alert)
    assert Alert.objects.count() == 3
