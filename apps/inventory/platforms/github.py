"""Starts a GitHub Actions workflow (`workflow_dispatch`), which then rolls out the version.

https://docs.github.com/en/rest/actions/workflows#create-a-workflow-dispatch-event
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, ClassVar, Self
from urllib.parse import quote

from apps.inventory.platforms.base import PlatformError, PlatformUnavailable, Receipt, Release, SettingsInvalid
from apps.inventory.platforms.fields import SETTINGS, Fields, token
from apps.inventory.platforms.transport import LIMITS, Answer, Limits, host, origin, post, words

API = "https://api.github.com"
API_VERSION = "2022-11-28"  # the oldest that is supported, and so the one that Enterprise servers know too
MAX_INPUTS = 25  # GitHub's own limit for a workflow
RELEASE_FIELDS = tuple(item.name for item in fields(Release))
DEFAULT_INPUTS = {name: name for name in ("version", "environment", "kind", "deployment_id", "reason")}


@dataclass(frozen=True, slots=True)
class GitHub:
    repeatable: ClassVar[bool] = False  # each request starts a run

    base_url: str
    repository: str
    workflow: str
    ref: str
    inputs: Mapping[str, str]  # the workflow's input → the field of the release it is given
    token: str = field(repr=False)
    limits: Limits = LIMITS

    @classmethod
    def made(cls, settings: Mapping[str, Any], secret: str) -> Self:
        given = Fields("github", settings)
        base_url = given.url("base_url", API).rstrip("/")
        repository = given.text(
            "repository", r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}/(?!\.{1,2}$)[A-Za-z0-9._-]{1,100}", "of the form owner/name"
        )
        workflow = given.text(
            "workflow", r"[0-9]{1,20}|[A-Za-z0-9_.-]{1,100}\.ya?ml", "a workflow's file name such as deploy.yml, or id"
        )
        ref = given.text("ref", r"[^\s~^:?*\[\\\x00-\x1f\x7f]{1,200}", "a branch or tag", "main")
        shown = ", ".join(RELEASE_FIELDS)
        inputs = given.mapping("inputs", DEFAULT_INPUTS, f"an object of input names, each with one of: {shown}")
        given.done()
        if len(inputs) > MAX_INPUTS or not set(inputs.values()) <= set(RELEASE_FIELDS) or not all(inputs):
            raise SettingsInvalid(
                f"Platform github: setting inputs must name at most {MAX_INPUTS} inputs, each with one of: {shown}.",
                field=SETTINGS,
            )
        return cls(base_url, repository, workflow, ref, inputs, token("github", secret))

    @staticmethod
    def destination(settings: Mapping[str, Any]) -> str:
        return origin(str(settings.get("base_url", API)))

    @property
    def headers(self) -> dict[str, str]:
        """What every request to the API carries."""
        return {
            "Accept": "application/vnd.github+json",
            "Authorization": f"Bearer {self.token}",
            "X-GitHub-Api-Version": API_VERSION,
        }

    @property
    def page(self) -> str:
        """Where people look at the repository."""
        site = "https://github.com" if self.base_url == API else self.base_url.removesuffix("/api/v3")
        return f"{site}/{self.repository}"

    def roll_out(self, release: Release) -> Receipt:
        known = asdict(release)
        body = json.dumps(
            {"ref": self.ref, "inputs": {name: known[source] for name, source in self.inputs.items()}}
        ).encode()
        headers = {**self.headers, "Content-Type": "application/json"}
        url = f"{self.base_url}/repos/{self.repository}/actions/workflows/{self.workflow}/dispatches"
        # GitHub starts a run for every request, so one that may have arrived is not sent again.
        answer = post(url, lambda: (headers, body), limits=self.limits, again=rate_limited, repeatable=False)
        if answer.ok:
            return Receipt(
                True,
                f"GitHub starts workflow {self.workflow} of {self.repository} for the {release.kind} to "
                f"{release.version}.",
                answer.link("html_url") or self._runs(),
            )
        raise self._refusal(answer)

    def _runs(self) -> str:
        """Where the runs of the workflow are listed."""
        return f"{self.page}/actions/workflows/{self.workflow}?query={quote(f'branch:{self.ref}')}"

    def _refusal(self, answer: Answer) -> PlatformError:
        name = host(self.base_url)
        said = words(answer.json().get("message"), self.token).rstrip(".")
        status = f"HTTP {answer.status}{f', {said}' if said else ''}"
        if rate_limited(answer):
            return PlatformUnavailable(
                f"{name} accepts no more requests with this token for now ({status}): try again later."
            )
        if answer.status >= 500:
            return PlatformError(
                f"{name} is in trouble ({status}) and may have started the workflow or not: look at the runs of "
                f"{self.workflow} before you try again."
            )
        if 300 <= answer.status < 400:
            return PlatformError(
                f"{name} sends us elsewhere ({status}): correct base_url, or the repository if it was renamed or moved."
            )
        remedies = {
            401: "the token is not valid or has expired; make a new one and enter it as the platform secret",
            403: f"the token may not start workflows of {self.repository}; give it the permission Actions: write",
            404: f"there is no workflow {self.workflow} in {self.repository}, or the token may not see the repository",
            422: f"on {self.ref} the workflow must have `on: workflow_dispatch` with exactly the inputs "
            f"{', '.join(self.inputs) or '(none)'}; correct it, or the settings ref and inputs",
        }
        return PlatformError(
            f"{name} refused ({status}): {remedies.get(answer.status, 'correct the platform settings')}."
        )


def rate_limited(answer: Answer) -> bool:
    """GitHub says so with 429, or with 403 and one of these headers."""
    return answer.status == 429 or (
        answer.status == 403 and (answer.headers.get("x-ratelimit-remaining") == "0" or "retry-after" in answer.headers)
    )
