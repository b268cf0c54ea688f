from django.apps import AppConfig

from apps.core import stored_metrics


class CoreConfig(AppConfig):
    name = "apps.core"
    label = "core"
    verbose_name = "Audit and safety"

    def ready(self) -> None:
        from apps.core import heartbeats

        stored_metrics.register("heartbeats", heartbeats.read)
