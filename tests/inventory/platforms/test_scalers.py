"""What holds for everything that scales, whatever the other side does."""

import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from apps.core.errors import Conflict, Transient
from apps.core.redaction import redact
from apps.inventory.platforms import SCALERS, check_settings, scaler_for, scales
from apps.inventory.platforms.base import CountChanged, PlatformError, PlatformUnavailable, SettingsInvalid
from tests.inventory.platforms.cluster import NAME, NAMESPACE, Cluster
from tests.inventory.platforms.conftest import RELEASE
from tests.inventory.platforms.engine import SERVICE, Engine
from tests.inventory.platforms.plays import ALIEN, BROKEN, DRIPPING, GARBAGE, MISSING, REFUSED, SLOW, Hook, served
from tests.inventory.platforms.stands import BOUND, SECRET, Stand
from tests.servers import free_port

KINDS = ["docker", "gunicorn", "kubernetes", "webhook"]
ROLLING_OUT = ["docker", "kubernetes"]  # by images; the webhook has a contract of its own
OVER_HTTP = [kind for kind in KINDS if kind != "gunicorn"]
everything = pytest.mark.parametrize("stand", KINDS, indirect=True)
only_webhook = pytest.mark.parametrize("stand", ["webhook"], indirect=True)
over_http = pytest.mark.parametrize("stand", OVER_HTTP, indirect=True)


@pytest.fixture(scope="module")
def webhook() -> Iterator[Stand]:
    play = Hook()
    with served(play) as url:
        yield Stand(
            "webhook", "instance", play, {"url": f"{url}/deploy", "scale_url": f"{url}/scale"},
            dict.fromkeys(("url", "scale_url"), f"http://127.0.0.1:{free_port()}"),
            {"scale_url": "ftp://ci.example.com"},
        )  # fmt: skip


@pytest.fixture(scope="module")
def docker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    folder = tmp_path_factory.mktemp("docker")
    play = Engine()
    with served(play, folder / "docker.sock") as path:
        yield Stand(
            "docker", "replica", play, {"host": f"unix://{path}", "service": SERVICE, "image": "shop:{version}"},
            {"host": f"unix://{folder}/nobody.sock"},
            {"host": "docker", "service": "a b", "image": "shop", "network": "", "port": True, "ca": 7},
            secret="",
        )  # fmt: skip


@pytest.fixture(scope="module")
def kubernetes() -> Iterator[Stand]:
    play = Cluster()
    with served(play) as url:
        yield Stand(
            "kubernetes", "pod", play, {"server": url, "namespace": NAMESPACE, "name": NAME, "image": "shop:{version}"},
            {"server": f"http://127.0.0.1:{free_port()}"},
            {"namespace": "Shop", "kind": "Pod", "name": "web/scale", "container": "", "selector": "app in (a)",
             "image": "shop", "port": 70000, "server": "kubernetes", "ca": 7},
        )  # fmt: skip


@pytest.fixture
def stand(request: pytest.FixtureRequest) -> Stand:
    found: Stand = request.getfixturevalue(request.param)
    found.play.starts_over()
    return found


def test_everything_that_scales_is_under_this_contract():
    assert set(KINDS) == set(SCALERS)


@everything
def test_instances_are_added_and_removed_and_asking_twice_is_asking_once(stand: Stand):
    scaler = stand.scaler()
    assert scaler.unit == stand.unit
    seen = scaler.count()
    assert (seen.desired, seen.ready) in {(2, 2), (2, None)}

    scaler.scale(4, seen=seen)
    assert (scaler.count().desired, stand.play.running) == (4, 4)
    scaler.scale(4, seen=seen)  # a worker died before it could say that it was done
    assert (scaler.count().desired, stand.play.wishes) == (4, [4])

    scaler.scale(2, seen=scaler.count())
    assert stand.play.running == 2


@everything
def test_a_count_that_somebody_else_has_changed_is_left_alone(stand: Stand):
    scaler = stand.scaler()
    seen = scaler.count()
    scaler.scale(3, seen=seen)  # by somebody who is faster

    with pytest.raises(CountChanged, match=r"(?i)somebody else (had )?changed .*\b2\b.*\b3\b.*\.$") as caught:
        scaler.scale(1, seen=seen)

    assert isinstance(caught.value, Conflict)
    assert stand.play.running == 3


