"""Endpoints in the console: the list, the page of each, the form."""

from datetime import UTC, datetime, timedelta

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from apps.alerts.models import Alert, MaintenanceWindow
from apps.console.models import Note
from apps.console.roles import ensure_groups
from apps.core import ids
from apps.core.models import AuditEntry
from apps.health.choices import CheckStatus
from apps.health.models import EndpointCheck, EndpointState, HealthHourly, RolledHour
from apps.health.rules import hour_of
from apps.inventory.models import Endpoint
from apps.inventory.runner import headers_of
from tests.factories import DeploymentFactory, EndpointFactory, ServiceFactory, UserFactory, WorkloadFactory

pytestmark = pytest.mark.django_db

LIST = "admin:inventory_endpoint_changelist"
SECRET = "hunter2-hunter2"


@pytest.fixture
def sign_in(client):
    ensure_groups()

    def as_member(group: str):
        client.force_login(
            UserFactory(username=group, group=group), backend="django.contrib.auth.backends.ModelBackend"
        )
        return client

    return as_member


def state(endpoint: Endpoint, status: str, **given: object) -> EndpointState:
    now = timezone.now()
    given = {"last_checked": now, "since": now - timedelta(hours=2), "response_time": 84.2, **given}
    return EndpointState.objects.create(
        endpoint=endpoint,
        environment=endpoint.workload.environment,
        endpoint_path=endpoint.endpoint_path,
        http_method=endpoint.http_method,
        expected_status=endpoint.expected_status,
        status=status,
        **given,
    )


def hour(endpoint: Endpoint, at: datetime, **given: object) -> HealthHourly:
    counts = {"healthy": 60, "degraded": 0, "down": 0, "unknown": 0, "maintenance": 0, **given}
    good, down = counts["healthy"] + counts["degraded"], counts["down"]
    return HealthHourly.objects.create(
        kind="endpoint",
        subject=str(endpoint.pk),
        hour=at.replace(minute=0, second=0, microsecond=0),
        checks=sum(counts.values()),
        measured=60,
        uptime=good / (good + down) if good + down else None,
        response_mean_ms=80,
        response_p95_ms=120,
        response_max_ms=300,
        **counts,
    )


@pytest.fixture
def shop():
    return WorkloadFactory(service=ServiceFactory(slug="shop"), base_url="https://shop.example")


def fields(workload, **given: object) -> dict[str, object]:
    """What the browser sends."""
    defaults = {
        field.name: field.get_default()
        for field in Endpoint._meta.fields
        if field.editable and field.has_default() and field.get_default() is not False
    }
    return defaults | {"workload": workload.pk, "endpoint_path": "/api", "name": "", "body_json": "", **given}


def test_the_list_shows_the_worst_first_with_what_one_needs_to_know(sign_in, shop):
    now = timezone.now()
    fine = EndpointFactory(workload=shop, endpoint_path="/fine")
    slow = EndpointFactory(workload=shop, endpoint_path="/slow")
    down = EndpointFactory(workload=shop, endpoint_path="/down", name="Cart")
    EndpointFactory(workload=shop, endpoint_path="/new")
    state(EndpointFactory(workload=shop, endpoint_path="/off", enabled=False), "failed")
    state(fine, CheckStatus.HEALTHY, tls_expires_at=now + timedelta(days=12, hours=1))
    state(slow, CheckStatus.DEGRADED, response_time=1500)
    state(down, CheckStatus.FAILED, consecutive_failures=7, error_message="refused the connection")
    hour(down, now - timedelta(hours=2), down=6, healthy=54)
    RolledHour.objects.create(kind="endpoint", hour=hour_of(now - timedelta(hours=2)), checks=60, rolled_at=now)
    for minute in range(10):  # since then
        EndpointCheck.objects.create(endpoint=down, at=now - timedelta(minutes=minute), status="failed")
    client = sign_in("viewer")

    text = client.get(reverse(LIST)).content.decode()

    order = [text.index(path) for path in ("Cart (GET /down)", "/slow", "/new", "/fine", "/off")]
    assert order == sorted(order)
    for words in ("refused the connection", "77 %", "12 days left", "1,500\u00a0ms", ">7<", "shop/production"):
        assert words in text, words
    assert "/fine" not in client.get(reverse(LIST), {"status": "failed"}).content.decode()
    assert "/new" in client.get(reverse(LIST), {"status": "unknown"}).content.decode()
    assert "/off" in client.get(reverse(LIST), {"status": "off"}).content.decode()
    assert "/slow" not in client.get(reverse(LIST), {"q": "cart"}).content.decode()


