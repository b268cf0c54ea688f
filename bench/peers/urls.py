"""A plain view, and django-health-check's view with the same two checks as `/ready`."""

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.urls import path
from health_check.contrib.redis import Redis
from health_check.views import HealthCheckView
from redis.asyncio import Redis as AsyncRedis

from bench.peers.bare import BODY
from bench.peers.ninja_urls import api


def plain(request: HttpRequest) -> HttpResponse:
    return HttpResponse(BODY, content_type="application/json")


class Checked(HealthCheckView):
    checks = (
        "health_check.checks.Database",
        (Redis, {"client_factory": lambda: AsyncRedis.from_url(settings.REDIS_URL)}),
    )


urlpatterns = [path("plain", plain), path("checked", Checked.as_view()), path("api/v1/", api.urls)]
