"""What is Docker's own: the version of a service, its tasks, its image; and the same on a real engine."""

import copy
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from apps.inventory.platforms import check_settings, destination, scaler_for
from apps.inventory.platforms.base import PlatformError, PlatformUnavailable, SettingsInvalid
from apps.inventory.platforms.docker import Docker
from apps.inventory.platforms.transport import LIMITS, Route, call
from tests.inventory.platforms.conftest import RELEASE
from tests.inventory.platforms.engine import SERVICE, Engine, task
from tests.inventory.platforms.plays import certificate, served, server_context
from tests.inventory.platforms.stands import BOUND
from tests.servers import docker_engine

REAL = os.environ.get("PULSEWATCH_TEST_DOCKER_HOST", "")


@pytest.fixture(scope="module")
def running_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Engine, str]]:
    play = Engine()
    with served(play, tmp_path_factory.mktemp("docker") / "docker.sock") as path:
        yield play, path


@pytest.fixture
def engine(running_engine: tuple[Engine, str]) -> Engine:
    running_engine[0].starts_over()
    return running_engine[0]


@pytest.fixture
def shop(engine: Engine, running_engine: tuple[Engine, str]):
    """Makes the platform with more settings."""

    def made(**settings: Any) -> Docker:
        found = scaler_for("docker", {"host": f"unix://{running_engine[1]}", "service": SERVICE, **settings}, "")
        return replace(found, limits=BOUND, scale_limits=BOUND)

    return made


def test_a_service_is_written_back_as_it_was_but_for_its_replicas(shop, engine: Engine):
    before = copy.deepcopy(engine.spec)
    engine.restless = 2  # somebody changes a label between reading and writing, twice

    shop().scale(3, seen=shop().count())

    assert engine.spec == {**before, "Mode": {"Replicated": {"Replicas": 3}}}
    engine.restless = 50
    with pytest.raises(PlatformUnavailable, match="Service web was changed by somebody else each of the 3 times"):
        shop().scale(4, seen=shop().count())
    assert engine.running == 3


def test_a_version_is_rolled_out_by_its_image_and_once_more_changes_nothing(shop, engine: Engine):
    before = copy.deepcopy(engine.spec)
    before["TaskTemplate"]["ContainerSpec"]["Image"] = "registry.example.com/shop:v1.4.2"
    platform = shop(image="registry.example.com/shop:{version}")

    assert platform.roll_out(RELEASE).detail == (
        "Service web was set to image registry.example.com/shop:v1.4.2 for the rollback to v1.4.2."
    )
    assert (engine.spec, engine.wishes) == (before, [])
    version = engine.version
    assert platform.roll_out(RELEASE).detail.endswith("already.")
    assert engine.version == version

    receipt = shop().roll_out(RELEASE)
    assert not receipt.accepted
    assert "the platform settings name no image: deploy version v1.4.2 yourself" in receipt.detail


def test_instances_are_the_tasks_with_a_container(shop, engine: Engine):
    engine.tasks = [
        task("d2dadac8454b0207ba43c80653eae9b2", image="shop:v1.4.2@sha256:" + "a" * 64),
        task("f2620a69c69083e42f7c3376a8d00dfb", state="starting"),
        task("", state="pending"),
    ]
    one, two = shop(network="ops", port=8000).instances()
    assert (one.name, one.ready, one.version, one.url) == ("d2dadac8454b", True, "v1.4.2", "http://10.0.7.4:8000")
    assert one.started_at is not None
    assert one.started_at.isoformat() == "2026-03-02T10:00:00.719331+00:00"
    assert not two.ready
    assert [found.url for found in shop().instances()] == ["", ""]
    assert list(shop(network="other", port=8000).instances()) == []


def test_an_engine_that_cannot_scale_says_what_to_do(shop, engine: Engine, monkeypatch):
    engine.spec["Mode"] = {"Global": {}}
    with pytest.raises(PlatformError, match=r"web is no replicated service.*choose platform advisory"):
        shop().count()
    with pytest.raises(PlatformError, match=r"HTTP 404, service nope not found\): check the name of service nope"):
        shop(service="nope").count()
    monkeypatch.setattr(engine, "answer", lambda asked: (503, {"message": "This node is not a swarm manager. Use …"}))
    with pytest.raises(PlatformError, match=r"Docker is no manager of a swarm .*: set host to one that is") as caught:
        shop().count()
    assert not isinstance(caught.value, PlatformUnavailable)
    for said in ({}, {"ID": "x", "Version": {"Index": "y"}, "Spec": {}}, {"ID": "x", "Version": {}, "Spec": []}):
        monkeypatch.setattr(engine, "answer", lambda asked, said=said: (200, said))
        with pytest.raises(PlatformError, match="no answer of a Docker engine"):
            shop().count()


