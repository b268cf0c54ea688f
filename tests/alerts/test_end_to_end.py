"""From a real server that fails, through the prober, to what people are told, and back."""

import asyncio
import ssl
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from django.utils import timezone

from apps.alerts import arrangements, runner
from apps.alerts.models import Alert, Delivery, MaintenanceWindow
from apps.core.audit import Actor
from apps.health import alerting, prober, standings
from apps.health.models import EndpointState
from apps.health.prober import Prober
from apps.health.rules import schedule, suspicion
from apps.inventory.models import Endpoint
from tests.alerts.conftest import received
from tests.factories import EndpointFactory, WorkloadFactory
from tests.health.quick import LENGTH, QUICK, START, QuickClock
from tests.receiver import Receiver, Reply, receiver
from tests.servers import free_port

pytestmark = pytest.mark.django_db(transaction=True)
ANA = Actor.automation("ana")


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    monkeypatch.setattr(schedule, "MINUTE", LENGTH)
    monkeypatch.setattr(schedule, "LEAD", timedelta(0))
    monkeypatch.setattr(prober, "LOOK_EVERY", 0.05)
    monkeypatch.setattr(prober, "STALL_SECONDS", 60 * QUICK)  # a busy machine is no stall
    # Of the quick clock too: what a busy machine sees late is still seen together.
    windows = tuple((seconds * QUICK, least) for seconds, least in suspicion.WINDOWS)
    monkeypatch.setattr(suspicion, "WINDOWS", windows)
    monkeypatch.setattr(standings, "WINDOWS", windows)


def probe(minute: datetime) -> None:
    """Run the slice of a shortened minute from its start."""

    async def run() -> None:
        await Prober(allow_loopback=True, clock=QuickClock(minute)).run(0, 1, minute)

    asyncio.run(run())


def probe_until(slices: Iterator[datetime], come: Callable[[], bool]) -> None:
    """Slice after slice; on a busy machine some checks of one are too late for the quick clock, and are left out."""
    for _ in range(8):
        probe(next(slices))
        if come():
            return
    raise AssertionError(f"it has not come within eight slices: {Counter(Alert.objects.open().values_list('kind'))}")


def tell(now: datetime) -> list[str]:
    """The titles of what is written by then, after all that was written before."""
    before = set(Delivery.objects.values_list("pk", flat=True))
    runner.gather(now)
    return list(Delivery.objects.exclude(pk__in=before).values_list("title", flat=True))


# ---- A certificate ---------------------------------------------------------------------------------------------------


class Site:
    """A web server on localhost with a certificate, which can be renewed while it runs."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._context = folder, ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.authority = folder / "site.pem"

    def renew(self, days: int) -> None:
        """Show a certificate that ends so many days from now to whoever connects from now on."""
        key = self._folder / "key.pem"
        subprocess.run(
            [
                *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
                *("-days", str(days), "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"),
                *("-keyout", key, "-out", self.authority),
            ],
            check=True,
            capture_output=True,
        )
        self._context.load_cert_chain(self.authority, key)

    def serve(self) -> Iterator[int]:
        class Answering(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", free_port()), Answering)
        server.socket = self._context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server.server_port
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def site(tmp_path, monkeypatch) -> Iterator[tuple[Site, int]]:
    made = Site(tmp_path)
    made.renew(5)
    monkeypatch.setenv("SSL_CERT_FILE", str(made.authority))
    for port in made.serve():
        yield made, port


def test_a_certificate_that_ends_in_five_days_is_told_unless_a_window_is_open_and_closes_when_it_is_renewed(
    site, make_route
):
    renewing, port = site
    make_route()
    endpoint = EndpointFactory(
        workload=WorkloadFactory(base_url=f"https://localhost:{port}"), interval_seconds=10, slow_ms=30_000
    )
    Endpoint.objects.update(updated_at=START)
    now = timezone.now().replace(microsecond=0)
    window = MaintenanceWindow(
        name="Renewal", first_day=now.date(), start_time=now.time().replace(second=0), minutes=60,
        subject=f"endpoint:{endpoint.pk}",
    )  # fmt: skip
    arrangements.save_window(window=window, actor=ANA)

    probe(now)
    later = now + timedelta(seconds=30)
    alerting.settle_all(later)

    alert = Alert.objects.get()
    ends = EndpointState.objects.get(status="healthy").tls_expires_at
    assert timedelta(days=4) < ends - now < timedelta(days=5, minutes=1)
    assert (alert.kind, alert.severity, alert.subject) == (
        "certificate_expires", "critical", f"endpoint:{endpoint.pk}",
    )  # fmt: skip
    assert f"It ends on {ends:%Y-%m-%d at %H:%M} UTC" in alert.detail
    assert tell(later + timedelta(seconds=6)) == [], "the window is open"
    alert.refresh_from_db()
    assert alert.silenced_until is not None

    arrangements.cancel_window(window=window, actor=ANA)
    told = tell(later + timedelta(seconds=20))
    assert len(told) == 1
    assert f"The certificate of https://localhost:{port}" in told[0]

    alerting.settle_all(later + timedelta(seconds=60))
    assert tell(later + timedelta(seconds=70)) == [], "it was told"

    renewing.renew(90)
    probe(now + timedelta(seconds=120))
    alerting.settle_all(later + timedelta(seconds=120))

    assert not Alert.objects.open().exists()
    (resolved,) = tell(later + timedelta(seconds=130))
    assert resolved.startswith("Resolved: The certificate of")


# ---- Everything at once ----------------------------------------------------------------------------------------------


@pytest.fixture
def servers() -> Iterator[tuple[Receiver, Receiver]]:
    with receiver() as failing, receiver() as steady:
        yield failing, steady


def fleet(server: Receiver, count: int, services: int) -> None:
    """Endpoints of several services that are all on one server."""
    for _ in range(services):
        workload = WorkloadFactory(base_url=server.url, environment="production")
        EndpointFactory.create_batch(
            count // services, workload=workload, interval_seconds=10, slow_ms=30_000,
            failures_before_down=2, successes_before_up=1,
        )  # fmt: skip
    Endpoint.objects.update(updated_at=START - timedelta(days=1))


def test_three_hundred_that_fail_in_one_minute_are_one_message_and_so_is_their_recovery(servers, make_route, hook):
    failing, steady = servers
    route = make_route()
    fleet(failing, 300, 6)
    fleet(steady, 60, 2)
    slices = iter(START + number * LENGTH for number in range(40))

    def open_ones() -> list[str]:
        return list(Alert.objects.open().values_list("kind", flat=True))

    def all_are_well() -> bool:
        return EndpointState.objects.filter(status="healthy").count() == 360

    probe_until(slices, all_are_well)

    failing.starts_over(Reply(503))
    probe_until(slices, lambda: open_ones() == ["endpoint_down"] * 300)
    told = START + timedelta(minutes=5)
    assert tell(told) == ["Critical: 300 endpoints down in production"]

    failing.starts_over(Reply(200))
    probe_until(slices, all_are_well)
    alerting.settle_all(told + timedelta(minutes=1))  # as each minute does: the quick clock was ahead of some slices
    assert open_ones() == []
    assert tell(told + timedelta(minutes=2)) == ["Resolved: 300 endpoints down in production"]
    assert runner.deliver(route.pk, clock=lambda: told + timedelta(minutes=3)) == 2
    assert len(received(hook)) == 2
