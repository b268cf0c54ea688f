"""Where GitHub and Zeabur report deployments: `POST /api/v1/webhooks/github` and `/api/v1/webhooks/zeabur`.

Nothing of a body is read before its signature has been found genuine, and nothing is stored of one that is not.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import IO, Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from apps.api import bodies, inbox, refusals
from apps.api.models import WebhookDelivery
from apps.api.refusals import Refused
from apps.core.problems import harmless
from apps.deployments.sources import GITHUB
from apps.deployments.sources.signatures import HEADER, Check

LIMIT = 25 * bodies.MIB  # GitHub sends no larger payload
# Signs that begin a value or part two. Real payloads hold a few thousand; each value takes up to some 200 bytes of
# memory, whatever it takes in the body.
SIGNS = b"[{,"
MOST_SIGNS = 200_000
_SIGNATURE = re.compile(r"sha256=[0-9a-f]{64}")
_DELIVERY = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
_EVENT = re.compile(r"[a-z_]{1,50}")


@csrf_exempt  # the signature says more than a token of a form
@require_POST
def receive(request: HttpRequest, source: str) -> HttpResponse:
    """202 with what became of the delivery; problem+json when it is not taken."""
    try:
        row, new = _receive(request, source)
    except Exception as error:  # The last stop: whatever it is, a program is told so in the one shape.
        return refusals.answer(error)
    said = {
        "delivery": row.delivery_id,
        "outcome": row.outcome,
        "duplicate": not new,
        "deployment": row.deployment_id or None,
        "detail": row.detail,
    }
    return HttpResponse(harmless(json.dumps(said)), content_type="application/json", status=202)


def _receive(request: HttpRequest, source: str) -> tuple[WebhookDelivery, bool]:
    secret = settings.WEBHOOK_SECRETS[source]
    if not secret:
        raise Refused(404, f"Nobody listens here until {source.upper()}_WEBHOOK_SECRET is set: docs/webhooks.md.")
    signature = request.META.get("HTTP_X_HUB_SIGNATURE_256", "")
    if not _SIGNATURE.fullmatch(signature):  # before 25 MB are taken in from anybody
        raise Refused(401, f"Sign the body and send {HEADER}: sha256= and 64 hexadecimal digits.")
    with bodies.spool(request, LIMIT) as body:
        if not _genuine(secret, body, signature):
            raise Refused(401, f"{HEADER} is not the signature of this body: check that both sides have one secret.")
        bodies.check_type(request, bodies.JSON_TYPES)
        payload = _payload(body)
    delivery, event = _named(request, source, payload)
    return inbox.receive(source=source, delivery_id=delivery, event=event, payload=payload, now=timezone.now())


def _genuine(secret: str, body: IO[bytes], signature: str) -> bool:
    check = Check(secret)
    while piece := body.read(bodies.PIECE):
        check.update(piece)
    body.seek(0)
    return check.matches(signature)


def _payload(body: IO[bytes]) -> Mapping[str, Any]:
    signs = 0
    while piece := body.read(bodies.PIECE):
        signs += sum(piece.count(sign) for sign in SIGNS)
        if signs > MOST_SIGNS:
            raise Refused(413, f"The body holds more than {MOST_SIGNS:,} values: no report of a deployment does.")
    body.seek(0)
    try:
        payload = json.load(body)
    except (ValueError, RecursionError):
        raise Refused(400, "The body is signed, but it is not JSON that can be read.") from None
    if not isinstance(payload, Mapping):
        raise Refused(400, "The body is signed, but it is not a JSON object.")
    return payload


def _named(request: HttpRequest, source: str, payload: Mapping[str, Any]) -> tuple[str, str]:
    """The delivery's id and its event."""
    if source == GITHUB:
        delivery = request.META.get("HTTP_X_GITHUB_DELIVERY", "")
        event = request.META.get("HTTP_X_GITHUB_EVENT", "")
        if not _DELIVERY.fullmatch(delivery) or not _EVENT.fullmatch(event):
            raise Refused(400, "Send X-GitHub-Delivery, an id, and X-GitHub-Event, a name.")
        return delivery, event
    delivery = request.META.get("HTTP_X_DELIVERY_ID", "")
    if delivery and not _DELIVERY.fullmatch(delivery):
        raise Refused(400, "X-Delivery-Id has 1 to 128 letters, digits and _ . : - or is left out.")
    # Without an id of its own a delivery is what it says: the same again is a duplicate.
    digest = hashlib.sha256(json.dumps(payload, sort_keys=True).encode()).hexdigest()
    return delivery or digest, "deployment"