@everything
def test_nobody_there_is_said_in_time_and_may_be_tried_again(stand: Stand):
    started = time.monotonic()
    for ask in (lambda: stand.lost().count(), lambda: stand.lost().scale(3, seen=stand.scaler().count())):
        with pytest.raises(PlatformUnavailable, match=r"^[^\n]+: [^\n]+\.$") as caught:
            ask()
        assert isinstance(caught.value, Transient)
    assert time.monotonic() - started < 3
    assert stand.play.running == 2


@everything
def test_wrong_settings_are_named(stand: Stand):
    for name, value in stand.wrong.items():
        with pytest.raises(SettingsInvalid, match=f"Platform {stand.kind}: setting {name} ") as caught:
            stand.scaler(**{name: value})
        assert caught.value.field == "platform_settings"
    with pytest.raises(SettingsInvalid, match=f"Platform {stand.kind} has no setting 'replicas'; known are: "):
        check_settings(stand.kind, {**stand.settings, "replicas": 3}, stand.secret)


@over_http
def test_a_platform_that_takes_its_time_is_given_up_on(stand: Stand):
    scaler = stand.scaler()
    seen = scaler.count()
    for trouble, ask in {SLOW: lambda: scaler.count(), DRIPPING: lambda: scaler.scale(3, seen=seen)}.items():
        stand.play.trouble = trouble
        started = time.monotonic()
        with pytest.raises(PlatformUnavailable, match=r"did not answer within .* s \(tried 2 times\): check that"):
            ask()
        assert time.monotonic() - started < BOUND.total_seconds + 1
    assert stand.play.running == 2


@over_http
@pytest.mark.parametrize("trouble", [ALIEN, GARBAGE, REFUSED, MISSING, BROKEN])
def test_an_answer_that_is_none_is_one_sentence_of_cause_and_remedy_without_a_secret(stand: Stand, trouble: str):
    scaler = stand.scaler()
    seen = scaler.count()
    stand.play.trouble = trouble
    status = {REFUSED: "HTTP 403", MISSING: "HTTP 404", BROKEN: "HTTP 503"}.get(trouble, "")

    with pytest.raises(PlatformError, match=rf"^[^\n]*{status}[^\n]*[:;,] [^\n]+\.$") as caught:
        scaler.count()

    assert isinstance(caught.value, PlatformUnavailable) == (trouble in (ALIEN, BROKEN))
    texts = [str(caught.value)]
    if trouble != GARBAGE:  # which accepts everything
        with pytest.raises(PlatformError, match=r"\.$") as caught:
            scaler.scale(3, seen=seen)
        texts.append(str(caught.value))
    if stand.kind in ROLLING_OUT:
        with pytest.raises(PlatformError, match=r"\.$") as caught:
            replace(scaler, limits=BOUND).roll_out(RELEASE)
        texts.append(str(caught.value))
    assert SECRET not in f"{texts} {caught.value!r} {caught.value.__cause__!r} {scaler!r}"
    assert SECRET not in redact(f"the log says {SECRET} too")
    assert stand.play.running == 2


@only_webhook
def test_a_webhook_without_an_address_to_scale_at_scales_nothing(stand: Stand):
    settings = {"url": stand.settings["url"]}
    assert not scales("webhook", settings)
    assert scaler_for("webhook", settings, SECRET) is None
    assert scales("webhook", stand.settings)


@only_webhook
def test_a_webhook_is_scaled_only_where_its_secret_was_entered_for(stand: Stand):
    with pytest.raises(SettingsInvalid, match=r"setting scale_url must be at http://127\.0\.0\.1:\d+ like url"):
        stand.scaler(scale_url="https://elsewhere.example.com/scale")


@only_webhook
@pytest.mark.parametrize("said", [b"{}", b"[3]", b'{"instances": true}', b'{"instances": -1}', b'{"instances": 1e3}',
                                  b'{"instances": 2, "ready": "2"}', b'{"instances": 123456789}'])  # fmt: skip
def test_a_webhook_that_names_no_number_is_told_what_to_answer(stand: Stand, said: bytes, monkeypatch):
    monkeypatch.setattr(stand.play, "answer", lambda asked: (200, said))
    with pytest.raises(PlatformError, match="must answer with a JSON object"):
        stand.scaler().count()
