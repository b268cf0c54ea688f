"""The secret of a workload's platform: sealed, never shown, and sent nowhere it was not given for."""

import pytest
from django.test import Client
from django.urls import reverse

from apps.core.audit import Actor
from apps.core.errors import Invalid
from apps.core.keys import new_keyset
from apps.core.models import AuditEntry
from apps.inventory import services
from apps.inventory.models import Workload
from apps.inventory.platforms.base import PlatformError
from apps.inventory.runner import platform_of
from tests.factories import ServiceFactory, UserFactory, WorkloadFactory

ANA = Actor.automation("test")
SECRET = "sesame-open-sesame-5521"
HOOK = {"url": "https://ci.example.com/deploy"}

pytestmark = pytest.mark.django_db


def hooked(**changes: object) -> Workload:
    """A workload on platform webhook, saved with its secret."""
    workload = WorkloadFactory()
    workload.platform, workload.platform_settings = "webhook", HOOK
    for name, value in changes.items():
        setattr(workload, name, value)
    return services.save(workload, actor=ANA, platform_secret=SECRET)


def test_the_secret_is_sealed_and_audited_without_its_value():
    workload = Workload.objects.get(pk=hooked().pk)

    assert SECRET.encode() not in bytes(workload.platform_secret_sealed)
    assert platform_of(workload).secret == SECRET
    entries = AuditEntry.objects.of(f"workload:{workload}")
    assert {entry.action for entry in entries} == {"workload.update", "workload.secret_set"}
    assert SECRET not in str([(entry.before, entry.after) for entry in entries])


def test_a_new_workload_takes_its_secret_with_it():
    row = Workload(service=ServiceFactory(), environment="staging", platform="webhook", platform_settings=HOOK)

    services.save(row, actor=ANA, platform_secret=SECRET)

    assert platform_of(Workload.objects.get(pk=row.pk)).secret == SECRET


def test_saving_without_a_secret_keeps_the_one_there_is():
    workload = hooked()
    workload.base_url = "https://shop.example.com"
    workload.platform_settings = {"url": "https://ci.example.com/another/path"}

    services.save(workload, actor=ANA)

    assert platform_of(Workload.objects.get(pk=workload.pk)).secret == SECRET


def test_a_stale_copy_of_the_row_does_not_bring_an_old_secret_back():
    stale = hooked()
    services.save(Workload.objects.get(pk=stale.pk), actor=ANA, platform_secret="another-secret-entirely")
    stale.base_url = "https://shop.example.com"

    services.save(stale, actor=ANA)

    assert platform_of(Workload.objects.get(pk=stale.pk)).secret == "another-secret-entirely"


@pytest.mark.parametrize(
    "url", ["https://evil.example.com/deploy", "http://ci.example.com/deploy", "https://ci.example.com:8443"]
)
def test_another_address_asks_for_the_secret_again(url: str):
    workload = hooked()
    workload.platform_settings = {"url": url}

    with pytest.raises(Invalid, match="given for another address") as caught:
        services.save(workload, actor=ANA)

    assert caught.value.field == "platform_secret"
    assert Workload.objects.get(pk=workload.pk).platform_settings == HOOK
    services.save(workload, actor=ANA, platform_secret="another-secret-entirely")
    assert platform_of(Workload.objects.get(pk=workload.pk)).url == url


def test_a_platform_without_use_for_a_secret_drops_it():
    workload = hooked()
    workload.platform, workload.platform_settings = "advisory", {}

    services.save(workload, actor=ANA)

    assert Workload.objects.get(pk=workload.pk).platform_secret_sealed is None
    assert AuditEntry.objects.of(f"workload:{workload}").filter(action="workload.secret_removed").count() == 1


def test_a_secret_moved_to_another_row_does_not_unseal():
    thief = WorkloadFactory(platform="webhook", platform_settings={"url": "https://evil.example.com"})
    thief.platform_secret_sealed = hooked().platform_secret_sealed

    with pytest.raises(PlatformError, match="enter it again"):
        platform_of(thief)


def test_after_the_keyset_is_lost_a_new_secret_helps(settings):
    workload = hooked()
    settings.BACKUP_KEYSET = new_keyset()

    with pytest.raises(PlatformError, match="cannot be read with the present BACKUP_KEYSET: enter it again"):
        platform_of(workload)
    services.save(workload, actor=ANA, platform_secret=SECRET)
    assert platform_of(workload).secret == SECRET


def test_the_form_takes_a_secret_and_never_shows_it(client: Client):
    workload = hooked()
    client.force_login(UserFactory(is_superuser=True))
    page = reverse("admin:inventory_workload_change", args=[workload.pk])

    shown = client.get(page).content.decode()
    assert SECRET not in shown
    assert 'name="platform_secret"' in shown

    form = {
        "service": workload.service_id, "environment": workload.environment, "platform": "webhook",
        "platform_settings": '{"url": "https://ci.example.com/deploy", "ulr": 1}', "base_url": "", "domain": "",
        "gate_samples": 3, "gate_window_seconds": 180, "deployment_timeout_minutes": 60, "backup_max_age_hours": 24,
        "readiness_path": "/ready", "metrics_path": "/metrics", "platform_secret": "typed-in-secret-0001",
        "instances-TOTAL_FORMS": 0, "instances-INITIAL_FORMS": 0,
    }  # fmt: skip
    refused = client.post(page, form).content.decode()
    assert "has no setting &#x27;ulr&#x27;" in refused
    assert "typed-in-secret-0001" not in refused
    assert platform_of(Workload.objects.get(pk=workload.pk)).secret == SECRET

    answer = client.post(page, {**form, "platform_settings": '{"url": "https://ci.example.com/deploy"}'})
    assert answer.status_code == 302
    assert platform_of(Workload.objects.get(pk=workload.pk)).secret == "typed-in-secret-0001"
    # An empty field leaves it alone.
    client.post(page, {**form, "platform_settings": '{"url": "https://ci.example.com/x"}', "platform_secret": ""})
    assert platform_of(Workload.objects.get(pk=workload.pk)).secret == "typed-in-secret-0001"


def test_another_platform_does_not_inherit_the_secret_and_one_that_needs_none_has_none():
    workload = hooked()
    workload.platform, workload.platform_settings = "kubernetes", {"namespace": "shop", "name": "web"}
    services.save(workload, actor=ANA)  # the account of the pod
    assert Workload.objects.get(pk=workload.pk).platform_secret_sealed is None
    assert AuditEntry.objects.filter(action="workload.secret_removed").count() == 1

    workload.platform_settings = {**workload.platform_settings, "server": "https://k8s.example.com"}
    services.save(workload, actor=ANA, platform_secret=SECRET)
    workload.platform_settings = {**workload.platform_settings, "server": "https://elsewhere.example.com"}
    with pytest.raises(Invalid, match="given for another address"):
        services.save(workload, actor=ANA)
    workload.platform, workload.platform_settings = "webhook", HOOK
    with pytest.raises(Invalid, match="needs a secret"):
        services.save(workload, actor=ANA)
