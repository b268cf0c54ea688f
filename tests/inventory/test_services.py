"""Registering what runs where."""

import pytest
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction

from apps.alerts.models import MaintenanceWindow
from apps.core.audit import Actor
from apps.core.errors import Invalid
from apps.core.models import AuditEntry
from apps.inventory import services
from apps.inventory.models import Instance, Service, Workload
from tests.factories import EndpointFactory, InstanceFactory, ServiceFactory, WorkloadFactory

ANA = Actor.automation("test")

pytestmark = pytest.mark.django_db


def test_a_new_row_is_audited_with_what_it_says():
    services.save(Service(slug="shop", name="Shop"), actor=ANA)

    entry = AuditEntry.objects.of("service:shop").get()
    assert (entry.action, entry.actor, entry.actor_kind, entry.before) == ("service.create", "test", "automation", {})
    assert entry.after["name"] == "Shop"


def test_a_change_is_audited_with_only_what_changed():
    workload = WorkloadFactory()
    workload.base_url = "https://shop.example.com"

    services.save(workload, actor=ANA)

    entry = AuditEntry.objects.of(f"workload:{workload}").get()
    assert (entry.before, entry.after) == ({"base_url": ""}, {"base_url": "https://shop.example.com"})


def test_saving_without_a_change_leaves_no_entry():
    services.save(ServiceFactory(), actor=ANA)

    assert not AuditEntry.objects.exists()


def test_secrets_in_platform_settings_do_not_reach_the_audit_trail():
    workload = WorkloadFactory()
    workload.platform = "webhook"
    workload.platform_settings = {"url": "https://ci.example.com/deploy?token=hunter2-and-more"}

    services.save(workload, actor=ANA, platform_secret="a-secret-to-sign-with")

    entries = AuditEntry.objects.of(f"workload:{workload}")
    assert "ci.example.com" in str([entry.after for entry in entries])
    assert "hunter2" not in str([entry.after for entry in entries])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("base_url", "ftp://shop.example.com"),
        ("base_url", "javascript:alert(1)"),
        ("base_url", "http://"),
        ("base_url", "http://[::1"),
        ("base_url", "http://web:port"),
        ("base_url", "http://web:8000/a b"),
        ("base_url", "http://ana:sesame@web:8000"),
        ("domain", "https://shop.example.com"),
        ("domain", "-shop"),
        ("readiness_path", "ready"),
        ("readiness_path", "/re ady"),
        ("environment", "qa"),
        ("platform", "mainframe"),
    ],
)
def test_bad_input_names_its_field_and_changes_nothing(field, value):
    workload = WorkloadFactory()
    setattr(workload, field, value)

    with pytest.raises(Invalid) as caught:
        services.save(workload, actor=ANA)

    assert caught.value.field == field
    assert getattr(Workload.objects.get(pk=workload.pk), field) != value
    assert not AuditEntry.objects.exists()


@pytest.mark.parametrize("url", ["http://web:8000", "http://10.0.0.3", "http://[::1]:8000/", "https://a.example.com/x"])
def test_containers_pods_and_hosts_are_addresses(url):
    workload = WorkloadFactory()
    workload.base_url = url

    assert services.save(workload, actor=ANA).base_url == url


def test_a_second_workload_of_a_service_in_an_environment_is_refused():
    workload = WorkloadFactory()

    with pytest.raises(Invalid, match="already has a workload in this environment"):
        services.save(Workload(service=workload.service, environment=workload.environment), actor=ANA)


def test_an_instance_is_called_by_its_name_unless_another_workload_has_that_name():
    first = services.save(Instance(name="web-1", workload=WorkloadFactory()), actor=ANA)
    other = WorkloadFactory()
    second = services.save(Instance(name="web-1", workload=other), actor=ANA)

    assert (first.pk, second.pk) == ("web-1", f"web-1@{other}")


def test_a_name_that_was_given_away_twice_still_gets_an_identifier():
    workload = WorkloadFactory()
    InstanceFactory(id="web-1", name="web-1")
    InstanceFactory(id=f"web-1@{workload}", name="other")

    assert services.save(Instance(name="web-1", workload=workload), actor=ANA).pk == f"web-1@{workload}-2"


def test_a_workload_with_instances_stays_what_it_is():
    workload = InstanceFactory().workload
    workload.environment = "staging"

    with pytest.raises(Invalid, match="stays what it is"):
        services.save(workload, actor=ANA)


def test_two_instances_of_one_workload_cannot_share_a_name():
    instance = InstanceFactory()

    with pytest.raises(Invalid, match="already has an instance of that name"):
        services.save(Instance(name=instance.name, workload=instance.workload), actor=ANA)


def test_pulsewatch_registers_its_own_web_server_once():
    for _ in range(2):
        own = services.ensure_own_instance(instance_id="box:8000", url="http://127.0.0.1:8000", environment="staging")

    assert (own.workload.service.slug, own.workload.environment, own.url) == (
        "pulsewatch",
        "staging",
        "http://127.0.0.1:8000",
    )
    assert AuditEntry.objects.count() == 3  # service, workload, instance


def test_its_address_follows_the_configuration():
    for port in (8000, 8001):
        own = services.ensure_own_instance(instance_id="box", url=f"http://127.0.0.1:{port}", environment="development")

    assert Instance.objects.get(pk=own.pk).url == "http://127.0.0.1:8001"


@pytest.mark.engine
@pytest.mark.parametrize(
    ("model", "wrong"),
    [
        (WorkloadFactory, {"environment": "qa"}),
        (WorkloadFactory, {"platform": "mainframe"}),
        (WorkloadFactory, {"readiness_path": "ready"}),
        (ServiceFactory, {"slug": ""}),
        (InstanceFactory, {"cpu_limit_cores": 0}),
        (InstanceFactory, {"memory_limit_mb": 0}),
        (InstanceFactory, {"name": ""}),
    ],
)
def test_the_database_refuses_bad_rows(model, wrong):
    with pytest.raises(IntegrityError), transaction.atomic():
        model(**wrong)


@pytest.mark.parametrize(
    ("make", "field", "value"),
    [
        (WorkloadFactory.build, "readiness_path", "/ready\n"),
        (WorkloadFactory.build, "metrics_path", "/metrics\n"),
        (WorkloadFactory.build, "domain", "shop.example\n"),
        (WorkloadFactory.build, "base_url", "https://shop.example\n"),
        (InstanceFactory.build, "name", "web-1\n"),
        (InstanceFactory.build, "url", "http://10.0.0.1\n"),
        (EndpointFactory.build, "endpoint_path", "/cart\n"),
        (MaintenanceWindow, "subject", "endpoint:17\n"),
        (MaintenanceWindow, "service", "shop\n"),
    ],
)
def test_a_line_break_at_the_end_belongs_to_nothing(make, field, value):
    row = make(**{field: value})
    with pytest.raises(ValidationError) as refused:
        row.clean_fields()
    assert field in refused.value.message_dict