def test_the_list_costs_the_same_queries_for_one_endpoint_and_for_fifty_and_counts_nothing(sign_in, shop):
    client, counts = sign_in("viewer"), []
    for number in (1, 49):
        for _ in range(number):
            state(EndpointFactory(workload=shop), CheckStatus.HEALTHY)
        with CaptureQueriesContext(
            connection,
        ) as asked:
            assert client.get(reverse(LIST)).status_code == 200
        counts.append(len(asked))

    assert counts[0] == counts[1]
    assert counts[0] <= 16
    assert not [query["sql"] for query in asked if "COUNT(*)" in query["sql"]]


def test_the_page_of_an_endpoint_shows_how_it_fares_and_what_happened_beside_it(sign_in, shop):
    now = timezone.now()
    row = EndpointFactory(workload=shop, endpoint_path="/cart", body_contains="<b>ok</b>")
    state(row, CheckStatus.FAILED, consecutive_failures=4, actual_status=503, error_message="answered 503, not 200")
    for minutes in range(10, 50):
        EndpointCheck.objects.create(
            endpoint=row,
            at=now - timedelta(minutes=minutes),
            status="failed" if minutes < 20 else "healthy",
            response_time_ms=80,
            http_status=503 if minutes < 20 else 200,
            error="answered 503, not 200" if minutes < 20 else "",
        )
    hour(row, now - timedelta(hours=3), down=3, healthy=57)
    began = now - timedelta(minutes=21)
    DeploymentFactory(pk=f"{ids.timestamped('deploy', began)}_a", workload=shop, version="v7.7.7", started_at=began)
    DeploymentFactory(pk=f"{ids.timestamped('deploy', began)}_b", version="v6.6.6", started_at=began)  # elsewhere
    Note.objects.create(at=now - timedelta(hours=1), text="DNS changed", environment="production", by="ana")
    window = now - timedelta(hours=5)
    MaintenanceWindow.objects.create(
        name="patching",
        first_day=window.date(),
        start_time=window.time().replace(microsecond=0),
        subject=f"endpoint:{row.pk}",
    )
    Alert.objects.create(
        pk="alert_1", kind="endpoint_down", subject=f"endpoint:{row.pk}", severity="critical",
        title="GET /cart is down", opened_at=now - timedelta(minutes=17), environment="production",
    )  # fmt: skip

    client = sign_in("viewer")
    with CaptureQueriesContext(connection) as asked:
        text = client.get(reverse("admin:inventory_endpoint_change", args=[row.pk])).content.decode()

    for words in (
        "Failed, for 2 h now: answered 503, not 200.",
        "https://shop.example/cart",
        "&lt;b&gt;ok&lt;/b&gt;",
        "v7.7.7",
        "DNS changed (ana)",
        "maintenance: patching",
        "GET /cart is down",
        "75 % in 24 hours",
        'class="bad"',
        'class="good"',
        'class="curve"',
    ):
        assert words in text, words
    assert "v6.6.6" not in text
    assert "/edit/" not in text  # a viewer changes nothing
    assert len(asked) <= 30


def test_an_endpoint_that_was_never_asked_says_why(sign_in, shop):
    client = sign_in("viewer")
    new = EndpointFactory(workload=shop)
    off = EndpointFactory(workload=shop, enabled=False)
    homeless = EndpointFactory(workload=WorkloadFactory(base_url=""))

    for row, words in (
        (new, "Nobody has looked at it yet"),
        (off, "It is switched off"),
        (homeless, "has no base URL"),
    ):
        text = client.get(reverse("admin:inventory_endpoint_change", args=[row.pk])).content.decode()
        assert words in text
        assert "Nothing has been measured in this time." in text


def test_an_operator_adds_an_endpoint_and_changes_it_without_seeing_its_headers_again(sign_in, shop):
    client = sign_in("operator")
    wrong = client.post(
        reverse("admin:inventory_endpoint_add"), fields(shop, expected_status="299-200", headers=f"X-Key: {SECRET}")
    )
    assert "The range 299-200 is upside down: write 200-299." in wrong.content.decode()
    assert SECRET not in wrong.content.decode()

    made = client.post(reverse("admin:inventory_endpoint_add"), fields(shop, headers=f"X-Key: {SECRET}"))

    row = Endpoint.objects.get()
    page = reverse("admin:inventory_endpoint_change", args=[row.pk])
    assert (made.status_code, made.url, row.name) == (302, page, "GET /api")
    assert headers_of(row) == {"X-Key": SECRET}
    edit = reverse("admin:inventory_endpoint_edit", args=[row.pk])
    for address in (page, edit):
        text = client.get(address).content.decode()
        assert SECRET not in text
    assert edit in client.get(page).content.decode()

    changed = client.post(edit, fields(WorkloadFactory(), slow_ms=300, name="Cart"))
    row.refresh_from_db()
    assert (changed.url, row.slow_ms, row.name, row.workload) == (page, 300, "Cart", shop)
    assert headers_of(row) == {"X-Key": SECRET}

    assert "has no colon" in client.post(edit, fields(shop, headers=SECRET)).content.decode()
    assert "both at once" in client.post(edit, fields(shop, headers="X: 1", drop_headers="on")).content.decode()
    assert client.post(edit, fields(shop, drop_headers="on")).status_code == 302
    row.refresh_from_db()
    assert headers_of(row) == {}
    assert SECRET not in str(list(AuditEntry.objects.values()))


