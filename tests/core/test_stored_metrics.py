"""Metrics that are read from rows: shared, bounded in time, left out when they cannot be had."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import OperationalError
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily

from apps.core import stored_metrics
from apps.core.stored_metrics import REUSE_SECONDS, StoredMetrics


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


def page(collector: StoredMetrics) -> str:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(collector)
    return generate_latest(registry).decode()


def counting(calls: list[int]):
    def read():
        calls.append(1)
        yield GaugeMetricFamily("shop_orders", "Orders", value=len(calls))

    return read


def test_many_scrapes_at_once_cost_one_reading_and_the_next_comes_after_some_seconds(clock):
    calls: list[int] = []
    collector = StoredMetrics({"shop": counting(calls)}, clock=clock)
    with ThreadPoolExecutor(8) as pool:
        pages = list(pool.map(lambda _: page(collector), range(40)))

    assert len(calls) == 1
    assert all("shop_orders 1.0" in text and 'stored_metrics_up{source="shop"} 1.0' in text for text in pages)

    clock.now += REUSE_SECONDS
    assert "shop_orders 2.0" in page(collector)
    collector.close()


def test_a_reader_that_hangs_is_left_out_and_taken_up_again_without_a_second_thread(clock, monkeypatch):
    monkeypatch.setattr(stored_metrics, "PATIENCE_SECONDS", 0.05)
    free, calls = threading.Event(), []

    def read():
        calls.append(1)
        assert free.wait(30)
        yield GaugeMetricFamily("shop_orders", "Orders", value=1)

    collector = StoredMetrics({"shop": read}, clock=clock)
    for _ in range(3):
        text = page(collector)
        assert 'stored_metrics_up{source="shop"} 0.0' in text
        assert "shop_orders" not in text
        clock.now += REUSE_SECONDS
    assert len(calls) == 1

    free.set()
    collector._thread.submit(int).result()  # the one thread is free again
    assert "shop_orders 1.0" in page(collector)
    collector.close()


def test_a_database_that_refuses_leaves_the_figures_out(clock):
    def read():
        raise OperationalError(2006, "Server has gone away")

    collector = StoredMetrics({"shop": read}, clock=clock)

    assert 'stored_metrics_up{source="shop"} 0.0' in page(collector)
    collector.close()
