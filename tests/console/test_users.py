"""Users and groups in the console: who may give which right, and what the audit trail says of it."""

import json

import pytest
from django.contrib.auth.models import Group, Permission, User
from django.urls import reverse

from apps.console.roles import ensure_groups
from apps.core.models import AuditEntry
from tests.factories import UserFactory

pytestmark = pytest.mark.django_db

BACKEND = "django.contrib.auth.backends.ModelBackend"
PASSWORD = "correct-horse-battery"


@pytest.fixture
def member(client):
    """A browser in which a member of group `admin` is signed in."""
    ensure_groups()
    client.force_login(UserFactory(username="member", group="admin"), backend=BACKEND)
    return client


@pytest.fixture
def superuser(client):
    """A browser in which a superuser is signed in."""
    ensure_groups()
    client.force_login(UserFactory(username="root", is_superuser=True), backend=BACKEND)
    return client


def change_page(row) -> str:
    return reverse(f"admin:auth_{row._meta.model_name}_change", args=[row.pk])


def fields(user: User, **changed: object) -> dict[str, object]:
    """What the browser sends when somebody saves a user's page."""
    flags = {name: "on" for name in ("is_active", "is_staff", "is_superuser") if getattr(user, name)}
    groups = [group.pk for group in user.groups.all()]
    return {"username": user.username, "first_name": "", "last_name": "", **flags, "groups": groups, **changed}


def entries(subject: str) -> list[AuditEntry]:
    return list(AuditEntry.objects.filter(subject=subject).order_by("pk"))


def test_a_member_of_admin_cannot_make_himself_superuser(member):
    user = User.objects.get(username="member")
    every = [permission.pk for permission in Permission.objects.all()]

    reply = member.post(change_page(user), fields(user, is_superuser="on", user_permissions=every, first_name="Ana"))

    user.refresh_from_db()
    assert (reply.status_code, user.first_name) == (302, "Ana")  # the rest of the form was taken
    assert not user.is_superuser
    assert not user.user_permissions.exists()


def test_a_member_of_admin_can_look_at_a_superuser_and_no_more(member):
    root = UserFactory(username="root", is_superuser=True, email="root@example.org")
    root.set_password(PASSWORD)
    root.save()

    page = member.get(change_page(root))
    assert page.status_code == 200
    assert root.password not in page.content.decode()
    assert "example.org" not in page.content.decode()

    password = reverse("admin:auth_user_password_change", args=[root.pk])
    assert member.post(change_page(root), fields(root, username="other")).status_code == 403
    assert member.post(password, {"password1": "another-long-one", "password2": "another-long-one"}).status_code == 403
    assert member.post(reverse("admin:auth_user_delete", args=[root.pk]), {"post": "yes"}).status_code == 403
    choice = {"action": "delete_selected", "_selected_action": root.pk, "post": "yes"}
    assert member.post(reverse("admin:auth_user_changelist"), choice).status_code == 403
    stored = User.objects.get(username="root")
    assert stored.password == root.password


def test_only_a_superuser_chooses_what_a_group_may_do(member):
    group = Group.objects.get(name="viewer")
    held = set(group.permissions.all())
    every = [permission.pk for permission in Permission.objects.all()]

    member.post(change_page(group), {"name": "watchers", "permissions": every})
    member.post(reverse("admin:auth_group_add"), {"name": "mine", "permissions": every})

    group.refresh_from_db()
    assert (group.name, set(group.permissions.all())) == ("watchers", held)
    assert not Group.objects.get(name="mine").permissions.exists()

    member.force_login(UserFactory(is_superuser=True), backend=BACKEND)
    member.post(change_page(group), {"name": "viewer", "permissions": every[:1]})
    assert group.permissions.count() == 1
    entry = entries("group:viewer")[-1]
    assert (entry.before, entry.after["name"]) == ({"name": "watchers"}, "viewer")
    assert len(entry.after["permissions_removed"]) == len(held - {Permission.objects.get(pk=every[0])})


def test_putting_a_user_into_a_group_is_audited(member):
    user = UserFactory(username="ana", group="viewer")
    operator = Group.objects.get(name="operator")

    assert member.post(change_page(user), fields(user, groups=[operator.pk], is_active="")).status_code == 302

    assert set(user.groups.all()) == {operator}
    (entry,) = entries("user:ana")
    assert (entry.actor, entry.action, entry.ip_address) == ("member", "user.update", "127.0.0.1")
    assert entry.before == {"is_active": True}
    assert entry.after == {"is_active": False, "groups_added": ["operator"], "groups_removed": ["viewer"]}


