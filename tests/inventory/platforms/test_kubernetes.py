"""What is Kubernetes' own: revisions, pods, images, and the ways in. The contract of all scalers is elsewhere."""

import base64
import json
import logging
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from apps.inventory.platforms import check_settings, destination, kubeconfig, platform_for, scaler_for
from apps.inventory.platforms.base import Count, PlatformError, PlatformUnavailable, SettingsInvalid
from tests.inventory.platforms.cluster import NAME, NAMESPACE, Cluster, pod
from tests.inventory.platforms.conftest import RELEASE
from tests.inventory.platforms.plays import certificate, served, server_context
from tests.inventory.platforms.stands import BOUND, SECRET

REPOSITORY = Path(__file__).parents[3]
IMAGE = "registry.example.com:5000/shop:{version}"
WHERE = {"namespace": NAMESPACE, "name": NAME}


@pytest.fixture(scope="module")
def running_cluster() -> Iterator[tuple[Cluster, str]]:
    play = Cluster()
    with served(play) as url:
        yield play, url


@pytest.fixture
def cluster(running_cluster: tuple[Cluster, str]) -> Cluster:
    running_cluster[0].starts_over()
    return running_cluster[0]


@pytest.fixture
def url(running_cluster: tuple[Cluster, str]) -> str:
    return running_cluster[1]


@pytest.fixture
def shop(cluster: Cluster, url: str):
    """Makes the platform with more settings."""

    def made(secret: str = SECRET, **settings: Any):
        found = scaler_for("kubernetes", {**WHERE, "server": url, **settings}, secret)
        return replace(found, limits=BOUND, scale_limits=BOUND)

    return made


def test_a_revision_that_moved_for_another_reason_is_no_reason_to_give_up(shop, cluster: Cluster):
    seen = shop().count()
    cluster.restless = 2  # a pod became ready, and another one, between reading and asking
    shop().scale(3, seen=seen)
    assert cluster.wishes == [3]

    shop().scale(4, seen=Count(3))  # read by somebody who kept no revision
    with pytest.raises(PlatformError, match="from 3 to 4 meanwhile"):
        shop().scale(5, seen=Count(3))
    assert cluster.wishes == [3, 4]

    cluster.restless = 50
    with pytest.raises(PlatformUnavailable, match="Deployment shop/web was changed by somebody else each of the 3"):
        shop().scale(5, seen=shop().count())
    assert cluster.running == 4


def test_a_deployment_whose_pods_are_not_ready_or_that_has_none_is_counted(shop, cluster: Cluster):
    cluster.ready = None  # Kubernetes leaves out a zero
    assert (shop().count().desired, shop().count().ready) == (2, 0)
    cluster.running = 0
    assert shop().count().desired == 0
    shop().scale(1, seen=shop().count())
    assert cluster.running == 1


def test_a_stateful_set_is_found_where_it_is(shop, cluster: Cluster):
    cluster.plural = "statefulsets"
    try:
        stateful = shop(kind="StatefulSet")
        stateful.scale(3, seen=stateful.count())
        assert cluster.wishes == [3]
        with pytest.raises(PlatformError, match=r"HTTP 404, .*not found.*correct namespace, kind and name"):
            shop().count()
    finally:
        cluster.plural = "deployments"


def test_instances_are_the_pods_that_run_each_with_what_is_known_of_it(shop, cluster: Cluster):
    cluster.pods = [
        pod("web-1"),
        pod("web-2", ready=False, ip="fd00::7", image="registry.example.com/shop@sha256:" + "a" * 64),
        pod("web-3", ending=True),
        pod("web-4", phase="Failed"),
        pod("web-5", ip=None, phase="Pending"),
        pod("other-1", labels={"app": "other"}),
    ]
    one, two = shop(port=8000, container="web", image=IMAGE).instances()
    assert (one.name, one.ready, one.version, one.url) == ("web-1", True, "v1.4.2", "http://10.1.0.7:8000")
    assert one.started_at is not None
    assert one.started_at.isoformat() == "2026-03-02T10:00:00+00:00"
    assert (two.name, two.ready, two.version, two.url) == ("web-2", False, "", "http://[fd00::7]:8000")
    assert [found.url for found in shop().instances()] == ["", ""]
    assert [found.name for found in shop(selector="app=other").instances()] == ["other-1"]


