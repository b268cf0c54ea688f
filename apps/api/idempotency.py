"""Writes that may be sent again: the same Idempotency-Key gets the same answer, and the work is done once.

The answer is stored in the transaction of the work. A process that dies leaves neither, and the retry does both. Work
that changes nothing when it is done again needs no such transaction: its answer is stored behind it.
"""

from collections.abc import Callable

from django.db import IntegrityError, OperationalError, transaction
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.utils.crypto import salted_hmac

from apps.api import rules
from apps.api.models import KEPT, ApiToken, StoredAnswer
from apps.api.refusals import Refused, invalid
from apps.core.errors import Conflict

HEADER = "Idempotency-Key"
LOCKED = (1205, 3572)  # MariaDB's and MySQL's numbers for a row that somebody else holds
ROUNDS = 3  # the second one finds what was stored meanwhile; a third is for a row removed in between


def once(
    request: HttpRequest,
    token: ApiToken,
    body_digest: str,
    run: Callable[[], HttpResponse],
    *,
    repeatable: bool = False,
) -> HttpResponse:
    """The answer of `run`, or the stored one when this token has sent this key before.

    Only success is stored. What was refused has changed nothing, so it may be sent again with the same key.
    `repeatable`: done again it changes nothing, so no transaction is open while it reads and works.
    """
    key = request.META.get("HTTP_IDEMPOTENCY_KEY")
    if key is None:
        return run()
    if not rules.is_idempotency_key(key):
        return invalid("", (HEADER, f"Use 1 to {rules.MAX_KEY} printable ASCII characters, such as a UUID."))
    digest = _digest(str(token.pk), key)
    fingerprint = _digest(str(request.method), request.get_full_path(), body_digest)
    work = run
    if repeatable and not StoredAnswer.objects.filter(digest=digest).exists():
        response = run()

        def work() -> HttpResponse:
            return response

    for _ in range(ROUNDS):
        try:
            with transaction.atomic():
                stored = _stored(digest, wait=repeatable)
                if stored is None:
                    return _run(StoredAnswer(digest=digest, fingerprint=fingerprint, created_at=timezone.now()), work)
        except IntegrityError:
            continue  # another request with this key has just been answered
        if stored.fingerprint != fingerprint:
            return invalid("", (HEADER, "This key was sent with another request before: take a new one."))
        return _again(stored)
    raise Conflict("This Idempotency-Key is used by several requests at once; try again.")


def _stored(digest: str, *, wait: bool = False) -> StoredAnswer | None:
    """What this key was answered. Raises Refused (409) while another request with it is under way, unless it waits."""
    rows = StoredAnswer.objects.filter(digest=digest)
    try:
        stored = rows.select_for_update(nowait=not wait).first()
    except OperationalError as error:
        if error.args[:1] and error.args[0] in LOCKED:
            # Or another one only reads the answer just now: so does this one.
            if answered := rows.filter(created_at__gt=timezone.now() - KEPT).first():
                return answered
            raise Refused(
                409,
                "A request with this Idempotency-Key is under way; ask again for its answer.",
                headers={"Retry-After": "1"},
            ) from error
        raise
    if stored and stored.created_at <= timezone.now() - KEPT:
        rows.delete()
        return None
    return stored


def _run(row: StoredAnswer, run: Callable[[], HttpResponse]) -> HttpResponse:
    """Do the work inside the transaction that is open, and keep the answer. Nothing is kept of a refusal."""
    row.save(force_insert=True)  # from here on, others with this key are told to wait
    response = run()
    if not 200 <= response.status_code < 300:
        transaction.set_rollback(True)
        return response
    StoredAnswer.objects.filter(pk=row.pk).update(
        status=response.status_code, body=response.content.decode(), location=response.get("Location", "")
    )
    return response


def _again(stored: StoredAnswer) -> HttpResponse:
    response = HttpResponse(stored.body, content_type="application/json; charset=utf-8", status=stored.status)
    if stored.location:
        response["Location"] = stored.location
    response["Idempotent-Replay"] = "true"
    return response


def _digest(*parts: str) -> str:
    """Keyed, for a body may hold what nobody shall find by trying: the value of an environment variable."""
    return salted_hmac("apps.api.idempotency", "\0".join(parts), algorithm="sha256").hexdigest()
