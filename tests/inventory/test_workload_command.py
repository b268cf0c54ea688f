"""`manage.py workload`: what a person without the console changes."""

import io
import sys
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from apps.core.keys import new_keyset
from apps.core.models import AuditEntry
from apps.inventory.models import Workload
from apps.inventory.runner import platform_of, unseal_secret
from tests.factories import ServiceFactory, WorkloadFactory

pytestmark = pytest.mark.django_db
SECRET = "a-long-secret-of-the-webhook"
HOOK = '{"url": "https://ci.example.com/hook"}'


@pytest.fixture
def workload(settings) -> Workload:
    settings.BACKUP_KEYSET = new_keyset()
    return WorkloadFactory(service=ServiceFactory(slug="shop"), base_url="https://shop.example.com")


def said(*arguments: str) -> str:
    out = io.StringIO()
    call_command("workload", *arguments, stdout=out)
    return out.getvalue()


def test_a_platform_with_its_secret_and_the_gate_are_set_and_what_is_not_named_stays(workload, tmp_path: Path):
    (tmp_path / "secret").write_text(f"{SECRET}\nnot this\n")

    told = said(
        *("set", "shop/production", "--platform", "webhook", "--platform-settings", HOOK, "--auto-rollback"),
        *("--secret-file", str(tmp_path / "secret"), "--gate-samples", "2", "--gate-window-seconds", "60"),
    )

    assert told == (
        "shop/production is changed by platform webhook. A deployment needs 2 healthy samples in a row from each "
        "instance within 60 s; a gate that fails brings the last good version back.\n"
    )
    row = Workload.objects.get()
    assert (platform_of(row).url, unseal_secret(row)) == ("https://ci.example.com/hook", SECRET)
    assert (row.auto_rollback, row.gate_samples, row.base_url) == (True, 2, "https://shop.example.com")
    assert said("list") == "shop/production  https://shop.example.com  platform webhook, rolled back by itself\n"
    assert "rolls nothing back" in said("set", "shop/production", "--no-auto-rollback")
    assert unseal_secret(Workload.objects.get()) == SECRET
    entries = AuditEntry.objects.of("workload:shop/production")
    assert {entry.action for entry in entries} == {"workload.update", "workload.secret_set"}
    assert not any(SECRET in str(value) for entry in entries.values() for value in entry.values())


def test_a_secret_is_read_from_standard_input(workload, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{SECRET}\n"))

    said("set", "shop/production", "--platform", "webhook", "--platform-settings", HOOK, "--secret-file", "-")

    assert unseal_secret(Workload.objects.get()) == SECRET


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("set", "shop/staging"), "There is no workload shop/staging: `python manage.py workload list`"),
        (("set", "shop/production", "--platform-settings", "["), "takes a JSON object"),
        (("set", "shop/production", "--platform-settings", "[]"), "takes a JSON object"),
        (("set", "shop/production", "--platform", "webhook"), "platform_settings: "),
        (("set", "shop/production", "--gate-samples", "0"), "gate_samples: "),
        (("set", "shop/production", "--secret-file", "/does/not/exist"), "/does/not/exist cannot be read as text"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence_and_changes_nothing(workload, arguments, words):
    before = Workload.objects.values().get()

    with pytest.raises(CommandError) as refused:
        said(*arguments)

    assert words in str(refused.value)
    assert Workload.objects.values().get() == before


def test_a_kubeconfig_is_read_to_its_end(workload, tmp_path: Path):
    text = f"""apiVersion: v1
kind: Config
current-context: shop
contexts: [{{name: shop, context: {{cluster: here, user: ops}}}}]
clusters: [{{name: here, cluster: {{server: "https://k8s.example.com"}}}}]
users: [{{name: ops, user: {{token: {SECRET}}}}}]
"""
    (tmp_path / "config").write_text(text)
    where = '{"namespace": "shop", "name": "web"}'

    said(*("set", "shop/production", "--platform", "kubernetes", "--platform-settings", where),
         *("--secret-file", str(tmp_path / "config")))  # fmt: skip

    assert unseal_secret(Workload.objects.get()) == text.strip()
