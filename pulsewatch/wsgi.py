"""The WSGI application: what gunicorn serves."""

from django.core.wsgi import get_wsgi_application

from pulsewatch.env import require_settings_module

require_settings_module()

application = get_wsgi_application()
