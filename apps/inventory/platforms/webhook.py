"""A signed POST to an address of the team's own, which then rolls out the version.

Headers and signature are those of Standard Webhooks (https://www.standardwebhooks.com): the receiver knows who sent it,
that it is unaltered and recent, and that it was not seen before. docs/platforms.md holds the receiver's side.
"""

import base64
import hashlib
import hmac
import json
import time
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Self

from apps.inventory.platforms.base import PlatformError, PlatformUnavailable, Receipt, Release, SettingsInvalid
from apps.inventory.platforms.fields import MAX_SECRET, SECRET, Fields
from apps.inventory.platforms.transport import LIMITS, Answer, Limits, host, origin, post, words

MIN_SECRET = 16  # characters, or bytes behind whsec_: 64 bits even when they are hexadecimal
ENCODED_PREFIX = "whsec_"  # what follows is the key in base64, as Standard Webhooks writes it
_DELIVERIES = uuid.UUID("0f6f4f0e-5a0c-4b8e-9d3b-7a1d0c7c2f51")  # the namespace of our delivery ids; any fixed one does


@dataclass(frozen=True, slots=True)
class Webhook:
    repeatable: ClassVar[bool] = True  # receivers act once on an id

    url: str
    key: bytes = field(repr=False)
    secret: str = field(repr=False)
    limits: Limits = LIMITS

    @classmethod
    def made(cls, settings: Mapping[str, Any], secret: str) -> Self:
        fields = Fields("webhook", settings)
        url = fields.url("url")
        fields.done()
        return cls(url, signing_key(secret), secret)

    @staticmethod
    def destination(settings: Mapping[str, Any]) -> str:
        return origin(str(settings.get("url", "")))

    def roll_out(self, release: Release) -> Receipt:
        delivery = delivery_id(release)
        body = json.dumps(asdict(release), separators=(",", ":")).encode()

        def prepare() -> tuple[dict[str, str], bytes]:
            # Each attempt is signed with its own time, or a patient retry would look like a replay.
            moment = int(time.time())
            return {
                "Content-Type": "application/json",
                "Webhook-Id": delivery,
                "Webhook-Timestamp": str(moment),
                "Webhook-Signature": signature(self.key, delivery, moment, body),
            }, body

        answer = post(self.url, prepare, limits=self.limits, again=_overloaded, repeatable=True)
        if answer.ok:
            said = words(answer.json().get("detail"), self.secret)
            detail = f"{host(self.url)} accepted the {release.kind} to {release.version} (HTTP {answer.status})"
            return Receipt(True, f"{detail}: {said.rstrip('.')}." if said else f"{detail}.", answer.link("url"))
        raise _refusal(answer, self.url, self.secret)


def signing_key(secret: str) -> bytes:
    """The HMAC key a secret stands for. Raises SettingsInvalid without repeating it."""
    if not MIN_SECRET <= len(secret) <= MAX_SECRET:
        raise SettingsInvalid(
            f"Platform webhook needs a secret of at least {MIN_SECRET} characters to sign with: make one with "
            "`openssl rand -hex 32`, enter it here and at the receiver.",
            field=SECRET,
        )
    if not secret.startswith(ENCODED_PREFIX):
        return secret.encode(errors="surrogatepass")
    try:
        key = base64.b64decode(secret.removeprefix(ENCODED_PREFIX), validate=True)
    except ValueError:
        key = b""
    if len(key) < MIN_SECRET:
        raise SettingsInvalid(
            f"What follows {ENCODED_PREFIX} in the platform secret is not the base64 of at least {MIN_SECRET} bytes: "
            "copy it again.",
            field=SECRET,
        )
    return key


def delivery_id(release: Release) -> str:
    """The same for every attempt at one deployment record, also after a worker died: receivers act on it once."""
    name = f"{release.service}/{release.environment}/{release.kind}/{release.deployment_id}"
    return str(uuid.uuid5(_DELIVERIES, name))


def signature(key: bytes, delivery: str, moment: int, body: bytes) -> str:
    """`v1,` and the base64 HMAC-SHA256 of `id.timestamp.body`."""
    digest = hmac.digest(key, b"%s.%d.%s" % (delivery.encode(), moment, body), hashlib.sha256)
    return f"v1,{base64.b64encode(digest).decode()}"


def _overloaded(answer: Answer) -> bool:
    return answer.status == 429 or answer.status >= 500


def _refusal(answer: Answer, url: str, secret: str) -> PlatformError:
    name = host(url)
    if _overloaded(answer):
        patience = "asks for patience" if answer.status == 429 else "is in trouble"
        return PlatformUnavailable(f"{name} {patience} (HTTP {answer.status}): look at its log, then try again.")
    if 300 <= answer.status < 400:
        return PlatformError(
            f"{name} sends us elsewhere (HTTP {answer.status}), which a signed request does not follow: set the final "
            "address as the workload's url."
        )
    said = words(answer.json().get("detail"), secret)
    remedies = {
        401: "it does not accept the signature; check that both sides have the same secret and the right time",
        403: "it does not accept the signature; check that both sides have the same secret and the right time",
        404: "there is nothing at this address; correct the workload's url",
    }
    remedy = remedies.get(answer.status, "look at its log for the reason")
    return PlatformError(f"{name} refused (HTTP {answer.status}{f', {said}' if said else ''}): {remedy}.")
