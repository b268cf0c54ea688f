"""What holds for every platform that is asked over HTTP, whatever the other side does."""

import time
from contextlib import suppress

import pytest

from apps.core.errors import Transient
from apps.core.redaction import redact
from apps.inventory.choices import Platform
from apps.inventory.platforms import PLATFORMS, check_settings, platform_for, takes_secret
from apps.inventory.platforms.base import PlatformError, PlatformUnavailable, Receipt, SettingsInvalid
from apps.inventory.platforms.transport import MAX_BODY, Limits
from tests.inventory.platforms.conftest import GITHUB, RELEASE, SECRET, WEBHOOK, ZEABUR, Case
from tests.receiver import Receiver, Reply, Trouble
from tests.servers import free_port

CASES = [GITHUB, WEBHOOK, ZEABUR]
everywhere = pytest.mark.parametrize("case", CASES, ids=lambda case: case.kind)


def said_by(case: Case, server: Receiver) -> str:
    """What a person reads in the end, whether it went well or not."""
    try:
        return case.at(server.url).roll_out(RELEASE).detail
    except PlatformError as error:
        return str(error)


def test_every_kind_that_talks_to_somebody_is_under_this_contract():
    # Those that scale as well are asked in more than one request: test_scalers.py holds theirs.
    assert {case.kind for case in CASES} == set(PLATFORMS) - {"advisory", "docker", "kubernetes"}
    assert set(PLATFORMS) <= set(Platform.values)


@everywhere
def test_a_release_that_is_accepted_gives_a_receipt(case: Case, platform_server: Receiver):
    platform_server.starts_over(Reply(200, case.accepted))

    receipt = case.at(platform_server.url).roll_out(RELEASE)

    assert isinstance(receipt, Receipt)
    assert receipt.accepted
    assert receipt.detail.endswith(".")
    (request,) = platform_server.requests
    assert (request.method, request.path) == ("POST", case.path)
    assert request.headers["content-type"] == "application/json"


@everywhere
@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_not_followed(case: Case, status: int, platform_server: Receiver):
    platform_server.starts_over(Reply(status, b"", {"Location": f"{platform_server.url}/elsewhere"}))

    with pytest.raises(PlatformError, match=f"HTTP {status}") as caught:
        case.at(platform_server.url).roll_out(RELEASE)

    assert not isinstance(caught.value, Transient)
    assert len(platform_server.requests) == 1


@everywhere
@pytest.mark.parametrize("trouble", [Trouble.RESET, Trouble.GARBAGE, Trouble.NEVER, Reply(500), Reply(503), Reply(429)])
def test_trouble_ends_in_a_sentence_within_the_time_limit(case: Case, trouble: Reply | str, platform_server: Receiver):
    platform_server.starts_over(trouble)
    started = time.monotonic()

    with pytest.raises(PlatformError, match=r"127\.0\.0\.1.*\.$") as caught:
        case.at(platform_server.url).roll_out(RELEASE)

    assert time.monotonic() - started < 4
    assert "\n" not in str(caught.value)
    assert 1 <= len(platform_server.requests) <= 3


@everywhere
def test_nobody_listening_is_tried_again_and_then_said(case: Case):
    with pytest.raises(PlatformUnavailable, match=r"refused the connection \(tried 3 times\)"):
        case.at(f"http://127.0.0.1:{free_port()}").roll_out(RELEASE)


@everywhere
def test_an_endless_answer_is_cut_off(case: Case, platform_server: Receiver):
    platform_server.starts_over(Trouble.ENDLESS)
    started = time.monotonic()

    with suppress(PlatformError):  # a kind that needs to read the answer says that it could not
        case.at(platform_server.url).roll_out(RELEASE)

    assert time.monotonic() - started < 2


@everywhere
def test_a_huge_answer_costs_no_memory_and_no_verdict(case: Case, platform_server: Receiver):
    platform_server.starts_over(Reply(500, b"[" * (MAX_BODY * 20)))

    with pytest.raises(PlatformError, match="HTTP 500"):
        case.at(platform_server.url).roll_out(RELEASE)


@everywhere
@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 410, 422])
def test_a_refusal_is_not_repeated(case: Case, status: int, platform_server: Receiver):
    platform_server.starts_over(Reply(status, b'{"message": "no"}'))

    with pytest.raises(PlatformError, match=f"HTTP {status}") as caught:
        case.at(platform_server.url).roll_out(RELEASE)

    assert not isinstance(caught.value, Transient)
    assert len(platform_server.requests) == 1


@everywhere
@pytest.mark.parametrize("body", [b"[]", b"null", b"\xff", b"{", b'"x"', b"[" * 5000, b'{"errors": 7, "message": {}}'])
@pytest.mark.parametrize("status", [200, 400])
def test_an_answer_nobody_understands_breaks_nothing(case: Case, status: int, body: bytes, platform_server: Receiver):
    platform_server.starts_over(Reply(status, body))

    assert said_by(case, platform_server).endswith(".")


