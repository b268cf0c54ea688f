"""Messages go to a real server that answers, refuses, hangs, and comes back. At least once, in their order."""

import threading
import time
from datetime import timedelta

import pytest
from django.db import IntegrityError, connection, transaction
from django.utils import timezone

from apps.alerts import channels, runner, tasks
from apps.alerts.models import Delivery, Route
from apps.alerts.services import settle
from apps.core.errors import Invalid, Transient
from tests.alerts.conftest import NOW, at, down, received
from tests.receiver import Reply, Trouble
from tests.servers import free_port

KIND = "endpoint_down"


def opened(*numbers: int, now=NOW, **changes) -> None:
    settle(KIND, [down(number, **changes) for number in numbers], now=now)
    runner.gather(now + timedelta(seconds=5))


@pytest.mark.django_db
def test_a_message_arrives_as_it_was_written_and_is_not_sent_again(make_route, hook):
    route = make_route()
    opened(17, title="GET /<script>alert(1)</script>'; DROP TABLE alerts;-- is down", severity="critical")

    assert runner.deliver(route.pk, clock=lambda: at(6)) == 1
    assert runner.deliver(route.pk, clock=lambda: at(7)) == 0
    assert runner.gather(at(8)) is None

    row = Delivery.objects.get()
    [message] = received(hook)
    assert message["title"] == "Critical: GET /<script>alert(1)</script>'; DROP TABLE alerts;-- is down (production)"
    assert message["message"] == row.body
    assert message["type"] == "failure"
    assert (row.status, row.attempts, row.sent_at) == ("sent", 1, at(6))
    route.refresh_from_db()
    assert (route.failing_since, route.last_sent_at) == (None, at(6))


@pytest.mark.django_db
def test_a_route_that_fails_is_tried_again_under_the_same_id_until_it_is_back(make_route, hook):
    route = make_route()
    opened(17)
    errors = []
    moment = 6.0
    for trouble in (Reply(500, b"t0psecret"), Trouble.RESET, Trouble.GARBAGE, Reply(302, headers={"Location": "/x"})):
        hook.starts_over(trouble)
        runner.deliver(route.pk, clock=lambda: at(moment))  # noqa: B023  (called at once)
        row = Delivery.objects.get()
        errors.append(row.error)
        assert row.status == "queued"
        assert runner.deliver(route.pk, clock=lambda: at(moment)) == 0  # noqa: B023  (not before its time)
        moment = (row.next_attempt_at - NOW).total_seconds()
    route.refresh_from_db()
    assert route.failing_since == at(6)
    assert "error=500" in errors[0]
    assert "error=302" in errors[3]
    assert not any(word in "".join(errors) for word in ("t0psecret", "127.0.0.1", str(hook.port)))
    hook.starts_over(Reply())
    assert runner.deliver(route.pk, clock=lambda: at(moment)) == 1
    route.refresh_from_db()
    assert (route.failing_since, route.last_error) == (None, "")
    assert Delivery.objects.get().pk in received(hook)[0]["message"]
    assert Delivery.objects.get().attempts == 5


@pytest.mark.django_db
def test_after_a_day_of_attempts_a_message_is_given_up_and_others_go_on(make_route, hook):
    route = make_route(url=f"json://127.0.0.1:{free_port()}")
    opened(17)
    Delivery.objects.update(attempts=53)
    assert runner.deliver(route.pk, clock=lambda: at(6)) == 0
    row = Delivery.objects.get()
    assert (row.status, row.attempts) == ("failed", 54)
    assert runner.deliver(route.pk, clock=lambda: at(60_000)) == 0


@pytest.mark.django_db
def test_what_a_dead_worker_was_sending_is_sent_again(make_route, hook):
    route = make_route()
    opened(17)
    # It died after the server had taken the message, before that was recorded.
    claimed = runner._claim(route.pk, at(6))
    assert claimed.status == "queued"
    assert Delivery.objects.get().status == "sending"
    assert runner.deliver(route.pk, clock=lambda: at(30)) == 0  # it may still be at it
    assert runner.deliver(route.pk, clock=lambda: at(4)) == 0  # by the clock of another process that is a bit behind
    assert runner.deliver(route.pk, clock=lambda: at(67)) == 1
    assert Delivery.objects.get().attempts == 2
    # And when it wakes up again after all, it records nothing.
    channels_send, sent = channels.send, []
    channels.send = lambda *_, **__: sent.append(1)
    try:
        runner._send(claimed, lambda: at(70))
    finally:
        channels.send = channels_send
    assert Delivery.objects.get().sent_at == at(67)


