"""What beat sends."""

from celery import shared_task

from apps.inventory import discovery


@shared_task(name="inventory.discover")
def discover() -> None:
    """Once a minute."""
    discovery.discover()
