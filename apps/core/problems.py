"""How a program is told that something went wrong: problem+json (RFC 9457), always in this one shape."""

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from django.http import HttpResponse

from apps.core import context

CONTENT_TYPE = "application/problem+json"

# By status: the name a program can rely on, and what it means in general. docs/api.md has the same table.
KINDS = {
    400: ("malformed", "The request cannot be read"),
    401: ("unauthenticated", "The request carries no valid token"),
    403: ("forbidden", "The token does not allow this"),
    404: ("not-found", "There is nothing at this address"),
    405: ("method-not-allowed", "This address does not take this method"),
    409: ("conflict", "The present state does not allow this"),
    411: ("length-required", "The request does not say how long it is"),
    413: ("too-large", "The request is too large"),
    415: ("unsupported-media-type", "The body is of the wrong type"),
    422: ("invalid", "The input is wrong; nothing was changed"),
    429: ("throttled", "Too many requests"),
    500: ("internal", "Something went wrong here"),
    503: ("unavailable", "Pulsewatch cannot answer at this moment"),
}
# A browser that is made to show JSON as a page must find no markup in it.
_ESCAPES = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"})


def harmless(text: str) -> str:
    """JSON text that stays data even where somebody pastes or serves it as HTML."""
    return text.translate(_ESCAPES)


def problem(status: int, detail: str = "", *, headers: Mapping[str, str] | None = None, **members: Any) -> HttpResponse:
    """The answer to a request that failed; `detail` is one sentence with cause and remedy, `members` plain values."""
    name, title = KINDS.get(status) or (f"http-{status}", HTTPStatus(status).phrase)
    body = {"type": f"urn:pulsewatch:problem:{name}", "title": title, "status": status}
    if detail:
        body["detail"] = detail
    if request_id := context.current().request_id:
        body["request_id"] = request_id
    text = harmless(json.dumps(body | members, default=str))
    return HttpResponse(text, content_type=CONTENT_TYPE, status=status, headers=headers)
