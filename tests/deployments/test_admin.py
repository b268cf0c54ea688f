"""Deployments in the console: told in plain words, changed only by a rollback that somebody explains."""

import pytest
from django.contrib.admin.utils import quote
from django.urls import reverse

from apps.console import roles
from apps.core.models import AuditEntry
from apps.deployments.models import Deployment, EnvironmentVariableRule
from tests.api.test_builds import EVIL
from tests.deployments.conftest import started
from tests.factories import DeploymentFactory, ServiceFactory, UserFactory

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def groups(db) -> None:
    roles.ensure_groups()


LIST = "admin:deployments_deployment_changelist"


@pytest.fixture
def operator(client):
    client.force_login(UserFactory(group="operator"))
    return client


def page(name: str, row: Deployment) -> str:
    return reverse(f"admin:deployments_deployment_{name}", args=[quote(row.pk)])


def test_the_list_and_a_page_tell_what_happened_and_escape_what_others_wrote(operator, workload):
    row = started(workload, commit_message=EVIL, triggered_by=EVIL[:60])

    shown = operator.get(reverse(LIST)).content.decode()
    told = operator.get(page("change", row)).content.decode()

    assert "In Progress" in shown
    assert "v1.0.0 started by" in told
    assert "Health checks configured" in told
    assert "<script>alert" not in shown + told


def test_the_number_of_queries_of_the_list_does_not_grow(operator, django_assert_max_num_queries):
    for _ in range(12):
        DeploymentFactory()
    with django_assert_max_num_queries(9):
        assert operator.get(reverse(LIST)).status_code == 200


def test_a_rollback_asks_why_and_names_what_it_returns_to(operator):
    good, bad = DeploymentFactory(version="v1.0.0"), DeploymentFactory(version="v1.1.0")

    asked = operator.get(page("roll_back", bad)).content.decode()
    assert f"{good.pk} (v1.0.0)" in asked
    assert operator.post(page("roll_back", bad), {"reason": ""}).status_code == 200
    assert not Deployment.objects.filter(kind="rollback").exists()
    operator.post(page("roll_back", bad), {"reason": "too slow"})

    row = Deployment.objects.get(kind="rollback")
    assert (row.version, row.undoes, row.rollback_reason) == ("v1.0.0", bad, "too slow")
    assert AuditEntry.objects.filter(action="deployment.rollback").exists()
    refused = operator.get(page("roll_back", good)).content.decode()
    assert "has been brought out since; roll that one back" in refused


def test_a_viewer_sees_and_does_not_roll_back(client):
    client.force_login(UserFactory(group="viewer"))
    row = DeploymentFactory()

    assert client.get(page("change", row)).status_code == 200
    assert client.get(page("roll_back", row)).status_code == 403


def test_a_rule_for_a_variable_is_checked_and_audited(operator):
    add = reverse("admin:deployments_environmentvariablerule_add")
    form = {"service": ServiceFactory().pk, "key": "API_KEY", "required": "on", "pattern": "(a+)+", "min_length": 8}

    assert "none of a group that itself repeats" in operator.post(add, form).content.decode()
    assert not EnvironmentVariableRule.objects.exists()
    assert operator.post(add, {**form, "pattern": "[a-z]+"}).status_code == 302
    assert AuditEntry.objects.filter(action="variable_rule.create").get().after["pattern"] == "[a-z]+"
