"""What is written about alerts, for people who read it on a telephone at night."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from django.conf import settings
from django.urls import reverse

from apps.alerts.choices import AlertKind, Occasion, Severity
from apps.alerts.models import MAX_TITLE, Alert
from apps.alerts.rules.levels import RANKS
from apps.core.display import moment, span

LISTED = 20  # alerts of a message about many
# How many of a kind are said: what one is, and what several are.
PHRASES = {
    AlertKind.WORKLOAD_UNHEALTHY: ("workload unhealthy", "workloads unhealthy"),
    AlertKind.ENDPOINT_DOWN: ("endpoint down", "endpoints down"),
    AlertKind.DATABASE_DOWN: ("database down", "databases down"),
    AlertKind.CERTIFICATE_EXPIRES: ("certificate expires", "certificates expire"),
    AlertKind.BACKUP_FAILED: ("backup failed", "backups failed"),
    AlertKind.BACKUP_OVERDUE: ("backup overdue", "backups overdue"),
    AlertKind.BACKUP_SIZE_ANOMALY: ("backup of an odd size", "backups of an odd size"),
    AlertKind.DRILL_FAILED: ("restore drill failed", "restore drills failed"),
    AlertKind.DEPLOYMENT_FAILED: ("deployment failed", "deployments failed"),
    AlertKind.DEPLOYMENT_INCONCLUSIVE: ("deployment inconclusive", "deployments inconclusive"),
    AlertKind.SCALING_FAILED: ("scaling failed", "scalings failed"),
    AlertKind.PULSEWATCH_STALE: ("part of Pulsewatch stale", "parts of Pulsewatch stale"),
    AlertKind.MASS_FAILURE: ("mass failure", "mass failures"),
}


@dataclass(frozen=True, slots=True)
class Message:
    """One message, before it is stored."""

    title: str
    body: str
    severity: str


def compose(occasion: str, alerts: Sequence[Alert], *, key: str, now: datetime) -> Message:
    """The message about one alert, or about many. `key` is its id, by which a reader knows one that came twice."""
    severity = max((alert.severity for alert in alerts), key=lambda word: RANKS[word])
    title, lines = _one(occasion, alerts[0], now) if len(alerts) == 1 else _many(occasion, alerts, now)
    start = {Occasion.RECOVERY: "Resolved", Occasion.REMINDER: f"Still {severity}"}.get(
        Occasion(occasion), Severity(severity).label
    )
    lines.append(f"Pulsewatch, message {key}")
    return Message(f"{start}: {title}"[:MAX_TITLE], "\n".join(line for line in lines if line), severity)


def test_message(route: str, *, key: str) -> Message:
    """What a person asked for, to see whether it arrives."""
    return Message(
        "Test message from Pulsewatch",
        f"The route {route} works: alerts will look like this.\nPulsewatch, message {key}",
        Severity.INFO,
    )


def link(path: str) -> str:
    """Where a page of the console is for a reader elsewhere; the path alone when nobody has said where we are."""
    return f"{settings.CONSOLE_URL.rstrip('/')}{path}" if path else ""


def _one(occasion: str, alert: Alert, now: datetime) -> tuple[str, list[str]]:
    title = f"{alert.title} ({alert.environment})" if alert.environment else alert.title
    where = f" Service {alert.service}." if alert.service else ""
    if alert.closed_at is not None:
        lasted = span(alert.closed_at - alert.opened_at) or "a moment"
        times = f"From {moment(alert.opened_at)} to {moment(alert.closed_at)}, {lasted}.{where}"
        detail = "" if occasion == Occasion.RECOVERY else alert.detail
    else:
        times = f"Since {moment(alert.opened_at)}.{where}"
        detail = alert.detail
        if occasion == Occasion.REMINDER:
            times = f"For {span(now - alert.opened_at, units=1)}, and nobody has acknowledged it. {times}"
    lines = [detail, times]
    if alert.flapping:
        lines.append("It is flapping: it keeps breaking and recovering.")
    if alert.runbook_url and alert.closed_at is None:
        lines.append(f"Runbook: {alert.runbook_url}")
    lines.append(f"Alert: {link(reverse('admin:alerts_alert_change', args=[alert.pk]))}")
    return title, lines


def _many(occasion: str, alerts: Sequence[Alert], now: datetime) -> tuple[str, list[str]]:
    environments = sorted({alert.environment for alert in alerts if alert.environment})
    where = f" in {' and '.join(environments)}" if environments and all(alert.environment for alert in alerts) else ""
    counts = Counter(AlertKind(alert.kind) for alert in alerts)
    phrases = [f"{count} {PHRASES[kind][count > 1]}" for kind, count in counts.most_common()]
    title = f"{phrases[0]}{where}" if len(counts) == 1 else f"{len(alerts)} alerts{where}"
    worst = sorted(alerts, key=lambda alert: -RANKS[alert.severity])
    lines = ["" if len(counts) == 1 else f"{', '.join(phrases)}."]
    for alert in worst[:LISTED]:
        place = f" ({alert.environment})" if alert.environment else ""
        ended = f", {moment(alert.closed_at)}" if alert.closed_at else ""
        lines.append(f"- {alert.severity}: {alert.title}{place}, since {moment(alert.opened_at)}{ended}")
    if len(alerts) > LISTED:
        lines.append(f"- and {len(alerts) - LISTED} more")
    if occasion == Occasion.REMINDER:
        lines.append("Nobody has acknowledged them.")
    lines.append(f"All of them: {link(reverse('admin:alerts_alert_changelist'))}")
    return title, lines
