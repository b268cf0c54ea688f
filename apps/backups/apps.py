from django.apps import AppConfig

from apps.core import stored_metrics


class BackupsConfig(AppConfig):
    name = "apps.backups"
    label = "backups"
    verbose_name = "Backups"

    def ready(self) -> None:
        from apps.backups import metrics

        stored_metrics.register("backups", metrics.read)