@everywhere
def test_a_secret_that_comes_back_is_not_passed_on(case: Case, platform_server: Receiver):
    echo = (
        f'{{"message": "bad {SECRET}", "detail": "bad {SECRET}", "errors": [{{"message": "bad {SECRET}"}}]}}'.encode()
    )
    for status in (200, 400, 422, 500):
        platform_server.starts_over(Reply(status, echo))
        platform = case.at(platform_server.url)
        try:
            said = str(platform.roll_out(RELEASE))
        except PlatformError as error:
            said = f"{error} {error!r} {error.__cause__!r}"

        assert SECRET not in said
        assert SECRET not in repr(platform)
    assert SECRET not in redact(f"the log says {SECRET} too")


@everywhere
def test_patience_that_is_asked_for_is_given(case: Case, platform_server: Receiver):
    platform_server.starts_over(Reply(429, b"", {"Retry-After": "1"}), Reply(200, case.accepted))
    started = time.monotonic()

    assert case.at(platform_server.url).roll_out(RELEASE).accepted

    assert 1 <= time.monotonic() - started < 3
    assert len(platform_server.requests) == 2


@everywhere
@pytest.mark.parametrize("patience", ["3600", "Fri, 01 Jan 2100 00:00:00 GMT", "9" * 400])
def test_patience_beyond_the_limit_is_not_waited_for(case: Case, patience: str, platform_server: Receiver):
    platform_server.starts_over(Reply(429, b"", {"Retry-After": patience}))
    started = time.monotonic()

    with pytest.raises(PlatformUnavailable, match="HTTP 429"):
        case.at(platform_server.url).roll_out(RELEASE)

    assert time.monotonic() - started < 1
    assert len(platform_server.requests) == 1


@everywhere
def test_all_attempts_together_keep_one_time_limit(case: Case, platform_server: Receiver):
    platform_server.starts_over(Reply(429))
    started = time.monotonic()

    with pytest.raises(PlatformUnavailable):
        case.at(
            platform_server.url,
            limits=Limits(attempts=1000, attempt_seconds=0.5, total_seconds=0.6, backoff_seconds=0.01),
        ).roll_out(RELEASE)

    assert time.monotonic() - started < 1.5


@everywhere
def test_a_proxy_of_the_environment_is_not_used(case: Case, platform_server: Receiver, monkeypatch: pytest.MonkeyPatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    platform_server.starts_over(Reply(200, case.accepted))

    assert case.at(platform_server.url).roll_out(RELEASE).accepted


@everywhere
@pytest.mark.parametrize(
    "wrong",
    ["ftp://ci.example.com", "https://ana:sesame@ci.example.com", "https://", "javascript:alert(1)", "https://a b",
     7, None, "", "https://ci.example.com/" + "x" * 300],
)  # fmt: skip
def test_a_wrong_address_is_refused_in_one_sentence(case: Case, wrong: object):
    name = next(name for name, value in case.settings.items() if "{url}" in str(value))

    with pytest.raises(SettingsInvalid, match=f"setting {name} ") as caught:
        check_settings(case.kind, {**case.settings, name: wrong}, SECRET)

    assert caught.value.field == "platform_settings"
    assert "sesame" not in str(caught.value)


@everywhere
def test_an_unknown_setting_and_a_missing_secret_are_refused(case: Case):
    settings = {
        name: value.replace("{url}", "https://x.example.com") if isinstance(value, str) else value
        for name, value in case.settings.items()
    }
    with pytest.raises(SettingsInvalid, match="has no setting 'ulr'"):
        check_settings(case.kind, {**settings, "ulr": "x"}, SECRET)
    with pytest.raises(SettingsInvalid, match="needs a") as caught:
        check_settings(case.kind, settings, "")
    assert caught.value.field == "platform_secret"
    assert takes_secret(case.kind)
    for nothing in ([], "url", None, 5):
        with pytest.raises(SettingsInvalid, match="must be a JSON object"):
            check_settings(case.kind, nothing, SECRET)


def test_advisory_changes_nothing_and_says_so():
    receipt = platform_for("advisory", {}, "").roll_out(RELEASE)

    assert not receipt.accepted
    assert receipt.detail == (
        "Nothing was changed, because shop/production is on platform advisory: deploy version v1.4.2 yourself."
    )
    assert not takes_secret("advisory")
    with pytest.raises(SettingsInvalid, match="advisory has no setting 'url'; known are: none"):
        check_settings("advisory", {"url": "https://x.example.com"}, "")


def test_a_kind_that_cannot_roll_out_says_what_to_do():
    with pytest.raises(PlatformError, match="on platform gunicorn: do it by hand"):
        platform_for("gunicorn", {}, "")
    with pytest.raises(SettingsInvalid, match="Platform gunicorn"):
        check_settings("gunicorn", {"colour": "red"}, "")
