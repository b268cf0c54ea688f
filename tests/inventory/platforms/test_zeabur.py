"""Redeploying a service of Zeabur: what its GraphQL API is sent, and what its answers mean."""

import json
from dataclasses import replace

import pytest

from apps.core.errors import Transient
from apps.inventory.platforms import check_settings, destination
from apps.inventory.platforms.base import PlatformError, SettingsInvalid
from tests.inventory.platforms.conftest import RELEASE, SECRET, ZEABUR, Case
from tests.receiver import Receiver, Reply, Trouble

GOOD = {"service_id": "65a1b2c3d4e5f60718293a4b", "environment_id": "65a1b2c3d4e5f60718293a4c"}


def test_the_service_is_redeployed_in_its_environment(platform_server: Receiver):
    platform_server.starts_over(Reply(200, ZEABUR.accepted))

    receipt = ZEABUR.at(platform_server.url).roll_out(RELEASE)

    (request,) = platform_server.requests
    assert request.headers["authorization"] == f"Bearer {SECRET}"
    sent = json.loads(request.body)
    assert "redeployService(serviceID: $service, environmentID: $environment)" in sent["query"]
    assert sent["variables"] == {"service": GOOD["service_id"], "environment": GOOD["environment_id"]}
    assert "newest commit" in receipt.detail


def test_a_rollback_does_not_redeploy_what_has_just_failed(platform_server: Receiver):
    case = Case("zeabur", {**ZEABUR.settings, "redeploy_on_rollback": False}, b"", "")

    receipt = case.at(platform_server.url).roll_out(RELEASE)

    assert not receipt.accepted
    assert "go back to v1.4.2 with Rollback" in receipt.detail
    assert platform_server.requests == []
    platform_server.starts_over(Reply(200, ZEABUR.accepted))
    assert case.at(platform_server.url).roll_out(replace(RELEASE, kind="deployment")).accepted


@pytest.mark.parametrize(
    ("reply", "remedy"),
    [
        (Reply(200, b'{"errors": [{"message": "Permission denied", "extensions": {"code": "FORBIDDEN"}}]}'),
         "HTTP 200, Permission denied.*the API key is not valid"),
        (Reply(200, b'{"data": null, "errors": [{"message": "service not found"}]}'),
         "HTTP 200, service not found.*check base_url, service_id"),
        (Reply(200, b'{"data": {"redeployService": true}, "errors": [{"message": "no quota"}]}'), "no quota"),
        (Reply(401, b'{"errors": [{"message": "token expired"}]}'), "HTTP 401, token expired.*make a new one"),
        (Reply(200, b'{"data": {"redeployService": false}}'), "nobody knows what became of the order"),
        (Reply(200, b"<html>"), "gave no answer of a GraphQL API"),
        (Reply(502), "may have started a deployment or not"),
    ],
)  # fmt: skip
def test_a_refusal_names_cause_and_remedy(reply: Reply, remedy: str, platform_server: Receiver):
    platform_server.starts_over(reply)

    with pytest.raises(PlatformError, match=remedy) as caught:
        ZEABUR.at(platform_server.url).roll_out(RELEASE)

    assert not isinstance(caught.value, Transient)
    assert len(platform_server.requests) == 1


@pytest.mark.parametrize(
    "errors", [b"[]", b"[7]", b'"x"', b'[{"extensions": 7}]', b'[{"message": 1, "extensions": {"code": 2}}]']
)
def test_errors_of_another_shape_are_errors_still(errors: bytes, platform_server: Receiver):
    platform_server.starts_over(Reply(200, b'{"data": {"redeployService": true}, "errors": %s}' % errors))

    with pytest.raises(PlatformError, match="HTTP 200"):
        ZEABUR.at(platform_server.url).roll_out(RELEASE)


def test_a_build_that_may_have_started_is_not_started_again(platform_server: Receiver):
    platform_server.starts_over(Trouble.RESET)

    with pytest.raises(PlatformError, match="may have accepted the request or not"):
        ZEABUR.at(platform_server.url).roll_out(RELEASE)

    assert len(platform_server.requests) == 1


@pytest.mark.parametrize(
    ("name", "wrong"),
    [("service_id", "shop"), ("environment_id", ""), ("environment_id", 7), ("redeploy_on_rollback", "yes")],
)
def test_a_wrong_setting_is_refused(name: str, wrong: object):
    with pytest.raises(SettingsInvalid, match=f"setting {name} "):
        check_settings("zeabur", {**GOOD, name: wrong}, SECRET)


def test_the_key_belongs_to_the_address_of_the_api():
    assert destination("zeabur", GOOD) == "https://api.zeabur.com"
    assert destination("zeabur", {**GOOD, "base_url": "https://api.zeabur.cn/graphql"}) == "https://api.zeabur.cn"
