"""API tokens in the console: shown once, revoked after a question, for administrators alone."""

import pytest
from django.test import Client

from apps.api.models import ApiToken
from apps.console.roles import ensure_groups
from apps.core.models import AuditEntry
from tests.factories import UserFactory


@pytest.fixture
def console(db):
    """Makes a browser that is signed in as a member of a group."""
    ensure_groups()

    def sign_in(group):
        browser = Client()
        browser.force_login(UserFactory(username=f"a-{group}", group=group))
        return browser

    return sign_in


LIST, ADD = "/admin/api/apitoken/", "/admin/api/apitoken/add/"
FORM = {"name": "ci", "scopes": ["health:write", "builds:read"], "expires": "90"}


def test_a_new_token_is_shown_once_and_opens_the_door(console, client):
    browser = console("admin")
    assert "one year" in browser.get(ADD).content.decode()
    made = browser.post(ADD, FORM)

    text = made.context["token"]
    assert made.content.decode().count(text) == 1
    assert "no-store" in made["Cache-Control"]
    assert client.get("/api/v1/health-checks", headers={"Authorization": f"Bearer {text}"}).status_code == 200
    row = ApiToken.objects.get()
    assert (row.created_by, row.scopes) == ("a-admin", ["builds:read", "health:write"])
    assert row.expires_at
    for path in (LIST, f"{LIST}{row.pk}/change/", f"{LIST}{row.pk}/revoke/", "/admin/"):
        page = browser.get(path)
        assert page.status_code == 200
        assert text[12:] not in page.content.decode()
        assert row.secret_hash not in page.content.decode()
    assert "API tokens" in page.content.decode()


@pytest.mark.parametrize(
    "wrong", [{"name": ""}, {"name": "<b>"}, {"scopes": []}, {"scopes": ["all"]}, {"expires": "7"}]
)
def test_a_wrong_form_says_so_and_makes_nothing(console, wrong):
    page = console("admin").post(ADD, FORM | wrong)

    assert 'role="alert"' in page.content.decode()
    assert not ApiToken.objects.exists()


def test_a_page_that_is_sent_again_makes_no_second_token(console):
    browser = console("admin")
    browser.post(ADD, FORM)

    assert "named ci already" in browser.post(ADD, FORM).content.decode()
    assert ApiToken.objects.count() == 1


def test_revoking_asks_first_and_ends_the_token(console, api):
    row = ApiToken.objects.get()
    browser = console("admin")
    assert "there is no way back" in browser.get(f"{LIST}{row.pk}/revoke/").content.decode()
    assert api.get("/services").status_code == 200
    browser.post(f"{LIST}{row.pk}/revoke/")

    assert api.get("/services").status_code == 401
    assert AuditEntry.objects.filter(action="token.revoke").get().actor == "a-admin"
    again = browser.post(f"{LIST}{row.pk}/revoke/", follow=True).content.decode()
    assert "was revoked before" in again
    assert "by a-admin" in browser.get(f"{LIST}{row.pk}/revoke/").content.decode()
    assert browser.get(f"{LIST}999/revoke/").status_code == 302


@pytest.mark.parametrize("group", ["viewer", "operator"])
def test_others_neither_see_nor_make_nor_revoke_tokens(console, api, group):
    browser, row = console(group), ApiToken.objects.get()

    for path in (LIST, ADD, f"{LIST}{row.pk}/change/", f"{LIST}{row.pk}/revoke/"):
        assert browser.get(path).status_code == 403
    assert browser.post(ADD, FORM).status_code == 403
    assert browser.post(f"{LIST}{row.pk}/revoke/").status_code == 403
    assert "API tokens" not in browser.get("/admin/").content.decode()
    assert api.get("/services").status_code == 200


def test_a_token_is_neither_changed_nor_deleted(console, api):
    browser, row = console("admin"), ApiToken.objects.get()

    assert browser.post(f"{LIST}{row.pk}/change/", {"name": "other"}).status_code == 403
    assert browser.post(f"{LIST}{row.pk}/delete/", {"post": "yes"}).status_code == 403
