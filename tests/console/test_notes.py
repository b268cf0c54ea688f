"""Notes: what people write down beside the charts."""

from datetime import timedelta

import pytest
from django.db import IntegrityError, transaction
from django.urls import reverse
from django.utils import timezone

from apps.console import services
from apps.console.models import Note
from apps.console.roles import ensure_groups
from apps.core.audit import Actor
from apps.core.errors import Invalid
from apps.core.models import AuditEntry
from tests.factories import UserFactory

pytestmark = pytest.mark.django_db

ACTOR = Actor.automation("test")


@pytest.fixture
def sign_in(client):
    ensure_groups()

    def as_member(group: str):
        client.force_login(
            UserFactory(username=group, group=group), backend="django.contrib.auth.backends.ModelBackend"
        )
        return client

    return as_member


def test_an_operator_writes_a_note_in_the_console_and_takes_it_away_again(sign_in):
    client, now = sign_in("operator"), timezone.now()
    sent = {"environment": "staging", "text": " DNS  changed ", "at_0": f"{now:%Y-%m-%d}", "at_1": f"{now:%H:%M:%S}"}

    reply = client.post(reverse("admin:console_note_add"), sent)

    note = Note.objects.get()
    assert (reply.status_code, reply.url) == (302, reverse("admin:index"))
    assert (note.text, note.environment, note.by) == ("DNS changed", "staging", "operator")
    assert client.get(reverse("admin:console_note_changelist")).status_code == 200
    assert client.post(reverse("admin:console_note_delete", args=[note.pk]), {"post": "yes"}).status_code == 302
    assert not Note.objects.exists()
    told = AuditEntry.objects.of(f"note:{note.pk}").values_list("action", "actor")
    assert list(told) == [("note.remove", "operator"), ("note.add", "operator")]


def test_a_note_that_is_wrong_is_explained_in_the_form(sign_in):
    later = timezone.now() + timedelta(hours=2)
    sent = {"environment": "staging", "text": "DNS", "at_0": f"{later:%Y-%m-%d}", "at_1": f"{later:%H:%M:%S}"}

    reply = sign_in("operator").post(reverse("admin:console_note_add"), sent)

    assert "a note says what has happened" in reply.content.decode()
    assert not Note.objects.exists()


def test_a_viewer_reads_notes_and_writes_none(sign_in):
    client = sign_in("viewer")

    assert client.get(reverse("admin:console_note_changelist")).status_code == 200
    assert client.get(reverse("admin:console_note_add")).status_code == 403


@pytest.mark.parametrize(
    ("field", "given"),
    [
        ("text", {"text": " "}),
        ("text", {"text": "x" * 301}),
        ("environment", {"environment": "moon"}),
        ("at", {"at": timezone.now() - timedelta(days=91)}),
    ],
)
def test_a_wrong_note_names_its_field_and_leaves_nothing_behind(field, given):
    with pytest.raises(Invalid) as refused:
        services.add_note(**{"text": "DNS", "environment": "production", "actor": ACTOR, **given})

    assert refused.value.field == field
    assert not Note.objects.exists()
    assert not AuditEntry.objects.exists()


def test_a_secret_in_a_note_is_hidden_before_it_is_kept():
    note = services.add_note(text="new URL redis://:hunter2secret@cache/0", environment="production", actor=ACTOR)

    assert "hunter2secret" not in note.text
    assert "hunter2secret" not in str(AuditEntry.objects.values("after"))


@pytest.mark.engine
@pytest.mark.parametrize("given", [{"text": ""}, {"environment": "moon"}])
def test_the_database_refuses_a_note_that_says_nothing_or_belongs_nowhere(given):
    with pytest.raises(IntegrityError), transaction.atomic():
        Note.objects.create(**{"text": "DNS", "environment": "production", "at": timezone.now(), "by": "ana", **given})