def test_many_pods_come_in_pages_and_a_selector_may_be_an_expression(shop, cluster: Cluster, caplog):
    cluster.pods = [pod(f"web-{number}") for number in range(250)]
    with caplog.at_level(logging.INFO):
        assert len({found.name for found in shop().instances()}) == 250
    assert caplog.records == [], "no line for each request"
    assert [asked.query.get("continue") for asked in cluster.asked[-3:]] == [None, "100", "200"]

    cluster.selector = {"matchExpressions": [{"key": "app", "operator": "In", "values": ["shop", "web"]},
                                             {"key": "canary", "operator": "DoesNotExist"}]}  # fmt: skip
    shop().instances()
    assert cluster.asked[-1].query["labelSelector"] == "app in (shop,web),!canary"
    cluster.selector = {}
    with pytest.raises(PlatformError, match="no answer of a Kubernetes API"):  # not every pod of the namespace
        shop().instances()


def test_a_version_is_rolled_out_by_its_image_and_once_more_changes_nothing(shop, cluster: Cluster):
    platform = shop(container="web", image=IMAGE)
    cluster.containers[0]["image"] = "registry.example.com:5000/shop:v1.4.3"
    cluster.restless = 1

    receipt = platform.roll_out(RELEASE)

    assert receipt.accepted
    assert receipt.detail == (
        "Deployment shop/web was set to image registry.example.com:5000/shop:v1.4.2 for the rollback to v1.4.2."
    )
    assert [item["image"] for item in cluster.containers] == ["registry.example.com:5000/shop:v1.4.2", "envoy:1.30"]
    before = cluster.revision
    assert platform.repeatable
    assert platform.roll_out(RELEASE).detail.endswith("already.")
    assert cluster.revision == before

    by_commit = shop(container="web", image="registry.example.com/shop:git-{commit_sha}")
    assert RELEASE.commit_sha in by_commit.roll_out(RELEASE).detail


def test_what_cannot_be_rolled_out_changes_nothing_and_says_why(shop, cluster: Cluster):
    receipt = shop().roll_out(RELEASE)
    assert not receipt.accepted
    assert "the platform settings name no image: deploy version v1.4.2 yourself, or set" in receipt.detail
    for settings, problem in (
        ({}, "has several containers: set container in the platform settings to one of web, sidecar"),
        ({"container": "app"}, "has no container 'app': set container in the platform settings to one of web, sidec"),
    ):
        with pytest.raises(PlatformError, match=problem):
            shop(image=IMAGE, **settings).roll_out(RELEASE)
    with pytest.raises(PlatformError, match="'feature/x' cannot be part of an image's tag"):
        shop(image=IMAGE, container="web").roll_out(replace(RELEASE, version="feature/x"))
    assert len(cluster.containers) == 2
    assert not [asked for asked in cluster.asked if asked.method != "GET"]


def test_a_token_nobody_knows_any_more_is_to_be_entered_anew(shop):
    with pytest.raises(PlatformError, match=r"refused \(HTTP 401, Unauthorized\): .* enter a new token or kubeconfig"):
        shop(secret="another-token-0001").count()


def test_the_documented_role_is_exactly_what_is_used(shop, cluster: Cluster):
    cluster.verbs.clear()
    cluster.pods = [pod("web-1")]
    platform = shop(image=IMAGE, container="web")
    platform.scale(3, seen=platform.count())
    platform.instances()
    platform.roll_out(RELEASE)

    role, binding = yaml.safe_load_all((REPOSITORY / "docs/kubernetes-role.yaml").read_text())
    granted = {(group, resource, verb) for rule in role["rules"] for group in rule["apiGroups"]
               for resource in rule["resources"] for verb in rule["verbs"]}  # fmt: skip
    assert granted == cluster.verbs
    assert all(rule.get("resourceNames") == [NAME] for rule in role["rules"] if rule["resources"] != ["pods"])
    assert (role["kind"], binding["roleRef"]["kind"]) == ("Role", "Role"), "of one namespace, never of the cluster"
    assert role["metadata"]["name"] == binding["roleRef"]["name"]


