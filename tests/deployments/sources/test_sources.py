"""What deliveries of GitHub and Zeabur are read as."""

import json
from dataclasses import fields
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.deployments.sources import SOURCES, read
from apps.deployments.sources.base import (
    MAX_ID,
    MAX_LINK,
    MAX_MESSAGE,
    MAX_NAME,
    MAX_VERSION,
    Ignored,
    Report,
    RunEnded,
    environment_of,
    repository_key,
    version_of,
)
from tests.deployments.sources.payloads import DEPLOYMENT, PING, RUN_ENDED, SHA, STATUS, ZEABUR, changed

LIMITS = {
    "external_id": MAX_ID, "version": MAX_VERSION, "commit_message": MAX_MESSAGE, "error_message": MAX_MESSAGE,
    "triggered_by": MAX_NAME, "environment": MAX_NAME, "log_url": MAX_LINK, "deployment_url": MAX_LINK,
    "service": 50, "github_run_id": 64, "commit_sha": 40, "repository": 300, "run_id": 64,
}  # fmt: skip
EVENTS = ("deployment", "deployment_status", "workflow_run", "ping", "push", "", "<script>")

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3),
    max_leaves=12,
)


def paths(value: object, at: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
    """The way to everything in a payload."""
    inner = value.items() if isinstance(value, dict) else []
    return [at, *(path for name, part in inner for path in paths(part, (*at, name)))]


def replaced(payload: object, path: tuple[object, ...], value: object) -> object:
    if not path:
        return value
    assert isinstance(payload, dict)
    return {**payload, path[0]: replaced(payload[path[0]], path[1:], value)}


def check(event: object) -> None:
    """What the database and a page can hold."""
    for item in fields(event):
        value = getattr(event, item.name)
        if isinstance(value, str):
            value.encode()
            assert value.isprintable()
            assert len(value) <= LIMITS.get(item.name, 1000)
        if isinstance(value, datetime):
            assert value.tzinfo is not None


@given(st.sampled_from(sorted(SOURCES)), st.sampled_from(EVENTS), st.dictionaries(st.text(max_size=20), json_values))
def test_any_json_is_read_as_something(source, event, payload):
    check(read(source, event, payload))


@given(st.data(), json_values | st.text(min_size=100, max_size=700) | st.just("x" * 2000) | st.just("\ud800\x00"))
def test_a_genuine_payload_with_one_thing_replaced_is_read_as_something(data, value):
    source, event, payload = data.draw(
        st.sampled_from(
            [
                ("github", "deployment", DEPLOYMENT),
                ("github", "deployment_status", STATUS),
                ("github", "workflow_run", RUN_ENDED),
                ("zeabur", "", ZEABUR),
            ]
        )
    )
    changed_payload = replaced(payload, data.draw(st.sampled_from(paths(payload)[1:])), value)
    check(read(source, event, changed_payload))


def test_a_deployment_that_was_created_is_queued():
    assert read("github", "deployment", DEPLOYMENT) == Report(
        external_id="github.com/deployments/1500001",
        status="queued",
        repository="github.com/acme/shop",
        environment="production",
        version="v1.4.3",
        commit_sha=SHA,
        commit_message="Show prices with tax",
        triggered_by="ana",
        claimed_at=datetime(2026, 10, 20, 14, 30, tzinfo=UTC),
        github_run_id="11900000321",
        log_url="https://github.com/acme/shop/actions/runs/11900000321",
    )


def test_a_status_says_what_became_of_it():
    report = read("github", "deployment_status", STATUS)

    assert isinstance(report, Report)
    assert (report.external_id, report.status) == ("github.com/deployments/1500001", "completed")
    assert report.claimed_at == datetime(2026, 10, 20, 14, 33, 5, tzinfo=UTC)
    assert report.log_url == "https://github.com/acme/shop/actions/runs/11900000321/job/1"
    assert report.deployment_url == "https://shop.example.com"


@pytest.mark.parametrize(
    ("state", "status"),
    [
        ("pending", "queued"), ("queued", "queued"), ("waiting", "queued"), ("in_progress", "in_progress"),
        ("success", "completed"), ("failure", "failed"), ("error", "failed"),
    ],
)  # fmt: skip
def test_every_state_has_its_status(state: str, status: str):
    event = read("github", "deployment_status", changed(STATUS, deployment_status__state=state))

    assert isinstance(event, Report)
    assert event.status == status
    assert bool(event.error_message) == (status == "failed")


@pytest.mark.parametrize(
    ("event", "payload", "why"),
    [
        ("deployment_status", changed(STATUS, deployment_status__state="inactive"), "nothing about the outcome"),
        ("deployment", changed(DEPLOYMENT, action="deleted"), "Of deployments only the creation counts"),
        ("deployment", changed(DEPLOYMENT, deployment__task="lint"), "not to deploy"),
        ("deployment", changed(DEPLOYMENT, deployment__sha="main"), "no deployment with a commit"),
        ("deployment", changed(DEPLOYMENT, deployment=None), "no deployment with a commit"),
        ("workflow_run", changed(RUN_ENDED, action="requested"), "only the end counts"),
        ("workflow_run", changed(RUN_ENDED, workflow_run__conclusion="neutral"), "without an outcome"),
        ("ping", PING, "the webhook is set up"),
        ("push", {"ref": "refs/heads/main"}, "reads the events"),
    ],
)
def test_the_rest_is_ignored_for_a_reason(event: str, payload: dict, why: str):
    ignored = read("github", event, payload)

    assert isinstance(ignored, Ignored)
    assert why in ignored.reason


@pytest.mark.parametrize(
    ("conclusion", "status"),
    [("success", "completed"), ("failure", "failed"), ("timed_out", "failed"), ("cancelled", "cancelled")],
)
def test_the_end_of_a_run_is_told_with_its_number(conclusion: str, status: str):
    event = read("github", "workflow_run", changed(RUN_ENDED, workflow_run__conclusion=conclusion))

    assert isinstance(event, RunEnded)
    assert (event.run_id, event.status, event.repository) == ("11900000321", status, "github.com/acme/shop")
    assert event.detail == f"GitHub's run 11900000321 of Deploy has ended: {conclusion.replace('_', ' ')}."


@pytest.mark.parametrize("own", [{"service": "api", "version": "2.0.0"}, '{"service": "api", "version": "2.0.0"}'])
def test_a_deployment_may_name_service_and_version_itself(own: object):
    report = read("github", "deployment", changed(DEPLOYMENT, deployment__payload=own))

    assert isinstance(report, Report)
    assert (report.service, report.version) == ("api", "2.0.0")


def test_equal_numbers_of_two_githubs_are_two_deployments():
    other = changed(DEPLOYMENT, repository__html_url="https://ghe.example.com/acme/shop")

    assert read("github", "deployment", other).external_id == "ghe.example.com/deployments/1500001"


def test_zeabur_is_read_as_its_api_describes_a_deployment():
    assert read("zeabur", "", ZEABUR) == Report(
        external_id="zeabur/deployments/66f1a2b3c4d5e60718293a4f",
        status="completed",
        repository="github.com/acme/shop",
        environment="",
        version=SHA,
        commit_sha=SHA,
        commit_message="Show prices with tax Closes 12",
        claimed_at=datetime(2026, 10, 20, 14, 33, tzinfo=UTC),
        place=("65a1b2c3d4e5f60718293a4b", "65a1b2c3d4e5f60718293a4c"),
    )


def test_zeabur_may_be_wrapped_and_name_its_environment():
    report = read(
        "zeabur", "", {"deployment": {**ZEABUR, "status": "FAILED"}, "environment": "staging", "version": "v2.0.0"}
    )

    assert isinstance(report, Report)
    assert (report.status, report.environment, report.version) == ("failed", "staging", "v2.0.0")
    assert report.error_message == "Zeabur says failed."


@pytest.mark.parametrize("payload", [{}, changed(ZEABUR, status="REMOVED"), changed(ZEABUR, commitSHA=None)])
def test_zeabur_without_an_outcome_is_ignored(payload: dict):
    assert isinstance(read("zeabur", "", payload), Ignored)


@pytest.mark.parametrize(
    "address",
    [
        "https://github.com/acme/shop", "https://github.com/Acme/Shop.git", "http://www.github.com/acme/shop/",
        "git@github.com:acme/shop.git", "ssh://git@github.com/acme/shop.git", "ssh://git@github.com:22/acme/shop",
        "https://token@github.com/acme/shop", "git+ssh://git@github.com/acme/shop.git",
        "https://github.com/acme/shop/tree/main/backend", " https://github.com/acme/shop?tab=readme#top ",
        "git@github.com:/acme/shop.git",
    ],
)  # fmt: skip
def test_all_addresses_of_a_repository_have_one_key(address: str):
    assert repository_key(address) == "github.com/acme/shop"


@pytest.mark.parametrize("address", ["", "shop", "acme/shop", "https://a.io", "https://a.io/acme", "::", "@:/"])
def test_what_is_no_repository_has_no_key(address: str):
    assert repository_key(address) == ""


def test_a_group_within_a_group_stays_apart():
    assert repository_key("git@gitlab.com:acme/web/shop.git") == "gitlab.com/acme/web/shop"
    assert repository_key("https://gitlab.com/acme/web/shop/-/tree/main") == "gitlab.com/acme/web/shop"


@given(st.text())
def test_any_text_has_a_key_or_none(address: str):
    key = repository_key(address)
    assert not key or repository_key(f"https://{key}") in (key, "") or "." not in key


@pytest.mark.parametrize(
    ("name", "environment"),
    [
        ("production", "production"), ("Prod", "production"), ("LIVE", "production"),
        ("Production \u2013 shop", "production"),
        ("staging / api", "staging"), ("dev", "development"), ("qa", "staging"), ("Live  EU", "production"),
        ("pr-12", ""), ("production-db", ""), ("", ""), ("github-pages", ""),
    ],
)  # fmt: skip
def test_environments_have_many_names(name: str, environment: str):
    assert environment_of(name, {"qa": "staging", "live eu": "production"}) == environment


def test_a_name_of_ones_own_comes_first():
    assert environment_of("main", {"main": "staging"}) == "staging"


@pytest.mark.parametrize(
    ("ref", "named", "version"),
    [
        ("v1.4.3", "", "v1.4.3"), ("refs/tags/1.4.3-rc.1", "", "1.4.3-rc.1"), ("main", "", SHA),
        ("main", "v2.0.0", "v2.0.0"),
        ("main", "latest", SHA), ("v1.0.0-" + "x" * 80, "", SHA), ("v1", "", SHA),
        ("v2024.01.15", "", SHA), ("1.2.3-rc..1", "2024.01.15", SHA), ("1.2.3", "01.2.3", "1.2.3"),  # no semantic ones
    ],
)  # fmt: skip
def test_the_version_is_named_or_the_tag_or_the_commit(ref: str, named: str, version: str):
    assert version_of(ref, SHA, named) == version


def test_the_samples_are_json():
    assert json.loads(json.dumps([DEPLOYMENT, STATUS, RUN_ENDED, PING, ZEABUR]))
