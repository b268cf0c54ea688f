"""What surrounds the API alone: CORS, and one shape for every error, whoever answers it."""

from collections.abc import Callable

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.utils.cache import patch_vary_headers

from apps.core.problems import CONTENT_TYPE, problem

PREFIX = "/api/"
METHODS = "GET, POST, PATCH, DELETE"
REQUEST_HEADERS = "Authorization, Content-Type, Idempotency-Key, X-Request-ID"
RESPONSE_HEADERS = "Idempotent-Replay, Location, Retry-After, WWW-Authenticate, X-Request-ID"
PREFLIGHT_SECONDS = 600  # for which a browser need not ask again
KEPT_HEADERS = ("Allow", "Retry-After", "WWW-Authenticate")


class ApiMiddleware:
    """Stands outside of all that may refuse a request: a wrong host, an unknown path are told as problem+json too."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if not request.path_info.startswith(PREFIX):
            return self.get_response(request)
        origin = request.META.get("HTTP_ORIGIN", "")
        allowed = origin in settings.CORS_ORIGINS
        if allowed and request.method == "OPTIONS" and "HTTP_ACCESS_CONTROL_REQUEST_METHOD" in request.META:
            response = HttpResponse(status=204)
            response["Access-Control-Allow-Methods"] = METHODS
            response["Access-Control-Allow-Headers"] = REQUEST_HEADERS
            response["Access-Control-Max-Age"] = str(PREFLIGHT_SECONDS)
        else:
            response = _in_one_shape(self.get_response(request))
        response.setdefault("Cache-Control", "no-store")
        if settings.CORS_ORIGINS:
            patch_vary_headers(response, ("Origin",))
        if allowed:
            # No cookies cross origins: the API takes tokens, which the page sends itself.
            response["Access-Control-Allow-Origin"] = origin
            response["Access-Control-Expose-Headers"] = RESPONSE_HEADERS
        return response


def _in_one_shape(response: HttpResponse) -> HttpResponse:
    if response.status_code < 400 or response.get("Content-Type", "").startswith(CONTENT_TYPE):
        return response
    kept = {name: response[name] for name in KEPT_HEADERS if name in response}
    detail = f"It takes {response['Allow']}." if "Allow" in response else ""
    return problem(response.status_code, detail, headers=kept)
