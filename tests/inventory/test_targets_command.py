"""`manage.py targets`."""

import io
import json

import pytest
from django.core.management import CommandError, call_command

from apps.inventory.models import Endpoint
from tests.factories import EndpointFactory, ServiceFactory, WorkloadFactory

pytestmark = pytest.mark.django_db


def run(*words: str) -> str:
    out = io.StringIO()
    call_command("targets", *words, stdout=out, stderr=io.StringIO())
    return out.getvalue()


def test_endpoints_go_into_a_file_and_come_back(tmp_path):
    shop = WorkloadFactory(service=ServiceFactory(slug="shop"), base_url="https://shop.example")
    EndpointFactory(workload=shop, endpoint_path="/a")
    EndpointFactory(endpoint_path="/elsewhere")
    file = tmp_path / "targets.csv"

    run("export", str(file), "--service", "shop", "--environment", "production")
    Endpoint.objects.all().delete()

    assert run("import", str(file), "--dry-run") == "1 would be added, 0 would be changed, 0 as they were.\n"
    assert json.loads(run("import", str(file), "--json"))["created"] == 1
    assert run("import", str(file)) == "0 added, 0 changed, 1 as they were.\n"
    assert Endpoint.objects.get().endpoint_path == "/a"
    assert "path: /a" in run("export", "-", "--format", "yaml")


def test_a_workload_that_cannot_be_asked_yet_is_named(tmp_path):
    ServiceFactory(slug="shop")
    file = tmp_path / "targets.yml"
    file.write_text("- {service: shop, environment: staging, path: /a}\n")

    assert run("import", str(file)).splitlines() == [
        "1 added, 0 changed, 0 as they were.",
        "Workloads added: shop/staging.",
        "Not asked until the workload has a base URL: shop/staging.",
    ]


def test_a_file_with_wrong_rows_lists_them_and_fails(tmp_path, capsys):
    file = tmp_path / "targets.csv"
    file.write_text("environment,path\nmoon,/a\n" + "moon,/b\n" * 20)

    with pytest.raises(CommandError) as refused:
        run("import", str(file))
    lines = str(refused.value).splitlines()
    assert lines[:2] == [
        "Nothing was imported:",
        "  row 2, environment: Enter one of development, staging, production.",
    ]
    assert lines[-1] == "  and 1 more"

    out = io.StringIO()
    with pytest.raises(CommandError):
        call_command("targets", "import", str(file), "--json", stdout=out)
    told = json.loads(out.getvalue())
    assert (told["imported"], len(told["faults"]), told["fault_count"]) == (False, 20, 21)
    assert told["faults"][0]["row"] == 2


@pytest.mark.parametrize(
    ("name", "fault"), [("targets.txt", "Name the format"), ("gone.csv", "No such file or directory")]
)
def test_a_file_that_cannot_be_used_is_named(tmp_path, name, fault):
    with pytest.raises(CommandError, match=fault):
        run("import", str(tmp_path / name))