# --- The ways in ------------------------------------------------------------------------------------------------------


def config(server: str, *, cluster: dict[str, Any] | None = None, user: dict[str, Any] | None = None) -> dict[str, Any]:
    """A kubeconfig with two contexts."""
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "shop",
        "contexts": [
            {"name": "shop", "context": {"cluster": "here", "user": "ops"}},
            {"name": "lost", "context": {"cluster": "there", "user": "ops"}},
        ],
        "clusters": [{"name": "here", "cluster": {"server": server, **(cluster or {})}}],
        "users": [{"name": "ops", "user": {"token": SECRET} if user is None else user}],
    }


def test_a_kubeconfig_is_read_as_yaml_and_as_json_in_one_line(cluster: Cluster, url: str):
    text = yaml.safe_dump(config(f"{url}/"))
    for secret in (text, json.dumps(config(url)), json.dumps(config(url), separators=(",", ":"))):
        for settings in (WHERE, {**WHERE, "context": "shop"}):
            scaler = scaler_for("kubernetes", settings, secret)
            assert scaler is not None
            assert scaler.count().desired == 2
            assert SECRET not in repr(scaler)
    assert destination("kubernetes", WHERE) == ""


def test_a_server_and_a_user_that_are_known_by_certificates(tmp_path: Path):
    shown, key = certificate(tmp_path)
    ca = shown.read_text()
    authority = {"certificate-authority-data": encoded(ca)}
    user = {"token": SECRET, "client-certificate-data": encoded(ca), "client-key-data": encoded(key.read_text())}

    with served(Cluster(), tls=server_context(shown, key, client=True)) as url:
        known = scaler_for("kubernetes", WHERE, json.dumps(config(url, cluster=authority, user=user)))
        assert known is not None
        assert known.count().desired == 2
        stranger = scaler_for("kubernetes", WHERE, json.dumps(config(url, cluster=authority)))
        untrusting = scaler_for("kubernetes", {**WHERE, "server": url}, SECRET)
        for refused, problem in ((stranger, "127.0.0.1"), (untrusting, "has no valid certificate")):
            with pytest.raises(PlatformError, match=problem):
                replace(refused, scale_limits=BOUND).count()
        half = {"client-certificate-data": encoded(ca), "client-key-data": encoded("no key")}
        with pytest.raises(SettingsInvalid, match="its certificates or its key are damaged"):
            scaler_for("kubernetes", WHERE, json.dumps(config(url, user=half)))


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("user", {"exec": {"apiVersion": "v1", "command": "touch", "args": ["/tmp/pwned"]}}),
        ("user", {"auth-provider": {"name": "gcp"}}),
        ("user", {"tokenFile": "/proc/self/environ"}),
        ("user", {"client-certificate": "/etc/passwd", "client-key": "/etc/shadow"}),
        ("user", {"username": "ana", "password": "sesame-open-5521"}),
        ("cluster", {"certificate-authority": "/etc/passwd"}),
        ("cluster", {"insecure-skip-tls-verify": True}),
        ("cluster", {"proxy-url": "http://elsewhere.example.com"}),
    ],
)
def test_a_kubeconfig_that_has_us_run_or_read_something_is_refused(part: str, value: dict[str, Any]):
    token = {"token": SECRET} if part == "user" else {}
    text = json.dumps(config("https://k8s.example.com", **{part: {**token, **value}}))
    with pytest.raises(SettingsInvalid, match=rf"{next(iter(value))} .*which .*\.$") as caught:
        check_settings("kubernetes", WHERE, text)
    assert caught.value.field == "platform_secret"
    assert SECRET not in str(caught.value)
    assert "sesame" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "it cannot be read; take what `kubectl config view --raw --minify --flatten -o json` prints"),
        ("[" * 32000 + " ", "it cannot be read"),
        ("clusters: &a [*a]\n", "it cannot be read"),
        ("clusters: []\n", "it names no context"),
        ("!!python/object/apply:os.system ['true']", "it cannot be read"),
        ("a: b\nc", "it cannot be read"),
        (json.dumps(config("ftp://k8s.example.com")), "its server is no usable address"),
        (json.dumps(config("https://ana:sesame@k8s.example.com")), "its server is no usable address"),
        (json.dumps(config("https://k8s.example.com", user={})), "has neither a token nor a client certificate"),
        (json.dumps(config("https://k", cluster={"certificate-authority-data": "?"})), "is no base64 of a PEM text"),
        ("{" + " " * 40000, "more than 32768 characters"),
    ],
)
def test_a_kubeconfig_that_is_none_is_told_so(text: str, problem: str):
    with pytest.raises(SettingsInvalid, match=problem) as caught:
        check_settings("kubernetes", WHERE, text)
    assert SECRET not in str(caught.value)
    assert "sesame" not in str(caught.value)


