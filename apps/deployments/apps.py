from django.apps import AppConfig

from apps.core import stored_metrics


class DeploymentsConfig(AppConfig):
    name = "apps.deployments"
    label = "deployments"
    verbose_name = "Deployments"

    def ready(self) -> None:
        from apps.deployments import metrics

        stored_metrics.register("deployments", metrics.read)
