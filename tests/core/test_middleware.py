"""Request ids, client addresses and the line a request leaves in the log."""

import json
import uuid

import pytest
from django.test import RequestFactory
from hypothesis import given
from hypothesis import strategies as st

from apps.core.middleware import client_address, request_id

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


@pytest.mark.django_db
def test_a_request_leaves_one_line_with_its_status_duration_and_id(client, capfd, settings):
    import logging.config

    logging.config.dictConfig(settings.LOGGING)
    client.get("/admin/login/", headers={"X-Request-ID": GIVEN})

    lines = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    (line,) = [line for line in lines if line["event"] == "request"]
    assert (line["method"], line["path"], line["status_code"]) == ("GET", "/admin/login/", 200)
    assert (line["request_id"], line["event_type"], line["ip_address"]) == (GIVEN, "request", "127.0.0.1")
    assert line["duration_ms"] > 0
