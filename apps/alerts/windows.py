"""Which maintenance window is on, for whom."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from apps.alerts.models import MaintenanceWindow
from apps.alerts.rules import times


@dataclass(frozen=True, slots=True)
class Window:
    """One occurrence of a maintenance window."""

    window: MaintenanceWindow
    starts_at: datetime
    ends_at: datetime


class Calendar:
    """The windows that are on at one moment; asks the database once."""

    def __init__(self, now: datetime) -> None:
        self.on = [
            Window(row, span.starts_at, span.ends_at)
            for row in MaintenanceWindow.objects.valid(now)
            if row.cancelled_at is None and (span := times.current(row.plan, now)) is not None
        ]

    def silence(self, *, subject: str, service: str, environment: str) -> Window | None:
        """The window that silences something, of several the one that ends last."""
        return max(
            (one for one in self.on if one.window.covers(subject=subject, service=service, environment=environment)),
            key=lambda one: one.ends_at,
            default=None,
        )


def silenced(*, subject: str, service: str, environment: str, now: datetime) -> Window | None:
    """The window that keeps alerts of a subject from being told now. One query."""
    return Calendar(now).silence(subject=subject, service=service, environment=environment)


def freezes(*, service: str, environment: str, now: datetime) -> Window | None:
    """The window that forbids deployments of a service in an environment now, the one that ends last. One query."""
    freezing = [one for one in Calendar(now).on if one.window.freeze_deployments and not one.window.subject]
    return max(
        (one for one in freezing if one.window.covers(subject="", service=service, environment=environment)),
        key=lambda one: one.ends_at,
        default=None,
    )


def during(since: datetime, until: datetime) -> Iterator[Window]:
    """The occurrences of all windows that touch a stretch of time; one that was cancelled ends when it was."""
    for row in MaintenanceWindow.objects.valid(since):
        for span in times.spans(row.plan, since, until):
            ends_at = span.ends_at if row.cancelled_at is None else min(span.ends_at, row.cancelled_at)
            if ends_at > max(since, span.starts_at):
                yield Window(row, span.starts_at, ends_at)


def between(since: datetime, until: datetime, *, subject: str, service: str, environment: str) -> Iterator[Window]:
    """Those of them that something was in, for charts."""
    for one in during(since, until):
        if one.window.covers(subject=subject, service=service, environment=environment):
            yield one
