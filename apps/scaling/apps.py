from django.apps import AppConfig

from apps.core import stored_metrics


class ScalingConfig(AppConfig):
    name = "apps.scaling"
    label = "scaling"
    verbose_name = "Scaling"

    def ready(self) -> None:
        from apps.scaling import metrics

        stored_metrics.register("scaling", metrics.read)
