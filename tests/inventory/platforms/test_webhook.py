"""The signed webhook: what is sent, how it is signed, and how a receiver checks it."""

import base64
import hashlib
import hmac
import json
import subprocess
import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.core.errors import Transient
from apps.inventory.platforms import check_settings, destination
from apps.inventory.platforms.base import PlatformError, PlatformUnavailable, SettingsInvalid
from apps.inventory.platforms.webhook import delivery_id, signature, signing_key
from tests.inventory.platforms.conftest import RELEASE, SECRET, SHA, WEBHOOK
from tests.receiver import Receiver, Reply, Request, Trouble


def verified(request: Request, secret: str) -> bool:
    """What a receiver does."""
    moment = request.headers["webhook-timestamp"]
    message = f"{request.headers['webhook-id']}.{moment}.".encode() + request.body
    wanted = "v1," + base64.b64encode(hmac.new(secret.encode(), message, hashlib.sha256).digest()).decode()
    recent = abs(time.time() - int(moment)) < 300
    return recent and hmac.compare_digest(wanted, request.headers["webhook-signature"])


def test_the_release_is_sent_as_json_and_signed(platform_server: Receiver):
    platform_server.starts_over(Reply(202, b'{"detail": "queued as job 7", "url": "https://ci.example.com/jobs/7"}'))

    receipt = WEBHOOK.at(platform_server.url).roll_out(RELEASE)

    (request,) = platform_server.requests
    assert json.loads(request.body) == {
        "service": "shop",
        "environment": "production",
        "version": "v1.4.2",
        "commit_sha": SHA,
        "deployment_id": "deploy_20261020_143052",
        "reason": "error rate 12 % after v1.4.3",
        "kind": "rollback",
    }
    assert verified(request, SECRET)
    assert not verified(request, "another-secret-of-the-test")
    assert receipt.url == "https://ci.example.com/jobs/7"
    assert receipt.detail.endswith("accepted the rollback to v1.4.2 (HTTP 202): queued as job 7.")


def test_the_shell_verifies_the_same_signature(platform_server: Receiver):
    platform_server.starts_over(Reply(204))
    WEBHOOK.at(platform_server.url).roll_out(RELEASE)
    (request,) = platform_server.requests

    message = f"{request.headers['webhook-id']}.{request.headers['webhook-timestamp']}.".encode() + request.body
    digest = subprocess.run(
        ["openssl", "dgst", "-sha256", "-hmac", SECRET, "-binary"], input=message, capture_output=True, check=True
    ).stdout

    assert request.headers["webhook-signature"] == "v1," + base64.b64encode(digest).decode()


@given(st.binary(max_size=200), st.integers(0, 10_000), st.integers(1, 255))
def test_any_altered_byte_fails_the_signature(body: bytes, place: int, bits: int):
    key, moment = signing_key(SECRET), 1_790_000_000
    signed = f"{RELEASE.deployment_id}.{moment}.".encode() + body
    altered = bytearray(signed)
    altered[place % len(signed)] ^= bits

    def mac(message: bytes) -> str:
        return "v1," + base64.b64encode(hmac.new(key, message, hashlib.sha256).digest()).decode()

    assert signature(key, RELEASE.deployment_id, moment, body) == mac(signed) != mac(bytes(altered))


def test_all_attempts_at_one_record_carry_one_id_and_their_own_time(platform_server: Receiver):
    platform_server.starts_over(Reply(503, b"", {"Retry-After": "1"}), Trouble.RESET, Reply(200))

    assert WEBHOOK.at(platform_server.url).roll_out(RELEASE).accepted

    first, *_, last = platform_server.requests
    assert len(platform_server.requests) == 3
    assert first.headers["webhook-id"] == last.headers["webhook-id"] == delivery_id(RELEASE)
    assert int(first.headers["webhook-timestamp"]) < int(last.headers["webhook-timestamp"])
    assert all(verified(request, SECRET) for request in platform_server.requests)


def test_another_record_has_another_id():
    ids = {
        delivery_id(replace(RELEASE, **change))
        for change in ({}, {"deployment_id": "deploy_2"}, {"kind": "deployment"}, {"service": "api"}, {"reason": "x"})
    }
    assert len(ids) == 4  # the reason does not make it another one


@pytest.mark.parametrize(("status", "word"), [(429, "asks for patience"), (500, "is in trouble"), (503, "in trouble")])
def test_an_overloaded_receiver_may_be_asked_again_later(status: int, word: str, platform_server: Receiver):
    platform_server.starts_over(Reply(status))

    with pytest.raises(PlatformUnavailable, match=word) as caught:
        WEBHOOK.at(platform_server.url).roll_out(RELEASE)

    assert isinstance(caught.value, Transient)
    assert len(platform_server.requests) == 3


def test_a_refused_signature_names_the_remedy(platform_server: Receiver):
    platform_server.starts_over(Reply(401, b'{"detail": "bad signature\\u0000\\n<script>"}'))

    with pytest.raises(PlatformError, match=r"HTTP 401, bad signature <script>.*the same secret and the right time\.$"):
        WEBHOOK.at(platform_server.url).roll_out(RELEASE)


@pytest.mark.parametrize(
    "link", ["javascript:alert(1)", "https://a:b@x.example.com", 7, "https://x.example.com/" + "y" * 300]
)
def test_a_link_that_is_no_plain_address_is_left_out(link: object, platform_server: Receiver):
    platform_server.starts_over(Reply(200, json.dumps({"url": link}).encode()))

    assert WEBHOOK.at(platform_server.url).roll_out(RELEASE).url == ""


def test_text_of_any_kind_can_be_sent(platform_server: Receiver):
    platform_server.starts_over(Reply(200))
    odd = replace(RELEASE, reason='<b>"quoted"</b>\n\ud800 ünï', version="1.0.0+build.5")

    WEBHOOK.at(platform_server.url).roll_out(odd)

    (request,) = platform_server.requests
    assert json.loads(request.body)["reason"] == odd.reason
    assert verified(request, SECRET)


def test_a_standard_webhooks_secret_is_decoded():
    key = bytes(range(32))

    assert signing_key("whsec_" + base64.b64encode(key).decode()) == key
    for wrong in ("whsec_not base64 at all!", "whsec_" + base64.b64encode(b"short-key-1").decode()):
        with pytest.raises(SettingsInvalid, match="is not the base64 of at least 16 bytes") as caught:
            signing_key(wrong)
        assert wrong not in str(caught.value)


def test_a_short_secret_is_refused():
    with pytest.raises(SettingsInvalid, match="at least 16 characters"):
        check_settings("webhook", {"url": "https://ci.example.com"}, "short")


def test_the_secret_belongs_to_scheme_host_and_port():
    assert destination("webhook", {"url": "https://CI.example.com:8443/a?b"}) == "https://ci.example.com:8443"