def test_two_endpoints_of_one_name_are_refused_in_the_form(sign_in, shop):
    EndpointFactory(workload=shop, name="GET /api")

    text = sign_in("operator").post(reverse("admin:inventory_endpoint_add"), fields(shop)).content.decode()

    assert "already has an endpoint of that name" in text
    assert Endpoint.objects.count() == 1


def test_endpoints_are_removed_one_by_one_or_many_at_once_and_audited(sign_in, shop):
    client, rows = sign_in("operator"), [EndpointFactory(workload=shop) for _ in range(3)]
    keys = [row.pk for row in rows]
    EndpointCheck.objects.create(endpoint=rows[0], at=datetime(2026, 3, 1, tzinfo=UTC), status="healthy")

    client.post(reverse("admin:inventory_endpoint_delete", args=[keys[0]]), {"post": "yes"})
    client.post(reverse(LIST), {"action": "delete_selected", "_selected_action": keys[1:], "post": "yes"})

    assert not Endpoint.objects.exists()
    assert [AuditEntry.objects.of(f"endpoint:{key}").get().action for key in keys] == ["endpoint.delete"] * 3


@pytest.mark.parametrize("page", ["endpointcheck", "databasecheck", "healthhourly"])
def test_history_is_looked_at_and_never_changed(sign_in, page, shop):
    row = EndpointFactory(workload=shop)
    EndpointCheck.objects.create(endpoint=row, at=timezone.now(), status="failed", error="refused the connection")
    hour(row, timezone.now())
    client = sign_in("admin")

    for query in (
        {},
        {"subject": str(row.pk), "kind__exact": "endpoint"}
        if page == "healthhourly"
        else {"endpoint__id__exact": row.pk}
        if page == "endpointcheck"
        else {},
    ):
        with CaptureQueriesContext(connection) as asked:
            reply = client.get(reverse(f"admin:health_{page}_changelist"), query)
        assert reply.status_code == 200
        assert not [one["sql"] for one in asked if "COUNT(*)" in one["sql"]]
        # Joined, the database would begin with the targets and sort millions.
        assert not [one["sql"] for one in asked if "_checks" in one["sql"] and "JOIN" in one["sql"]]
    assert client.get(reverse(f"admin:health_{page}_add")).status_code == 403


def test_a_file_is_tried_imported_and_exported_in_the_console(sign_in, shop):
    client, page = sign_in("operator"), reverse("admin:inventory_endpoint_import_file")
    assert page in client.get(reverse(LIST)).content.decode()

    def send(text: str, name: str = "targets.csv", **more: str):
        file = SimpleUploadedFile(name, text.encode())
        return client.post(page, {"file": file, **more}, follow=True).content.decode()

    head = "service,environment,path\n"
    assert "1 would be added" in send(f"{head}shop,production,/a\n", dry_run="on")
    assert not Endpoint.objects.exists()
    wrong = send(f"{head}shop,moon,/a\nshop,production,b\n")
    assert "row 2, environment: Enter one of" in wrong
    assert "row 3, path: Enter a path" in wrong
    assert "name ends in" in send("x", name="targets.exe")
    assert "1 added, 0 changed" in send("- {service: shop, environment: production, path: /a}", name="targets.yml")
    assert Endpoint.objects.get().workload == shop
    assert b"shop,production,GET,/a" in client.get(reverse("admin:inventory_endpoint_export_csv")).content
    assert b"path: /a" in client.get(reverse("admin:inventory_endpoint_export_yaml")).content


def test_a_viewer_exports_and_imports_nothing(sign_in):
    client = sign_in("viewer")

    assert client.get(reverse("admin:inventory_endpoint_export_csv")).status_code == 200
    assert client.get(reverse("admin:inventory_endpoint_import_file")).status_code == 403
    assert client.post(reverse("admin:inventory_endpoint_import_file")).status_code == 403
