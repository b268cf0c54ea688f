"""Endpoints and the watch over databases: added, changed, removed; headers kept from everybody."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.core.audit import Actor
from apps.core.errors import Invalid
from apps.core.models import AuditEntry
from apps.inventory import headers, services, targets
from apps.inventory.models import Endpoint
from apps.inventory.runner import headers_of
from tests.factories import DatabaseFactory, EndpointFactory, WorkloadFactory

ACTOR = Actor.automation("test")
SECRET = "Bearer hunter2-hunter2"


def add(workload, **given) -> Endpoint:
    return targets.save_endpoint(endpoint=Endpoint(workload=workload, endpoint_path="/api", **given), actor=ACTOR)


@pytest.mark.django_db
def test_an_endpoint_is_named_by_its_method_and_path_unless_it_has_a_name():
    workload = WorkloadFactory(base_url="https://shop.example")

    assert add(workload).name == "GET /api"
    assert add(workload, name=" Cart ", http_method="HEAD").name == "Cart"
    assert [row.url for row in workload.endpoints.all()] == ["https://shop.example/api"] * 2


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("field", "given"),
    [
        ("endpoint_path", {"endpoint_path": "api"}),
        ("endpoint_path", {"endpoint_path": "//evil.example/"}),
        ("expected_status", {"expected_status": "299-200"}),
        ("body_json", {"body_json": "$..status"}),
        ("interval_seconds", {"interval_seconds": 9}),
        ("timeout_seconds", {"timeout_seconds": 61}),
        ("", {"timeout_seconds": 20, "interval_seconds": 10}),
        ("", {"certificate_critical_days": 30}),
        ("", {"name": "GET /taken"}),
    ],
)
def test_a_wrong_setting_names_its_field_and_nothing_is_kept(field, given):
    workload = EndpointFactory(name="GET /taken").workload

    with pytest.raises(Invalid) as refused:
        targets.save_endpoint(
            endpoint=Endpoint(**{"workload": workload, "endpoint_path": "/api", **given}), actor=ACTOR
        )

    assert refused.value.field == field
    assert str(refused.value).endswith(".")
    assert Endpoint.objects.count() == 1


@pytest.mark.django_db
def test_an_endpoint_stays_with_its_workload():
    endpoint = EndpointFactory()
    endpoint.workload = WorkloadFactory()

    with pytest.raises(Invalid, match="stays with its workload"):
        targets.save_endpoint(endpoint=endpoint, actor=ACTOR)


@pytest.mark.django_db
def test_headers_are_sealed_told_to_nobody_and_sent_to_no_other_address():
    workload = WorkloadFactory(base_url="https://shop.example")
    made = targets.save_endpoint(
        endpoint=Endpoint(workload=workload, endpoint_path="/api"), actor=ACTOR, headers={"Authorization": SECRET}
    )
    made = Endpoint.objects.select_related("workload").get(pk=made.pk)
    assert headers_of(made) == {"Authorization": SECRET}
    assert SECRET.encode() not in made.headers_sealed

    made.slow_ms = 500
    targets.save_endpoint(endpoint=made, actor=ACTOR)
    assert headers_of(Endpoint.objects.get(pk=made.pk)) == {"Authorization": SECRET}

    workload.base_url = "https://evil.example"
    services.save(workload, actor=ACTOR)
    with pytest.raises(Invalid, match="enter them again"):
        headers_of(Endpoint.objects.get(pk=made.pk))

    targets.save_endpoint(endpoint=made, actor=ACTOR, headers={})
    assert headers_of(Endpoint.objects.get(pk=made.pk)) == {}
    told = AuditEntry.objects.of(f"endpoint:{made.pk}").values_list("action", flat=True)
    assert list(told) == ["endpoint.headers_removed", "endpoint.update", "endpoint.headers_set", "endpoint.create"]
    assert SECRET not in str(list(AuditEntry.objects.values("before", "after")))


@pytest.mark.django_db
def test_a_header_that_may_not_be_sent_leaves_no_endpoint_behind():
    workload = WorkloadFactory(base_url="https://shop.example")

    with pytest.raises(Invalid) as refused:
        targets.save_endpoint(
            endpoint=Endpoint(workload=workload, endpoint_path="/api"), actor=ACTOR, headers={"Host": "evil.example"}
        )

    assert refused.value.field == "headers"
    assert not Endpoint.objects.exists()


@pytest.mark.django_db
def test_a_removed_endpoint_is_gone_and_the_audit_trail_says_what_it_was():
    endpoint = EndpointFactory(endpoint_path="/gone")
    key = endpoint.pk

    targets.remove_endpoint(endpoint=endpoint, actor=ACTOR)

    assert not Endpoint.objects.exists()
    assert AuditEntry.objects.of(f"endpoint:{key}").get().before["path"] == "/gone"


@pytest.mark.django_db
def test_the_watch_over_a_database_is_changed_and_what_did_not_change_is_not_audited():
    database = DatabaseFactory(name="shop")

    targets.change_watch(database=database, actor=ACTOR, interval_seconds=30, watch=True)

    database.refresh_from_db()
    assert database.interval_seconds == 30
    entry = AuditEntry.objects.of("database:shop").get()
    assert (entry.before, entry.after) == ({"interval_seconds": 60}, {"interval_seconds": 30})
    for wrong in ({"interval_seconds": 5}, {"slow_query_ms": 0}, {"name": "other"}):
        with pytest.raises(Invalid) as refused:
            targets.change_watch(database=database, actor=ACTOR, **wrong)
        assert refused.value.field == next(iter(wrong))
    with pytest.raises(Invalid, match="time-out must not be longer"):
        targets.change_watch(database=database, actor=ACTOR, timeout_seconds=40)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("Authorization Bearer x", "Line 1 has no colon"),
        ("A: 1\n\na: 2", "Line 3 names a header that another line has named"),
        ("Content-Length: 3", "set by the connection itself"),
        ("X y: 3", "letters, digits and - only"),
        ("X: ü", "ASCII"),
        ("\n".join(f"X-{n}: 1" for n in range(21)), "At most 20"),
    ],
)
def test_headers_that_cannot_be_sent_are_explained_without_their_value(text, fault):
    with pytest.raises(ValueError, match=fault):
        headers.read(text)


@given(st.text(max_size=200))
def test_whatever_is_read_as_headers_cannot_make_a_second_request(text):
    try:
        found = headers.read(text)
    except ValueError:
        return
    assert not set("\r\n\0") & set("".join([*found, *found.values()]))
