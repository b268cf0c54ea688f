"""Version 1 of the API: one file a noun."""

from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from ninja import NinjaAPI
from ninja.openapi.docs import Swagger
from ninja.openapi.schema import OpenAPISchema

from apps.api import refusals
from apps.api.endpoints import BodyParser
from apps.api.rendering import Renderer
from apps.api.v1 import (
    alerts,
    backups,
    builds,
    databases,
    deployments,
    dora,
    endpoints,
    health_checks,
    instances,
    maintenance_windows,
    scaling,
    services,
)
from apps.core.problems import CONTENT_TYPE


class Api(NinjaAPI):
    """django-ninja with our errors: one mapping, and their media type in the schema."""

    def on_exception(self, request: HttpRequest, exc: Any) -> HttpResponse:
        return refusals.answer(exc)

    def get_openapi_schema(self, **kwargs: Any) -> OpenAPISchema:
        schema = super().get_openapi_schema(**kwargs)
        for operations in schema["paths"].values():
            for operation in operations.values():
                for status, response in operation["responses"].items():
                    if status >= 400:
                        response["content"] = {CONTENT_TYPE: response["content"].popitem()[1]}
        return schema


api = Api(
    title="Pulsewatch",
    version=settings.VERSION,
    description="What CI reports and programs ask. docs/api.md explains tokens, errors, retries, paging and limits.",
    urls_namespace="api-v1",
    docs=Swagger({"defaultModelsExpandDepth": 0}),
    parser=BodyParser(),
    renderer=Renderer(),
)
# What machines ask all day stands first: one path after another is tried.
for noun in (
    *(health_checks, deployments, builds, services, instances, endpoints, databases, alerts, maintenance_windows),
    *(backups, dora, scaling),
):
    api.add_router("", noun.router)