def test_what_does_not_go_together_is_refused():
    for settings, secret, problem in (
        ({"port": 80}, "", "network and port belong together"),
        ({"ca": "x"}, "", "are for an https:// host only"),
        ({"host": "http://docker:2375"}, "x", "are for an https:// host only"),
        ({"host": "https://docker:2376", "ca": "no PEM"}, "", "ca must be the PEM text"),
        ({"host": "https://docker:2376"}, "no PEM", "that of a client certificate followed by its key"),
        ({"host": "https://ana:sesame@docker:2376"}, "", "setting host is no usable address"),
    ):
        with pytest.raises(SettingsInvalid, match=problem) as caught:
            check_settings("docker", {"service": SERVICE, **settings}, secret)
        assert "sesame" not in str(caught.value)
    check_settings("docker", {"service": SERVICE, "host": "https://docker:2376"}, "")
    assert destination("docker", {"host": "https://docker:2376/x"}) == "https://docker:2376"
    assert destination("docker", {}) == ""


def test_an_engine_behind_tls_is_shown_a_certificate_with_its_key(tmp_path: Path):
    shown, key = certificate(tmp_path)
    play = Engine()
    play.starts_over()
    with served(play, tls=server_context(shown, key, client=True)) as url:
        settings = {"host": url, "service": SERVICE, "ca": shown.read_text()}
        known = scaler_for("docker", settings, shown.read_text() + key.read_text())
        assert isinstance(known, Docker)
        known.scale(3, seen=known.count())
        assert play.wishes == [3]
        stranger = scaler_for("docker", settings, "")
        assert isinstance(stranger, Docker)
        with pytest.raises(PlatformError, match=r"127\.0\.0\.1"):
            replace(stranger, scale_limits=BOUND).count()


# --- On a real engine -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An engine that is a swarm's manager and has the images shop:v1 and shop:v2, whose program is /sleep."""
    if not REAL and (reason := docker_engine.unavailable_reason()):
        pytest.skip(f"{reason}; PULSEWATCH_TEST_DOCKER_HOST may name one that runs")
    with ExitStack() as stack:
        folder = tmp_path_factory.mktemp("engine")
        host = REAL or f"unix://{stack.enter_context(docker_engine.docker_engine(folder))}"
        if not REAL:
            asked(host, "POST", "/swarm/init", {"ListenAddr": "127.0.0.1:2377", "AdvertiseAddr": "127.0.0.1"})
        image = docker_engine.sleeping_image(folder)
        for tag in ("v1", "v2"):
            asked(host, "POST", f"/images/create?fromSrc=-&repo=shop&tag={tag}", image)
        yield host


def asked(host: str, method: str, path: str, body: Any = b"") -> Any:
    """An answer of the engine to the test itself."""
    socket = host.removeprefix("unix://") if host.startswith("unix://") else ""
    base = "http://docker.sock" if socket else host
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    kind = "application/x-tar" if isinstance(body, bytes) else "application/json"
    answer = call(method, base + path, {"Content-Type": kind} if body else {}, content, limits=LIMITS,
                  again=lambda _: False, route=Route(socket=socket))  # fmt: skip
    assert answer.ok, answer.body
    return json.loads(answer.body) if answer.body.startswith(b"{") else None


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_real_engine_adds_tasks_without_touching_the_others_and_changes_their_image(real_host: str):
    name = f"pulsewatch-test-{uuid4().hex[:8]}"
    spec = {
        "Name": name,
        "TaskTemplate": {"ContainerSpec": {"Image": "shop:v1", "Command": ["/sleep"], "StopGracePeriod": 1}},
        "Mode": {"Replicated": {"Replicas": 2}},
    }
    asked(real_host, "POST", "/services/create", spec)
    try:
        shop = scaler_for("docker", {"host": real_host, "service": name, "image": "shop:{version}"}, "")
        assert isinstance(shop, Docker)
        until(lambda: sum(found.ready for found in shop.instances()) == 2)
        first = {found.name for found in shop.instances()}
        seen = shop.count()
        assert seen.desired == 2

        shop.scale(3, seen=seen)
        shop.scale(3, seen=seen)
        with pytest.raises(PlatformError, match=r"Somebody else changed the replicas of .* from 2 to 3"):
            shop.scale(4, seen=seen)
        until(lambda: sum(found.ready for found in shop.instances()) == 3)
        assert shop.count().desired == 3
        assert first < {found.name for found in shop.instances()}, "those that ran were not restarted"
        assert {found.version for found in shop.instances()} == {"v1"}

        shop.scale(1, seen=shop.count())
        until(lambda: len(shop.instances()) == 1)
        assert shop.roll_out(replace(RELEASE, version="v2")).accepted
        until(lambda: [(found.version, found.ready) for found in shop.instances()] == [("v2", True)])
    finally:
        asked(real_host, "DELETE", f"/services/{name}")
