from django.apps import AppConfig

from apps.core import stored_metrics


class AlertsConfig(AppConfig):
    name = "apps.alerts"
    label = "alerts"
    verbose_name = "Alerts"

    def ready(self) -> None:
        from apps.alerts import metrics

        stored_metrics.register("alerts", metrics.read)
