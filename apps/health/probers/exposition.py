"""Reads Prometheus' text format and picks what a preset names."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from apps.health.rules import Counters

# Larger figures are nonsense (a pebibyte, a quadrillion requests) and would not fit their columns.
FIGURE_LIMIT = 2**50
CONNECTIONS_LIMIT = 2**31 - 1

# What is read of one page. A line is some hundred bytes long; Django with a thousand views has some thousands of them.
# The parser's time grows with the square of a line's length.
LINE_LIMIT = 4096  # characters
LINES_LIMIT = 20_000

# Views that probes and scrapers call: their answers say nothing of how users fare.
PROBE_VIEW = re.compile(r"health|ready|readiness|live|metrics|prometheus|ping", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Preset:
    """Which metric carries what. A name left out is not measured.

    `requests` are counters of answers with a `status` label; with a `view` label too, probe views are left out. The
    first of the names that is present counts.
    """

    requests: tuple[str, ...] = ()
    cpu_seconds: str = "process_cpu_seconds_total"
    memory_bytes: str = "process_resident_memory_bytes"
    start_time: str = "process_start_time_seconds"
    cpu_limit_cores: str = "pulsewatch_cpu_limit_cores"
    memory_limit_bytes: str = "pulsewatch_memory_limit_bytes"
    active_connections: str = "pulsewatch_database_connections"

    def names(self) -> frozenset[str]:
        """Every metric name the preset reads."""
        gauges = (self.cpu_seconds, self.memory_bytes, self.start_time, self.cpu_limit_cores)
        return frozenset({*self.requests, *gauges, self.memory_limit_bytes, self.active_connections})


PRESETS = {
    "django": Preset(
        requests=(
            "django_http_responses_total_by_status_view_method_total",
            "django_http_responses_total_by_status_total",
        )
    ),
    "process": Preset(),
}


def read_counters(text: str, preset: Preset) -> Counters:
    """The preset's figures out of a metrics page. Raises ValueError when the page is not Prometheus' text format."""
    samples = list(_samples(text, preset.names()))

    def total(name: str, keep: Callable[[Sample], bool] = lambda _: True, *, limit: int = FIGURE_LIMIT) -> float | None:
        values = [sample.value for sample in samples if sample.name == name and keep(sample)]
        return sum(values) if values and all(value >= 0 for value in values) and sum(values) <= limit else None

    def by_users(sample: Sample) -> bool:
        return not PROBE_VIEW.search(sample.labels.get("view", ""))

    present = {sample.name for sample in samples}
    answers = next((name for name in preset.requests if name in present), None)
    requests = errors = None
    if answers:
        # A counter with labels appears with its first request: none left after the probes means zero, not unknown.
        requests = total(answers, by_users) if any(map(by_users, samples)) else 0.0
        errors = total(answers, lambda s: by_users(s) and s.labels.get("status", "").startswith("5")) or 0.0
    elif preset.requests and samples:
        requests = errors = 0.0
    return Counters(
        cpu_seconds=total(preset.cpu_seconds),
        requests=requests,
        errors=errors,
        memory_bytes=total(preset.memory_bytes),
        start_time=total(preset.start_time),
        cpu_limit_cores=total(preset.cpu_limit_cores),
        memory_limit_bytes=total(preset.memory_limit_bytes),
        active_connections=total(preset.active_connections, limit=CONNECTIONS_LIMIT),
    )


def _samples(text: str, names: frozenset[str]) -> Iterable[Sample]:
    """The samples of the named metrics. The full parser is slow: it sees only the lines that matter."""
    lines = [line for line in text.split("\n") if line.partition("{")[0].partition(" ")[0] in names]
    if len(lines) > LINES_LIMIT or any(len(line) > LINE_LIMIT for line in lines):
        raise ValueError("the metrics page is larger than any application's")
    try:
        for family in text_string_to_metric_families("\n".join([*lines, ""])):
            yield from family.samples
    except Exception as error:  # the parser raises whatever a malformed line leads it to, an IndexError for one
        raise ValueError("the page is not in Prometheus' text format") from error
