"""Instances follow the platform that names them."""

import logging
from collections.abc import Iterator

import pytest

from apps.core.audit import Actor
from apps.core.keys import new_keyset
from apps.core.models import AuditEntry
from apps.inventory import discovery, services
from apps.inventory.models import Instance, Workload
from apps.inventory.platforms.base import Found
from apps.inventory.tasks import discover
from tests.factories import InstanceFactory, ServiceFactory, WorkloadFactory
from tests.inventory.platforms.cluster import NAME, NAMESPACE, Cluster, pod
from tests.inventory.platforms.plays import REFUSED, served
from tests.inventory.platforms.stands import SECRET

pytestmark = pytest.mark.django_db
ANA = Actor.automation("test")


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
def shop(cluster: Cluster, running_cluster: tuple[Cluster, str], settings) -> Workload:
    """A workload on the cluster, whose pods are read at their addresses."""
    settings.BACKUP_KEYSET = new_keyset()
    workload = WorkloadFactory(service=ServiceFactory(slug="shop"))
    workload.platform = "kubernetes"
    workload.platform_settings = {"namespace": NAMESPACE, "name": NAME, "server": running_cluster[1], "port": 8000}
    return services.save(workload, actor=ANA, platform_secret=SECRET)


def state() -> dict[str, tuple[bool, bool | None, str]]:
    return {row.name: (row.active, row.listed, row.url) for row in Instance.objects.order_by("name")}


def test_pods_come_move_go_and_come_back_and_a_second_look_changes_nothing(
    shop: Workload, cluster: Cluster, django_assert_max_num_queries
):
    cluster.pods = [pod("web-0", ip="10.1.0.1"), pod("web-1", ip="10.1.0.2", ready=False)]
    discover()
    assert state() == {
        "web-0": (True, True, "http://10.1.0.1:8000"),
        "web-1": (True, True, "http://10.1.0.2:8000"),
    }

    cluster.pods = [pod("web-0", ip="10.1.0.9")]
    discover()
    assert state() == {
        "web-0": (True, True, "http://10.1.0.9:8000"),
        "web-1": (False, False, "http://10.1.0.2:8000"),
    }

    cluster.pods = [pod("web-0", ip="10.1.0.9"), pod("web-1", ip="10.1.0.3")]
    discover()
    assert state()["web-1"] == (True, True, "http://10.1.0.3:8000")

    entries = AuditEntry.objects.filter(subject="instance:web-1").order_by("id")
    assert [entry.action for entry in entries] == ["instance.create", "instance.update", "instance.update"]
    assert {entry.actor for entry in entries} == {"discovery"}
    before = (state(), AuditEntry.objects.count())
    with django_assert_max_num_queries(2):
        discover()
    assert (state(), AuditEntry.objects.count()) == before
    assert Instance.objects.count() == 2, "nothing is ever deleted"


def test_a_platform_that_fails_leaves_everything_as_it_is_and_harms_no_other(shop: Workload, cluster: Cluster, caplog):
    cluster.pods = [pod("web-0")]
    discover()
    before = state()
    lost = WorkloadFactory(service=ServiceFactory(slug="lost"), platform="docker", platform_settings={"service": "x"})
    broken = WorkloadFactory(service=ServiceFactory(slug="broken"), platform="kubernetes")  # with wrong settings
    cluster.pods = [pod("web-0"), pod("web-1")]

    with caplog.at_level(logging.WARNING):
        discover()
    assert set(state()) == {"web-0", "web-1"}
    assert f"The instances of {lost} stay as they are, because" in caplog.text
    assert f"The instances of {broken} stay as they are, because" in caplog.text

    cluster.trouble = REFUSED
    discover()
    assert state() == {**before, "web-1": state()["web-1"]}
    assert state()["web-1"][0]
    assert SECRET not in caplog.text


def test_what_was_registered_by_hand_is_never_touched(shop: Workload, cluster: Cluster):
    InstanceFactory(workload=shop, name="web-0", url="http://shop.example.com:9000")
    InstanceFactory(workload=shop, name="worker", url="http://worker.example.com:9000")
    cluster.pods = [pod("web-0"), pod("web-1")]
    discover()
    cluster.pods = []
    discover()
    assert state() == {
        "web-0": (True, None, "http://shop.example.com:9000"),
        "web-1": (False, False, "http://10.1.0.7:8000"),
        "worker": (True, None, "http://worker.example.com:9000"),
    }


def test_pods_that_push_are_registered_where_nobody_registered_other_names_for_them(shop: Workload, cluster: Cluster):
    del shop.platform_settings["port"]
    services.save(shop, actor=ANA)
    by_hand = InstanceFactory(workload=shop, name="shop-a", url="")
    cluster.pods = [pod("web-0")]
    discover()
    assert set(state()) == {"shop-a"}

    services.retire_instance(instance=by_hand, actor=ANA)
    discover()
    assert state() == {"shop-a": (False, None, ""), "web-0": (True, True, "")}


def test_an_instance_that_a_person_has_retired_stays_so_while_it_runs(shop: Workload, cluster: Cluster):
    cluster.pods = [pod("web-0")]
    discover()
    services.retire_instance(instance=Instance.objects.get(), actor=ANA)
    discover()
    assert state() == {"web-0": (False, True, "http://10.1.0.7:8000")}


def test_two_looks_at_once_register_once_and_a_name_that_is_none_stops_nobody(shop: Workload, caplog):
    other = InstanceFactory(workload=WorkloadFactory(service=ServiceFactory(slug="other")), name="web-0")
    named = [Found("-", True), Found("x" * 120, True), Found("web-0", True, url="http://10.1.0.1:80")]

    for _ in range(2):  # both have read the rows before either has written
        discovery._follow(shop, named, {})

    row = Instance.objects.exclude(pk=other.pk).get()
    assert (row.pk, row.name) == ("web-0@shop/production", "web-0")
    assert "- of shop/production cannot be registered: Use letters" in caplog.text
    stale = Instance.objects.get(pk=row.pk)
    Instance.objects.filter(pk=row.pk).update(url="http://10.1.0.2:80")  # by the other look, a moment later
    discovery._follow(shop, named[2:], {"web-0": stale})
    discovery._follow(shop, [Found("web-0", True, url="http://10.1.0.5:80")], {"web-0": stale})
    assert Instance.objects.get(pk=row.pk).url == "http://10.1.0.2:80"
    assert AuditEntry.objects.filter(subject=f"instance:{row.pk}").count() == 1