def test_what_does_not_go_together_is_refused():
    text = json.dumps(config("https://k8s.example.com"))
    server = {**WHERE, "server": "https://k8s.example.com"}
    for settings, secret, problem in (
        (server, text, "server and ca belong to a token"),
        ({**WHERE, "context": "shop"}, SECRET, "context belongs to a kubeconfig"),
        (WHERE, SECRET, "setting server is required with a token"),
        (server, "", "needs a token for its server"),
        ({**WHERE, "context": "lost"}, text, "has no cluster 'there'"),
        ({**WHERE, "context": "nowhere"}, text, "has no context 'nowhere'"),
        ({**server, "ca": "no PEM"}, SECRET, "setting ca must be the PEM text"),
    ):
        with pytest.raises(SettingsInvalid, match=problem):
            check_settings("kubernetes", settings, secret)
    assert destination("kubernetes", server) == "https://k8s.example.com"


def test_without_a_secret_the_account_of_the_pod_is_used_and_read_anew(tmp_path: Path, monkeypatch):
    check_settings("kubernetes", WHERE, "")  # by a web process that runs elsewhere
    monkeypatch.setattr(kubeconfig, "ACCOUNT", tmp_path)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "6443")
    with pytest.raises(PlatformError, match="This worker runs in no pod of Kubernetes with a service account: enter"):
        platform_for("kubernetes", {**WHERE, "image": IMAGE}, "").roll_out(RELEASE)

    shown, key = certificate(tmp_path)
    shown.rename(tmp_path / "ca.crt")
    for token in ("first-token-of-the-pod", "second-token-of-the-pod"):
        (tmp_path / "token").write_text(f"{token}\n")
        access = kubeconfig.from_pod()
        assert (access.server, access.token) == ("https://[fd00::1]:6443", token)

    with served(Cluster(), tls=server_context(tmp_path / "ca.crt", key, client=False)) as url:
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", url.rpartition(":")[2])
        scaler = scaler_for("kubernetes", WHERE, "")
        assert scaler is not None
        with pytest.raises(PlatformError, match="HTTP 401"):
            scaler.count()
        (tmp_path / "token").write_text(SECRET)
        assert scaler.count().desired == 2
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST")
    with pytest.raises(PlatformError, match="runs in no pod"):
        kubeconfig.from_pod()


REAL = os.environ.get("PULSEWATCH_TEST_KUBECONFIG", "")


@pytest.mark.skipif(not REAL, reason="PULSEWATCH_TEST_KUBECONFIG names no kubeconfig of a cluster to test on")
def test_a_real_cluster_does_what_the_one_in_memory_does():
    """PULSEWATCH_TEST_KUBE_WORKLOAD is `namespace/name` of a Deployment that may be scaled for a moment."""
    namespace, _, name = os.environ.get("PULSEWATCH_TEST_KUBE_WORKLOAD", "default/pulsewatch-test").partition("/")
    scaler = scaler_for("kubernetes", {"namespace": namespace, "name": name}, Path(REAL).read_text())
    assert scaler is not None
    before = scaler.count()
    scaler.scale(before.desired + 1, seen=before)
    try:
        with pytest.raises(PlatformError, match="Somebody else"):
            scaler.scale(before.desired + 2, seen=before)
        assert scaler.count().desired == before.desired + 1
    finally:
        scaler.scale(before.desired, seen=scaler.count())
    assert all(found.name for found in scaler.instances())
