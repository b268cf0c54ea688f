"""Request ids, client addresses and the line a request leaves in the log."""

import io
import json
import logging
import uuid

import pytest
from django.contrib.auth.decorators import permission_required
from django.test import RequestFactory
from django.urls import path
from django.views.decorators.http import require_GET
from hypothesis import given
from hypothesis import strategies as st

from apps.core.logging import JsonFormatter
from apps.core.middleware import client_address, request_id
from tests.factories import UserFactory

GIVEN = "550e8400-e29b-41d4-a716-446655440000"


def test_a_uuid_is_kept_and_returned(client, db):
    reply = client.get("/admin/login/", headers={"X-Request-ID": GIVEN})

    assert reply["X-Request-ID"] == GIVEN


@given(st.text(st.characters(max_codepoint=255), max_size=60))
def test_anything_else_is_replaced(text):
    given_id = request_id(RequestFactory().get("/", headers={"X-Request-ID": text}))

    assert str(uuid.UUID(given_id)) == given_id


def test_a_forwarded_address_is_not_believed_without_trusted_proxies():
    request = RequestFactory().get("/", REMOTE_ADDR="10.0.0.9", headers={"X-Forwarded-For": "1.2.3.4"})

    assert client_address(request) == "10.0.0.9"


@pytest.mark.parametrize(
    ("header", "address"),
    [("6.6.6.6, 1.2.3.4", "1.2.3.4"), ("1.2.3.4", "1.2.3.4"), ("", "10.0.0.9"), ("evil, <script>", "10.0.0.9")],
)
def test_with_one_trusted_proxy_the_last_entry_counts(settings, header, address):
    settings.TRUSTED_PROXIES = 1
    request = RequestFactory().get("/", REMOTE_ADDR="10.0.0.9", headers={"X-Forwarded-For": header})

    assert client_address(request) == address


@pytest.fixture
def logged():
    """Everything logged so far, as the process would write it."""
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(JsonFormatter())
    logging.getLogger().addHandler(handler)
    yield lambda: [json.loads(line) for line in written.getvalue().splitlines()]
    logging.getLogger().removeHandler(handler)


def sign_in(client, **fields):
    user = UserFactory(**fields)
    client.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
    return str(user.pk)


def explode(request):
    len(request.user.username)  # somebody asked who it is
    raise RuntimeError("boom")


urlpatterns = [
    path("explode", explode),
    path("forbid", permission_required("auth.x", raise_exception=True)(explode)),
    path("read", require_GET(explode)),
]


@pytest.mark.django_db
@pytest.mark.urls(__name__)
@pytest.mark.parametrize(
    ("where", "status", "signed_in"), [("/none", 404, False), ("/forbid", 403, True), ("/explode", 500, True)]
)
def test_every_line_of_a_failed_request_says_whose_it_was(client, logged, where, status, signed_in):
    client.raise_request_exception = False
    user_id = sign_in(client)

    assert client.get(where, headers={"X-Request-ID": GIVEN}).status_code == status

    lines = [line for line in logged() if line.get("status_code") == status]
    assert {line["logger"] for line in lines} == {"django.request", "apps.core.middleware"}
    assert len(lines) == 2
    for line in lines:
        assert (line["request_id"], line["ip_address"], line["path"]) == (GIVEN, "127.0.0.1", where)
        assert line.get("user_id") == (user_id if signed_in else None)


@pytest.mark.urls(__name__)
def test_a_refused_method_is_logged_with_the_request_id(client, logged):
    assert client.post("/read", headers={"X-Request-ID": GIVEN}).status_code == 405

    (line,) = [line for line in logged() if line["logger"] == "django.request"]
    assert (line["request_id"], line["ip_address"]) == (GIVEN, "127.0.0.1")


@pytest.mark.django_db
@pytest.mark.urls(__name__)
def test_nobody_is_looked_up_only_to_be_logged(client, logged, django_assert_num_queries):
    sign_in(client)
    with django_assert_num_queries(0):
        client.get("/none")

    assert not [line for line in logged() if "user_id" in line]


@pytest.mark.django_db
def test_a_request_leaves_one_line_with_its_status_duration_and_id(client, logged):
    client.get("/admin/login/", headers={"X-Request-ID": GIVEN})

    (line,) = [line for line in logged() if line["event"] == "request"]
    assert (line["method"], line["path"], line["status_code"]) == ("GET", "/admin/login/", 200)
    assert (line["request_id"], line["event_type"], line["ip_address"]) == (GIVEN, "request", "127.0.0.1")
    assert line["duration_ms"] > 0
