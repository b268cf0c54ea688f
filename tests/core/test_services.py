"""The stop switch and the audit trail."""

import pytest
from django.db import IntegrityError, transaction

from apps.core import audit, context
from apps.core.audit import Actor
from apps.core.errors import Invalid
from apps.core.models import AuditEntry, StopSwitch
from apps.core.services import automation_stopped, set_stop_switch
from tests.factories import UserFactory

pytestmark = pytest.mark.django_db


def test_the_switch_is_off_until_somebody_turns_it_on():
    assert not automation_stopped()

    set_stop_switch(on=True, reason="database migration", actor=Actor.automation("test"))
    assert automation_stopped()

    set_stop_switch(on=False, reason="done", actor=Actor.automation("test"))
    assert not automation_stopped()


def test_each_change_is_audited_with_who_why_and_the_state_before():
    user = UserFactory(username="ana")
    with context.bind(request_id="11111111-2222-4333-8444-555555555555", ip_address="10.1.2.3"):
        set_stop_switch(on=True, reason="runaway scaling", actor=Actor.person(user))

    entry = AuditEntry.objects.get()
    assert (entry.actor, entry.user, entry.action, entry.reason) == ("ana", user, "stop_switch.on", "runaway scaling")
    assert (entry.before, entry.after, entry.ip_address) == ({"on": False}, {"on": True}, "10.1.2.3")
    assert entry.request_id == "11111111-2222-4333-8444-555555555555"


@pytest.mark.parametrize("reason", ["", "   ", "x" * 501])
def test_without_a_reason_nothing_changes(reason):
    with pytest.raises(Invalid, match="1 to 500"):
        set_stop_switch(on=True, reason=reason, actor=Actor.automation("test"))

    assert not automation_stopped()
    assert not AuditEntry.objects.exists()


def test_the_audit_trail_is_append_only():
    audit.record(actor=Actor.automation("test"), action="test.run", subject="test:1")

    with pytest.raises(TypeError, match="append-only"):
        AuditEntry.objects.update(action="other")
    with pytest.raises(TypeError, match="append-only"):
        AuditEntry.objects.all().delete()
    with pytest.raises(TypeError, match="append-only"):
        AuditEntry.objects.get().delete()
    assert AuditEntry.objects.get().action == "test.run"


def test_an_audit_entry_cannot_be_written_over():
    audit.record(actor=Actor.automation("test"), action="test.run", subject="test:1")

    entry = AuditEntry.objects.get()
    entry.action = "other"
    with pytest.raises(TypeError, match="append-only"):
        entry.save()
    with pytest.raises(TypeError, match="append-only"):
        AuditEntry.objects.get().save(update_fields=["action"])
    entry._state.adding = True  # as a row made by hand with a taken key
    with pytest.raises(IntegrityError), transaction.atomic():
        entry.save()
    assert AuditEntry.objects.get().action == "test.run"


# Each `pwd=x` becomes `pwd=[redacted]`.
LONGER_WHEN_REDACTED = " ".join(["pwd=x"] * 83)


def test_a_reason_that_grows_when_its_secrets_are_hidden_is_refused_not_lost_in_the_database():
    assert len(LONGER_WHEN_REDACTED) < 500

    with pytest.raises(Invalid, match="1 to 500"):
        set_stop_switch(on=True, reason=LONGER_WHEN_REDACTED, actor=Actor.automation("test"))

    assert not StopSwitch.objects.exists()


def test_the_audit_trail_cuts_a_reason_that_is_too_long():
    for reason in (LONGER_WHEN_REDACTED, "\U0001f600" * 600):
        audit.record(actor=Actor.automation("test"), action="test.run", subject="test:1", reason=reason)

        assert len(AuditEntry.objects.latest("pk").reason) == 500


def test_the_stop_switch_keeps_no_secret_of_its_reason():
    set_stop_switch(on=True, reason="leak of mysql://shop:hunter2-secret@db/shop", actor=Actor.automation("test"))

    assert "hunter2" not in StopSwitch.objects.get().reason


def test_secrets_do_not_reach_the_audit_trail():
    audit.record(
        actor=Actor.automation("test"),
        action="database.add",
        subject="database:shop",
        reason="moved to mysql://shop:hunter2-secret@db/shop",
        after={"password": "hunter2-secret", "url": "mysql://shop:hunter2-secret@db/shop"},
    )

    entry = AuditEntry.objects.get()
    assert "hunter2" not in f"{entry.reason} {entry.after}"


def test_an_entry_outlives_the_user_it_names():
    user = UserFactory(username="leaver")
    set_stop_switch(on=True, reason="last act", actor=Actor.person(user))
    user.delete()

    assert AuditEntry.objects.get().actor == "leaver"