def test_giving_superuser_rights_and_single_permissions_is_audited(superuser):
    user = UserFactory(username="ana")
    permission = Permission.objects.get(codename="change_stopswitch")

    superuser.post(change_page(user), fields(user, is_superuser="on", user_permissions=[permission.pk]))

    (entry,) = entries("user:ana")
    assert (entry.before["is_superuser"], entry.after["is_superuser"]) == (False, True)
    assert entry.after["user_permissions_added"] == ["core.change_stopswitch"]


def test_saving_without_a_change_leaves_no_entry(member):
    user = UserFactory(username="ana", group="viewer")

    assert member.post(change_page(user), fields(user)).status_code == 302

    assert entries("user:ana") == []


def test_adding_and_deleting_users_is_audited_without_the_password(member):
    new = {"username": "ana", "password1": PASSWORD, "password2": PASSWORD, "usable_password": "true"}
    assert member.post(reverse("admin:auth_user_add"), new).status_code == 302
    user = User.objects.get(username="ana")
    stored = user.password
    member.post(reverse("admin:auth_user_delete", args=[user.pk]), {"post": "yes"})
    other = UserFactory(username="ben")
    choice = {"action": "delete_selected", "_selected_action": other.pk, "post": "yes"}
    member.post(reverse("admin:auth_user_changelist"), choice)

    assert not User.objects.filter(username__in=("ana", "ben")).exists()
    assert [entry.action for entry in entries("user:ana")] == ["user.create", "user.delete"]
    assert [entry.action for entry in entries("user:ben")] == ["user.delete"]
    written = json.dumps([[entry.before, entry.after] for entry in AuditEntry.objects.all()])
    assert PASSWORD not in written
    assert stored not in written


def test_a_changed_password_is_audited_and_not_told(member):
    user = UserFactory(username="ana")
    page = reverse("admin:auth_user_password_change", args=[user.pk])

    member.post(page, {"password1": "short", "password2": "short", "usable_password": "true"})
    assert entries("user:ana") == []

    member.post(page, {"password1": PASSWORD, "password2": PASSWORD, "usable_password": "true"})
    user.refresh_from_db()
    assert user.check_password(PASSWORD)
    (entry,) = entries("user:ana")
    assert (entry.actor, entry.before, entry.after) == ("member", {}, {"changed": ["password"]})


def test_changing_the_own_password_is_audited_too(client):
    user = UserFactory(username="ana")
    user.set_password(PASSWORD)
    user.save()
    client.force_login(user, backend=BACKEND)

    new = {"old_password": PASSWORD, "new_password1": "another-long-phrase", "new_password2": "another-long-phrase"}
    assert client.post(reverse("admin:password_change"), new).status_code == 302

    (entry,) = entries("user:ana")
    assert (entry.actor, entry.action, entry.after) == ("ana", "user.update", {"changed": ["password"]})
    assert client.get(reverse("admin:index")).status_code == 200  # still signed in


def test_a_name_is_called_changed_and_not_repeated(member):
    user = UserFactory(username="ana", first_name="Ana")

    member.post(change_page(user), fields(user, first_name="Anna", last_name="Archer"))

    (entry,) = entries("user:ana")
    assert (entry.before, entry.after) == ({}, {"changed": ["first_name", "last_name"]})


def test_an_address_is_neither_shown_nor_found_nor_changed(superuser):
    user = UserFactory(username="ana", email="ana@example.org")

    assert "example.org" not in superuser.get(change_page(user)).content.decode()
    users = reverse("admin:auth_user_changelist")
    assert ">ana<" not in superuser.get(users, {"q": "example.org"}).content.decode()
    assert superuser.get(users, {"email__startswith": "ana"}).status_code == 400
    superuser.post(change_page(user), fields(user, email="other@example.org"))
    user.refresh_from_db()
    assert user.email == "ana@example.org"


@pytest.mark.parametrize("key", ["abc", "", "1; DROP TABLE", "9" * 30, "\x00"])
@pytest.mark.parametrize("model", ["user", "group"])
def test_a_made_up_choice_in_a_list_is_answered_with_a_message(member, model, key):
    users, groups = User.objects.count(), Group.objects.count()
    choice = {"action": "delete_selected", "_selected_action": key, "post": "yes"}

    reply = member.post(reverse(f"admin:auth_{model}_changelist"), choice, follow=True)

    assert reply.status_code == 200
    assert (User.objects.count(), Group.objects.count()) == (users, groups)


def test_groups_are_audited_when_they_are_made_or_corrected_and_only_then():
    ensure_groups()
    assert [entry.action for entry in entries("group:viewer")] == ["group.create"]

    Group.objects.get(name="viewer").permissions.add(Permission.objects.get(codename="add_user"))
    for _ in range(2):
        ensure_groups()

    _, entry = entries("group:viewer")
    assert (entry.action, entry.actor, entry.actor_kind) == ("group.update", "start-up", "automation")
    assert entry.after == {"permissions_added": [], "permissions_removed": ["auth.add_user"]}
    assert len(entries("group:operator")) == 1
