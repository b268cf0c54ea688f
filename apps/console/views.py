"""What a person sees when a page could not be made."""

import sys

from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse
from django.template.loader import render_to_string

RETRY_SECONDS = 10


def server_error(request: HttpRequest) -> HttpResponse:
    """503 while the database does not answer, 500 for a fault of ours. Asks no database itself."""
    away = isinstance(sys.exc_info()[1], OperationalError | InterfaceError)
    text = render_to_string("console/unavailable.html", {"away": away})
    if away:
        return HttpResponse(text, status=503, headers={"Retry-After": str(RETRY_SECONDS)})
    return HttpResponse(text, status=500)
