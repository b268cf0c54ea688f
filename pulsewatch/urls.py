"""The console and the API. Probes and metrics are answered before routing, in apps.health.middleware."""

from django.contrib import admin
from django.urls import path
from django.views.generic import RedirectView

from apps.api import webhooks
from apps.api.v1 import api

handler500 = "apps.console.views.server_error"

urlpatterns = [
    path("", RedirectView.as_view(pattern_name="admin:index")),
    path("admin/", admin.site.urls),
    path("api/v1/webhooks/github", webhooks.receive, {"source": "github"}),
    path("api/v1/webhooks/zeabur", webhooks.receive, {"source": "zeabur"}),
    path("api/v1/", api.urls),
]
