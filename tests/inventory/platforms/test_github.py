"""Starting a workflow: what GitHub is sent, and what its refusals mean."""

import json
import time

import pytest

from apps.core.errors import Transient
from apps.inventory.platforms import check_settings, destination, platform_for
from apps.inventory.platforms.base import PlatformError, PlatformUnavailable, SettingsInvalid
from tests.inventory.platforms.conftest import GITHUB, RELEASE, SECRET, Case
from tests.receiver import Receiver, Reply, Trouble

GOOD = {"repository": "acme/shop", "workflow": "deploy.yml"}


def test_the_workflow_is_dispatched_with_the_release_as_its_inputs(platform_server: Receiver):
    platform_server.starts_over(Reply(204))

    receipt = GITHUB.at(platform_server.url).roll_out(RELEASE)

    (request,) = platform_server.requests
    assert request.headers["authorization"] == f"Bearer {SECRET}"
    assert request.headers["accept"] == "application/vnd.github+json"
    assert request.headers["x-github-api-version"] == "2022-11-28"
    assert json.loads(request.body) == {
        "ref": "main",
        "inputs": {
            "version": "v1.4.2",
            "environment": "production",
            "kind": "rollback",
            "deployment_id": "deploy_20261020_143052",
            "reason": "error rate 12 % after v1.4.3",
        },
    }
    assert receipt.detail == "GitHub starts workflow deploy.yml of acme/shop for the rollback to v1.4.2."
    assert receipt.url == f"{platform_server.url}/acme/shop/actions/workflows/deploy.yml?query=branch%3Amain"


def test_inputs_and_ref_are_the_workflows_own(platform_server: Receiver):
    platform_server.starts_over(Reply(204))
    case = Case("github", {**GITHUB.settings, "ref": "release/v1", "inputs": {"tag": "version"}}, b"", "")

    case.at(platform_server.url).roll_out(RELEASE)

    assert json.loads(platform_server.requests[0].body) == {"ref": "release/v1", "inputs": {"tag": "v1.4.2"}}


def test_the_run_is_linked_when_github_names_it(platform_server: Receiver):
    platform_server.starts_over(Reply(200, b'{"html_url": "https://github.com/acme/shop/actions/runs/7"}'))

    assert GITHUB.at(platform_server.url).roll_out(RELEASE).url == "https://github.com/acme/shop/actions/runs/7"


def test_without_a_base_url_it_is_github_itself():
    platform = platform_for("github", GOOD, SECRET)

    assert platform.base_url == "https://api.github.com"
    assert destination("github", GOOD) == "https://api.github.com"
    assert destination("github", {**GOOD, "base_url": "https://ghe.example.com/api/v3"}) == "https://ghe.example.com"


@pytest.mark.parametrize(
    ("status", "message", "remedy"),
    [
        (401, "Bad credentials", "HTTP 401, Bad credentials.*has expired; make a new one"),
        (403, "Resource not accessible by personal access token", "give it the permission Actions: write"),
        (404, "Not Found", "no workflow deploy.yml in acme/shop, or the token may not see"),
        (422, 'Unexpected inputs provided: ["kind"]', "exactly the inputs version, environment, kind"),
        (410, "Gone", "correct the platform settings"),
    ],
)
def test_a_refusal_names_cause_and_remedy(status: int, message: str, remedy: str, platform_server: Receiver):
    platform_server.starts_over(Reply(status, json.dumps({"message": message}).encode()))

    with pytest.raises(PlatformError, match=remedy) as caught:
        GITHUB.at(platform_server.url).roll_out(RELEASE)

    assert not isinstance(caught.value, Transient)


@pytest.mark.parametrize("headers", [{"X-RateLimit-Remaining": "0"}, {"Retry-After": "0"}])
def test_a_rate_limit_is_no_lack_of_permission(headers: dict[str, str], platform_server: Receiver):
    platform_server.starts_over(Reply(403, b'{"message": "API rate limit exceeded"}', headers))

    with pytest.raises(PlatformUnavailable, match="accepts no more requests with this token for now"):
        GITHUB.at(platform_server.url).roll_out(RELEASE)


def test_a_rate_limit_that_ends_in_an_hour_is_not_waited_for(platform_server: Receiver):
    reset = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(int(time.time()) + 3600)}
    platform_server.starts_over(Reply(403, b"", reset))

    with pytest.raises(PlatformUnavailable):
        GITHUB.at(platform_server.url).roll_out(RELEASE)

    assert len(platform_server.requests) == 1


@pytest.mark.parametrize("trouble", [Trouble.RESET, Trouble.NEVER, Trouble.GARBAGE, Reply(502)])
def test_a_run_that_may_have_started_is_not_started_again(trouble: Reply | str, platform_server: Receiver):
    platform_server.starts_over(trouble)

    with pytest.raises(PlatformError, match=r"may have .* or not: look .* before you try again") as caught:
        GITHUB.at(platform_server.url).roll_out(RELEASE)

    assert not isinstance(caught.value, Transient)
    assert len(platform_server.requests) == 1


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("repository", "shop"), ("repository", "acme/shop/x"), ("repository", "acme/.."), ("repository", "../x"),
        ("repository", "acme/sh op"), ("repository", 7), ("workflow", "../deploy.yml"), ("workflow", "deploy"),
        ("workflow", ""), ("ref", "a b"), ("ref", "a..\\b"), ("ref", None), ("inputs", []), ("inputs", {"v": 1}),
        ("inputs", {"tag": "colour"}), ("inputs", {"": "version"}), ("inputs", {str(n): "version" for n in range(26)}),
    ],
)  # fmt: skip
def test_a_wrong_setting_is_refused(name: str, wrong: object):
    with pytest.raises(SettingsInvalid, match=f"setting {name} "):
        check_settings("github", {**GOOD, name: wrong}, SECRET)


@pytest.mark.parametrize("wrong", ["two words", "line\nbreak", "ümlaut", "x" * 5000])
def test_a_token_that_fits_no_header_is_refused_without_being_repeated(wrong: str):
    with pytest.raises(SettingsInvalid, match="copy it again") as caught:
        check_settings("github", GOOD, wrong)

    assert wrong not in str(caught.value)


def test_workflows_may_be_given_by_id():
    check_settings("github", {**GOOD, "workflow": "161335"}, SECRET)
