"""Asks Zeabur to redeploy a service, through its GraphQL API. Refusals come with status 200 too.

https://zeabur.com/docs/en-US/developer/public-api
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

from apps.inventory.platforms.base import ROLLBACK, PlatformError, PlatformUnavailable, Receipt, Release
from apps.inventory.platforms.fields import Fields, token
from apps.inventory.platforms.transport import LIMITS, Answer, Limits, host, origin, post, words

API = "https://api.zeabur.com/graphql"
REDEPLOY = (
    "mutation Redeploy($service: ObjectID!, $environment: ObjectID!) "
    "{ redeployService(serviceID: $service, environmentID: $environment) }"
)
_OBJECT_ID = (r"[0-9a-fA-F]{24}", "24 hexadecimal digits, as in the address of its page in Zeabur's dashboard")


@dataclass(frozen=True, slots=True)
class Zeabur:
    repeatable: ClassVar[bool] = False  # each request starts a build

    base_url: str
    service_id: str
    environment_id: str
    redeploy_on_rollback: bool
    token: str = field(repr=False)
    limits: Limits = LIMITS

    @classmethod
    def made(cls, settings: Mapping[str, Any], secret: str) -> Self:
        given = Fields("zeabur", settings)
        base_url = given.url("base_url", API)
        service_id = given.text("service_id", *_OBJECT_ID)
        environment_id = given.text("environment_id", *_OBJECT_ID)
        redeploy_on_rollback = given.boolean("redeploy_on_rollback", False)
        given.done()
        return cls(base_url, service_id, environment_id, redeploy_on_rollback, token("zeabur", secret))

    @staticmethod
    def destination(settings: Mapping[str, Any]) -> str:
        return origin(str(settings.get("base_url", API)))

    def roll_out(self, release: Release) -> Receipt:
        if release.kind == ROLLBACK and not self.redeploy_on_rollback:
            # Redeploying builds the newest commit: just the one that failed.
            return Receipt(
                False,
                f"Nothing was changed, because Zeabur's API cannot be told a version: go back to {release.version} "
                "with Rollback on the service's Deployments page, or revert the commit.",
            )
        body = json.dumps(
            {"query": REDEPLOY, "variables": {"service": self.service_id, "environment": self.environment_id}}
        ).encode()
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        # Every request that arrives starts a build.
        answer = post(self.base_url, lambda: (headers, body), limits=self.limits, again=_patience, repeatable=False)
        data = answer.json().get("data")
        if answer.ok and "errors" not in answer.json() and isinstance(data, dict) and data.get("redeployService"):
            return Receipt(
                True,
                f"Zeabur redeploys the newest commit of its service for the {release.kind} to {release.version}.",
            )
        raise self._refusal(answer)

    def _refusal(self, answer: Answer) -> PlatformError:
        name = host(self.base_url)
        code, message = _first_error(answer.json())
        said = words(message, self.token).rstrip(".")
        status = f"HTTP {answer.status}{f', {said}' if said else ''}"
        if _patience(answer):
            return PlatformUnavailable(f"{name} asks for patience ({status}): try again later.")
        if answer.status >= 500:
            return PlatformError(
                f"{name} is in trouble ({status}) and may have started a deployment or not: look at the service's "
                "page before you try again."
            )
        if answer.status in (401, 403) or code in ("UNAUTHENTICATED", "UNAUTHORIZED", "FORBIDDEN"):
            return PlatformError(
                f"{name} refused ({status}): the API key is not valid, or its owner has no access to the service; "
                "make a new one and enter it as the platform secret."
            )
        if 300 <= answer.status < 400:
            return PlatformError(f"{name} sends us elsewhere ({status}): correct base_url.")
        if said or answer.status >= 400:
            return PlatformError(
                f"{name} refused ({status}): check base_url, service_id and environment_id in the platform settings."
            )
        return PlatformError(
            f"{name} gave no answer of a GraphQL API ({status}), so nobody knows what became of the order: check "
            "base_url, and look at the service's page."
        )


def _patience(answer: Answer) -> bool:
    return answer.status == 429


def _first_error(said: Mapping[str, Any]) -> tuple[str, object]:
    """Code and message of the first error of a GraphQL answer."""
    errors = said.get("errors")
    first = errors[0] if isinstance(errors, list) and errors else None
    if not isinstance(first, dict):
        return "", None
    extensions = first.get("extensions")
    code = extensions.get("code") if isinstance(extensions, dict) else None
    return str(code).upper() if isinstance(code, str) else "", first.get("message")
