"""Signed requests to an address of the team's own, which rolls out a version, or runs more instances or fewer.

Headers and signature are those of Standard Webhooks (https://www.standardwebhooks.com): the receiver knows who sent it,
that it is unaltered and recent, and that it was not seen before. docs/platforms.md holds the receiver's side.
"""

import base64
import hashlib
import hmac
import json
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Self, TypeGuard

from apps.inventory.platforms.base import (
    Count,
    CountChanged,
    Found,
    PlatformError,
    PlatformUnavailable,
    Receipt,
    Release,
    SettingsInvalid,
)
from apps.inventory.platforms.fields import MAX_SECRET, SECRET, SETTINGS, Fields
from apps.inventory.platforms.transport import (
    LIMITS,
    QUICK,
    Answer,
    Limits,
    call,
    host,
    origin,
    overloaded,
    post,
    words,
)

MIN_SECRET = 16  # characters, or bytes behind whsec_: 64 bits even when they are hexadecimal
ENCODED_PREFIX = "whsec_"  # what follows is the key in base64, as Standard Webhooks writes it
MOST_INSTANCES = 100_000  # a larger number in an answer is no number of instances
_DELIVERIES = uuid.UUID("0f6f4f0e-5a0c-4b8e-9d3b-7a1d0c7c2f51")  # the namespace of our delivery ids; any fixed one does


@dataclass(frozen=True, slots=True)
class Webhook:
    repeatable: ClassVar[bool] = True  # receivers act once on an id

    url: str
    key: bytes = field(repr=False)
    secret: str = field(repr=False)
    scale_url: str = ""  # empty: it scales nothing
    limits: Limits = LIMITS
    scale_limits: Limits = QUICK
    unit: str = "instance"

    @classmethod
    def made(cls, settings: Mapping[str, Any], secret: str) -> Self:
        fields = Fields("webhook", settings)
        url = fields.url("url")
        scale_url = fields.url("scale_url", url)  # which is not asked for a count unless it is named
        fields.done()
        if origin(scale_url) != origin(url):
            raise SettingsInvalid(
                f"Platform webhook: setting scale_url must be at {origin(url)} like url, for which the secret was "
                "entered.",
                field=SETTINGS,
            )
        return cls(url, signing_key(secret), secret, scale_url if "scale_url" in settings else "")

    @staticmethod
    def destination(settings: Mapping[str, Any]) -> str:
        return origin(str(settings.get("url", "")))

    def roll_out(self, release: Release) -> Receipt:
        delivery = delivery_id(release)
        body = json.dumps(asdict(release), separators=(",", ":")).encode()

        # Each attempt is signed with its own time, or a patient retry would look like a replay.
        answer = post(
            self.url,
            lambda: (self._signed(delivery, body), body),
            limits=self.limits,
            again=overloaded,
            repeatable=True,
        )
        if answer.ok:
            said = words(answer.json().get("detail"), self.secret)
            detail = f"{host(self.url)} accepted the {release.kind} to {release.version} (HTTP {answer.status})"
            return Receipt(True, f"{detail}: {said.rstrip('.')}." if said else f"{detail}.", answer.link("url"))
        raise _refusal(answer, self.url, self.secret, "url")

    def count(self) -> Count:
        headers = self._signed(str(uuid.uuid4()), b"")
        answer = call("GET", self.scale_url, headers, limits=self.scale_limits, again=overloaded)
        if not answer.ok:
            raise _refusal(answer, self.scale_url, self.secret, "scale_url")
        said = answer.json()
        desired, ready = said.get("instances"), said.get("ready")
        if not _is_count(desired) or not (ready is None or _is_count(ready)):
            raise PlatformError(
                f"{host(self.scale_url)} did not say how many instances run: it must answer with a JSON object such as "
                '{"instances": 3, "ready": 2}.'
            )
        return Count(desired, ready)

    def scale(self, to: int, *, seen: Count) -> None:
        delivery = str(uuid.uuid4())
        body = json.dumps({"instances": to, "expected": seen.desired, "id": delivery}, separators=(",", ":")).encode()
        answer = post(
            self.scale_url,
            lambda: (self._signed(delivery, body), body),
            limits=self.scale_limits,
            again=overloaded,
            repeatable=True,
        )
        if answer.status == 409:
            now = self.count().desired
            if now != to:  # else an attempt before this one has done it
                raise CountChanged(
                    f"{host(self.scale_url)} refused (HTTP 409), because somebody else had changed the number of "
                    f"instances: it was {seen.desired} and is {now}."
                )
        elif not answer.ok:
            raise _refusal(answer, self.scale_url, self.secret, "scale_url")

    def instances(self) -> Sequence[Found]:
        return ()  # it knows how many, not which

    def _signed(self, delivery: str, body: bytes) -> dict[str, str]:
        moment = int(time.time())
        return {
            "Content-Type": "application/json",
            "Webhook-Id": delivery,
            "Webhook-Timestamp": str(moment),
            "Webhook-Signature": signature(self.key, delivery, moment, body),
        }


def _is_count(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_INSTANCES


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


def _refusal(answer: Answer, url: str, secret: str, setting: str) -> PlatformError:
    name = host(url)
    if overloaded(answer):
        patience = "asks for patience" if answer.status == 429 else "is in trouble"
        return PlatformUnavailable(f"{name} {patience} (HTTP {answer.status}): look at its log, then try again.")
    if 300 <= answer.status < 400:
        return PlatformError(
            f"{name} sends us elsewhere (HTTP {answer.status}), which a signed request does not follow: set the final "
            f"address as the workload's {setting}."
        )
    said = words(answer.json().get("detail"), secret)
    remedies = {
        401: "it does not accept the signature; check that both sides have the same secret and the right time",
        403: "it does not accept the signature; check that both sides have the same secret and the right time",
        404: f"there is nothing at this address; correct the workload's {setting}",
    }
    remedy = remedies.get(answer.status, "look at its log for the reason")
    return PlatformError(f"{name} refused (HTTP {answer.status}{f', {said}' if said else ''}): {remedy}.")