@pytest.mark.django_db
def test_a_clock_that_is_set_back_frees_what_was_claimed_in_the_future(make_route, hook):
    route = make_route()
    opened(17)
    runner._claim(route.pk, at(6 + 3600))
    assert runner.deliver(route.pk, clock=lambda: at(10)) == 1


@pytest.mark.django_db
def test_messages_of_a_route_go_out_in_their_order_one_at_a_time(make_route, hook):
    route = make_route()
    opened(1)
    opened(1, 2, now=at(20))
    first, second = Delivery.objects.order_by("created_at")
    runner._claim(route.pk, at(30))
    assert runner._claim(route.pk, at(30)) is None
    with pytest.raises(IntegrityError, match="alert_deliveries_one_sending"), transaction.atomic():
        Delivery.objects.filter(pk=second.pk).update(status="sending")
    Delivery.objects.filter(pk=first.pk).update(status="queued", lease_until=None)
    assert runner.deliver(route.pk, clock=lambda: at(31)) == 2
    assert [first.pk in received(hook)[0]["message"], second.pk in received(hook)[1]["message"]] == [True, True]


@pytest.mark.django_db(transaction=True)
def test_a_route_that_hangs_holds_up_neither_the_worker_nor_another_route(make_route, hook):
    stuck = make_route("stuck", url=f"json://127.0.0.1:{hook.port}/stuck")
    well = make_route("well", url=f"json://127.0.0.1:{hook.port}/well")
    hook.starts_over(Trouble.NEVER, Reply())
    settle(KIND, [down()], now=timezone.now() - timedelta(seconds=10))
    runner.gather(timezone.now())

    started = time.monotonic()
    tasks.deliver(str(stuck.pk))
    _until(lambda: len(hook.requests) == 1)
    tasks.deliver(str(well.pk))
    assert time.monotonic() - started < 3  # the worker was free all the time but for what the test waits for
    _until(lambda: Delivery.objects.filter(route=well, status="sent").exists())
    assert Delivery.objects.get(route=stuck).status == "sending"
    _until(lambda: Delivery.objects.get(route=stuck).status == "queued")
    assert "Connection error" in Delivery.objects.get(route=stuck).error
    _until(lambda: not [thread for thread in threading.enumerate() if thread.name.startswith("route-")])


