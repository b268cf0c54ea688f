"""What Prometheus is told of alerts, read from rows. The labels are words of Pulsewatch and names of routes."""

from collections.abc import Iterator

from django.db.models import Count, Min
from django.utils import timezone
from prometheus_client.core import GaugeMetricFamily, Metric

from apps.alerts.choices import AlertKind, DeliveryStatus, Severity
from apps.alerts.models import Alert, Delivery, Route

WAITING = (DeliveryStatus.QUEUED, DeliveryStatus.SENDING)


def read() -> Iterator[Metric]:
    """Open alerts, and whether people hear of them. Four queries."""
    counts = {
        (kind, severity): count
        for kind, severity, count in Alert.objects.open()
        .order_by()
        .values_list("kind", "severity")
        .annotate(Count("pk"))
    }
    family = GaugeMetricFamily("pulsewatch_alerts_open", "Open alerts", labels=["kind", "severity"])
    for kind in AlertKind.values:
        for severity in Severity.values:
            family.add_metric([kind, severity], counts.get((kind, severity), 0))
    yield family
    yield from _deliveries()


def _deliveries() -> Iterator[Metric]:
    routes = list(Route.objects.values_list("pk", "name", "failing_since", "enabled"))
    failed = dict(
        Delivery.objects.filter(status=DeliveryStatus.FAILED).order_by().values_list("route").annotate(Count("pk"))
    )
    oldest = Delivery.objects.filter(status__in=WAITING).aggregate(at=Min("created_at"))["at"]
    working = GaugeMetricFamily(
        "pulsewatch_alert_route_up", "0 while the newest message of a route did not arrive, else 1", labels=["route"]
    )
    lost = GaugeMetricFamily(
        "pulsewatch_alert_deliveries_failed", "Messages of the last 90 days that were given up", labels=["route"]
    )
    for key, name, failing_since, enabled in routes:
        if enabled:
            working.add_metric([name], failing_since is None)
        lost.add_metric([name], failed.get(key, 0))
    yield working
    yield lost
    age = 0.0 if oldest is None else max(0.0, (timezone.now() - oldest).total_seconds())
    yield GaugeMetricFamily(
        "pulsewatch_alert_oldest_unsent_seconds", "Age of the oldest message that is not sent yet; 0: none", value=age
    )
