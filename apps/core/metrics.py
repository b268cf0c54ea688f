"""Pulsewatch's own Prometheus metrics, and the page that exposes them across all gunicorn workers.

Under gunicorn prometheus_client runs in multiprocess mode, which exports no `process_*` metrics: they are summed here
over the process tree.
"""

import hmac
import os
from collections.abc import Iterator
from pathlib import Path

import psutil
from django.conf import settings
from prometheus_client import CollectorRegistry, Gauge, Histogram, generate_latest, multiprocess
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import REGISTRY, Collector

from apps.core.stored_metrics import stored_metrics

# The process whose tree is measured: this one, or gunicorn's master once a worker has been forked.
process_root = os.getpid()

health_check_duration = Histogram(
    "pulsewatch_health_check_duration_seconds",
    "Execution time of the readiness checks",
    ["check_name"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5),
)
health_check_status = Gauge(
    "pulsewatch_health_check_status",
    "Outcome of the newest readiness check: 1 healthy or degraded, 0 unhealthy",
    ["check_name"],
    multiprocess_mode="mostrecent",
)


class ProcessTreeCollector(Collector):
    """CPU, memory and start time of the whole server: the root process, its children, and children already gone."""

    def collect(self) -> Iterator[Metric]:
        root = psutil.Process(process_root)
        cpu, memory = 0.0, 0
        for process in (root, *root.children(recursive=True)):
            try:
                with process.oneshot():
                    times = process.cpu_times()
                    cpu += times.user + times.system
                    # What reaped children used stays in the sum: the counter never goes back when a worker ends.
                    cpu += getattr(times, "children_user", 0.0) + getattr(times, "children_system", 0.0)
                    memory += process.memory_info().rss
            except psutil.NoSuchProcess:
                continue
        info = GaugeMetricFamily("pulsewatch_app_info", "Application information, always 1", labels=["version"])
        info.add_metric([settings.VERSION], 1)
        yield info
        yield GaugeMetricFamily(
            "pulsewatch_app_start_time_seconds",
            "Unix time at which the application started",
            value=root.create_time(),
        )
        yield CounterMetricFamily("process_cpu_seconds_total", "CPU time of all server processes in seconds", value=cpu)
        yield GaugeMetricFamily(
            "process_resident_memory_bytes", "Resident memory of all server processes in bytes", value=memory
        )
        yield GaugeMetricFamily(
            "process_start_time_seconds", "Unix time at which the server started", value=root.create_time()
        )
        yield GaugeMetricFamily(
            "pulsewatch_cpu_limit_cores",
            "CPU cores this server may use (cgroup limit, else the host's)",
            value=cpu_limit(),
        )
        yield GaugeMetricFamily(
            "pulsewatch_memory_limit_bytes",
            "Memory this server may use in bytes (cgroup limit, else the host's)",
            value=memory_limit(),
        )


def cpu_limit(cgroup: Path = Path("/sys/fs/cgroup")) -> float:
    """Cores: the cgroup v2 quota when there is one, else the host's count."""
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
        if quota != "max":
            return int(quota) / int(period)
    except (OSError, ValueError):
        pass
    return float(psutil.cpu_count() or 1)


def memory_limit(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes: the cgroup v2 limit when there is one, else the host's memory."""
    try:
        limit = (cgroup / "memory.max").read_text().strip()
        if limit != "max":
            return int(limit)
    except (OSError, ValueError):
        pass
    return int(psutil.virtual_memory().total)


def exposition() -> bytes:
    """The metrics page in Prometheus' text format. It probes nothing; what rows tell is read within a time limit."""
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]  # the library has no hint here
    else:
        registry = CollectorRegistry()
        registry.register(_DefaultRegistry())
    registry.register(ProcessTreeCollector())
    registry.register(stored_metrics())
    return generate_latest(registry)


class _DefaultRegistry(Collector):
    """What one process counted, without the `process_*` metrics the tree collector gives."""

    def collect(self) -> Iterator[Metric]:
        return (metric for metric in REGISTRY.collect() if not metric.name.startswith("process_"))


def holds_token(authorization: str) -> bool:
    """Whether an Authorization header carries METRICS_TOKEN, compared in constant time. False when none is set."""
    scheme, _, token = authorization.partition(" ")
    expected = settings.METRICS_TOKEN
    return bool(expected) and scheme.lower() == "bearer" and hmac.compare_digest(token.encode(), expected.encode())