@pytest.mark.django_db(transaction=True)
@pytest.mark.engine
def test_workers_that_do_everything_at_once_write_and_send_each_message_once(make_route, hook):
    route = make_route()
    settle(KIND, [down(number) for number in range(3)], now=timezone.now() - timedelta(seconds=10))
    for work in (lambda: runner.gather(timezone.now()), lambda: runner.deliver(route.pk)):
        barrier, faults = threading.Barrier(3), []

        def run(work=work, barrier=barrier, faults=faults):
            try:
                barrier.wait(10)
                work()
            except Exception as error:  # every fault of a thread is the test's
                faults.append(error)
            finally:
                connection.close()

        threads = [threading.Thread(target=run) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert not faults
    assert Delivery.objects.filter(status="sent", attempts=1).count() == 3
    assert len({message["title"] for message in received(hook)}) == len(hook.requests) == 3


def _until(condition, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


@pytest.mark.django_db
def test_the_tick_wakes_routes_whose_messages_were_lost(make_route, hook, monkeypatch):
    route = make_route()
    woken = []
    monkeypatch.setattr(runner, "wake", lambda task, key, seconds=0: woken.append((task, key)))
    settle(KIND, [down()], now=NOW)  # Redis is away: nobody gathers
    assert runner.tick(at(4)) == at(5)
    assert runner.tick(at(60)) is None
    woken.clear()  # and again
    runner.tick(at(120))
    assert woken == [("alerts.deliver", str(route.pk))]


def test_an_address_is_checked_and_never_shown():
    assert channels.check("json://127.0.0.1/hook") == "JSON"
    wrong = {
        "": "Enter an Apprise address",
        "json://t0psecret.example/\n" * 200: "one line of up to 2,000 characters",
        f"json://{'t0psecret' * 300}": "one line of up to 2,000 characters",
        "t0psecret://example": "knows no such kind of address",
        "t0psecret": "knows no such kind of address",
        "slack://t0psecret": "needs more than it says",
        "json://user:t0psecret@[::1": "needs more than it says",
    }
    for url, words in wrong.items():
        with pytest.raises(Invalid, match=words) as caught:
            channels.check(url)
        assert "t0psecret" not in str(caught.value)
        assert caught.value.field == "url"


@pytest.mark.parametrize(
    "url", ["json://169.254.169.254/latest/?method=GET", "mailto://a:b@169.254.169.254?to=c@d.example"]
)
def test_no_message_goes_to_a_metadata_address(url):
    with pytest.raises(Transient, match="link-local or metadata address, which is never asked"):
        channels.send(url, title="t", body="b", severity="info", allow_loopback=True)


@pytest.mark.parametrize("scheme", ["json", "mailto", "rsyslog"])
def test_whoever_may_keep_routes_reaches_our_own_machine_only_where_a_setting_allows_it(hook, scheme):
    url = {
        "json": f"json://localhost:{hook.port}/t0psecret",
        "mailto": f"mailto://a:b@localhost:{hook.port}?to=c@d.example",
        "rsyslog": f"rsyslog://localhost:{hook.port}",  # sends without a connection
    }[scheme]
    with pytest.raises(Transient, match="only ALERT_ALLOW_LOOPBACK=true"):
        channels.send(url, title="t", body="b", severity="info", allow_loopback=False)
    assert not hook.requests


@pytest.mark.django_db
def test_the_setting_is_asked_when_a_message_is_sent(make_route, hook, settings):
    settings.ALERT_ALLOW_LOOPBACK = False
    route = make_route()
    opened(17)
    runner.gather(at(5))
    assert runner.deliver(route.pk, clock=lambda: at(6)) == 0
    assert "ALERT_ALLOW_LOOPBACK" in Delivery.objects.get().error
    settings.ALERT_ALLOW_LOOPBACK = True
    assert runner.deliver(route.pk, clock=lambda: at(60)) == 1


def test_a_proxy_of_this_machine_is_reached_and_judges_the_rest(hook, monkeypatch):
    """What is behind it we do not see: only the proxy's own address is known here."""
    monkeypatch.setenv("http_proxy", hook.url)
    monkeypatch.setenv("no_proxy", "")
    channels.send("json://hooks.example/t0psecret", title="t", body="b", severity="info", allow_loopback=False)
    assert [request.path for request in hook.requests] == ["http://hooks.example/t0psecret"]


def test_an_answer_without_end_costs_neither_memory_nor_time(hook):
    hook.starts_over(Trouble.ENDLESS)
    with pytest.raises(Transient, match="without an answer"):
        channels.send(
            f"json://127.0.0.1:{hook.port}/t0psecret", title="t", body="b", severity="info", allow_loopback=True
        )


def test_sending_ends_by_its_own_alarm(hook, monkeypatch):
    monkeypatch.setattr(channels, "PING_SECONDS", 1)
    hook.starts_over(Trouble.NEVER)
    with pytest.raises(Transient, match=r"no answer within 1 seconds|cannot be reached"):
        channels.ping(f"{hook.url}/t0psecret")


@pytest.mark.django_db
def test_a_broken_seal_is_a_broken_route_not_a_broken_worker(make_route, hook):
    route = make_route()
    opened(17)
    Route.objects.update(url_sealed=b"\x01nonsense")
    assert runner.deliver(route.pk, clock=lambda: at(6)) == 0
    assert Delivery.objects.get().status == "queued"
    assert Route.objects.broken().get() == route
