"""The WSGI application: what gunicorn serves."""

from django.core.wsgi import get_wsgi_application

from pulsewatch.celery import app as celery_app
from pulsewatch.env import require_settings_module

require_settings_module()

application = get_wsgi_application()

# Imported so that what people ask for in the web process wakes the workers: without an app of ours Celery would send
# its messages to a broker that does not exist.
__all__ = ["application", "celery_app"]
