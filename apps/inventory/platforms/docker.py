"""A service of Docker Swarm: its replicas, its tasks, its image, through the Engine's own API.

https://docs.docker.com/reference/api/engine/. A service is written back as it was read but for what is to change, with
the version it was read at: Swarm restarts tasks whose description differs, and refuses a version that has moved.
"""

import json
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar, Self
from urllib.parse import quote, urlencode, urlsplit

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
from apps.inventory.platforms.fields import LONGEST_SECRET, SECRET, SETTINGS, Fields
from apps.inventory.platforms.images import Template
from apps.inventory.platforms.kubeconfig import tls_context
from apps.inventory.platforms.transport import (
    LIMITS,
    QUICK,
    Answer,
    Limits,
    Route,
    call,
    host,
    origin,
    overloaded,
    words,
)

TRIES = 3  # the version of a service moves with any change of it: read again and try again so often
SOCKET = "unix:///var/run/docker.sock"
SHORT_ID = 12  # digits of a container's id that its host name has, and by which its application calls itself
_HOST = (
    r"unix:///[^\x00]{1,106}|https?://.{1,290}",
    "unix:// and a path, or the http:// or https:// address of a manager",
)
_NAME = (r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}", "the name of a service")


class _Stale(Exception):
    """The service has changed since it was read."""


@dataclass(frozen=True, slots=True)
class Docker:
    repeatable: ClassVar[bool] = True  # the same image once more changes nothing

    base: str  # address that paths are appended to
    service: str
    image: Template | None  # None: it rolls out nothing
    network: str  # in which tasks are read; empty: they push their samples
    port: int
    route: Route = field(repr=False)
    secret: str = field(repr=False)
    limits: Limits = LIMITS
    scale_limits: Limits = QUICK
    unit: str = "replica"

    @classmethod
    def made(cls, settings: Mapping[str, Any], secret: str) -> Self:
        given = Fields("docker", settings)
        address = given.text("host", *_HOST, SOCKET)
        if not address.startswith("unix:"):
            address = given.url("host")
        service = given.text("service", *_NAME)
        image = given.optional("image", *Template.PATTERN)
        network = given.optional("network", *_NAME)
        port = given.number("port", 0, 65535)
        ca = given.optional("ca", r"(?s).{1,20000}", "the PEM text of the engine's authority")
        given.done()
        if bool(network) != bool(port):
            raise _wrong("network and port belong together: tasks are read at this port in this network")
        if (ca or secret) and not address.startswith("https:"):
            raise _wrong("ca and a platform secret, which holds a client certificate, are for an https:// host only")
        template = Template(image) if image else None
        base = "http://docker.sock" if address.startswith("unix:") else address.rstrip("/")
        return cls(base, service, template, network, port, _route(address, ca, secret), secret)

    @staticmethod
    def destination(settings: Mapping[str, Any]) -> str:
        address = str(settings.get("host", SOCKET))
        return origin(address) if address.startswith("http") else ""

    def count(self) -> Count:
        found = self._read(self.scale_limits)
        return Count(found.replicas, revision=str(found.version))

    def scale(self, to: int, *, seen: Count) -> None:
        def order(found: _Service) -> bool:
            if found.replicas == to:
                return False
            if found.replicas != seen.desired:
                raise CountChanged(
                    f"Somebody else changed the replicas of {self.service} from {seen.desired} to {found.replicas} "
                    "meanwhile."
                )
            found.mode["Replicas"] = to
            return True

        self._change(order, self.scale_limits)

    def instances(self) -> Sequence[Found]:
        service = self._read(self.scale_limits)
        wanted = json.dumps({"service": {service.id: True}, "desired-state": {"running": True}})
        answer = self._asked("GET", f"/tasks?{urlencode({'filters': wanted})}", self.scale_limits)
        tasks = answer.objects()
        if tasks is None:
            raise self._no_docker()
        return [found for task in tasks if (found := self._found(task)) is not None]

    def roll_out(self, release: Release) -> Receipt:
        if self.image is None:
            return Receipt(
                False,
                f"Nothing was changed, because the platform settings name no image: deploy version {release.version} "
                f'yourself, or set "image" to something like "registry.example.com/{release.service}:{{version}}".',
            )
        image = self.image.of(release)

        def order(found: _Service) -> bool:
            before, found.container["Image"] = found.container.get("Image"), image
            return before != image

        if self._change(order, self.limits):
            detail = f"Service {self.service} was set to image {image} for the {release.kind} to {release.version}."
            return Receipt(True, detail)
        return Receipt(True, f"Service {self.service} is set to image {image} already.")

    def _change(self, order: Callable[["_Service"], bool], limits: Limits) -> bool:
        """Have `order` change what was read, and write it back; False when it has nothing to change."""
        for _ in range(TRIES):
            found = self._read(limits)
            if not order(found):
                return False
            path = f"/services/{quote(found.id)}/update?version={found.version}"
            try:
                self._asked("POST", path, limits, json.dumps(found.spec).encode())
            except _Stale:
                continue
            return True
        raise PlatformUnavailable(
            f"Service {self.service} was changed by somebody else each of the {TRIES} times it was to be changed: try "
            "again later."
        )

    def _read(self, limits: Limits) -> "_Service":
        said = self._asked("GET", f"/services/{quote(self.service)}", limits).json()
        try:
            found = _Service(said["ID"], int(said["Version"]["Index"]), said["Spec"])
            if "Replicated" not in found.spec["Mode"]:
                raise PlatformError(
                    f"{self.service} is no replicated service, so its tasks are not for us to count: register another "
                    "service, or choose platform advisory."
                )
            if not isinstance(found.replicas, int) or not isinstance(found.container, dict):
                raise TypeError
        except (KeyError, TypeError, ValueError):
            raise self._no_docker() from None
        return found

    def _found(self, task: Mapping[str, Any]) -> Found | None:
        """A task with its container; None for one that has none (yet)."""
        try:
            status = task["Status"]
            container = status.get("ContainerStatus", {}).get("ContainerID", "")
            image = str(task["Spec"]["ContainerSpec"].get("Image", ""))
            started = datetime.fromisoformat(status["Timestamp"])
            address = self._address(task.get("NetworksAttachments") or ())
        except (KeyError, TypeError, ValueError, AttributeError):
            raise self._no_docker() from None
        if not container or (self.port and not address):
            return None
        return Found(
            name=str(container)[:SHORT_ID],
            ready=status.get("State") == "running",  # where it has a health check, only once that succeeds
            version=self.image.version_in(image) if self.image else Template.tag_in(image),
            url=f"http://{address}:{self.port}" if self.port else "",
            started_at=started,
        )

    def _address(self, attachments: Sequence[Mapping[str, Any]]) -> str:
        for item in attachments:
            if self.network and item["Network"]["Spec"]["Name"] == self.network:
                for address in item.get("Addresses") or ():
                    number = str(address).partition("/")[0]
                    return f"[{number}]" if ":" in number else number
        return ""

    def _asked(self, method: str, path: str, limits: Limits, body: bytes = b"") -> Answer:
        headers = {"Content-Type": "application/json"} if body else {}
        answer = call(method, self.base + path, headers, body, limits=limits, again=_again, route=self.route)
        if answer.ok:
            return answer
        said = words(answer.json().get("message"), self.secret).rstrip(".")
        if answer.status == 409 or _OUT_OF_SEQUENCE in said:
            raise _Stale
        status = f"HTTP {answer.status}{f', {said}' if said else ''}"
        name = "Docker" if self.route.socket else host(self.base)
        if _again(answer):
            raise PlatformUnavailable(f"{name} is in trouble ({status}): look at its log, then try again.")
        if _NO_MANAGER in said:
            raise PlatformError(f"{name} is no manager of a swarm ({status}): set host to one that is.")
        remedies = {
            403: "allow services, tasks and POST in what stands before it",
            404: f"check the name of service {self.service}, and that host is a Docker engine",
        }
        raise PlatformError(f"{name} refused ({status}): {remedies.get(answer.status, 'look at its log')}.")

    def _no_docker(self) -> PlatformError:
        name = "Docker" if self.route.socket else host(self.base)
        return PlatformError(f"{name} gave no answer of a Docker engine: check host in the platform settings.")


_OUT_OF_SEQUENCE = "out of sequence"  # what the engine says, with status 500 or another, of a version that has moved
_NO_MANAGER = "not a swarm manager"  # with status 503


@dataclass(slots=True)
class _Service:
    """A service as it was read; what `spec` holds is written back."""

    id: str
    version: int
    spec: dict[str, Any]

    @property
    def mode(self) -> dict[str, Any]:
        found: dict[str, Any] = self.spec["Mode"]["Replicated"]
        return found

    @property
    def replicas(self) -> int:
        found: int = self.mode.get("Replicas", 1)
        return found

    @property
    def container(self) -> dict[str, Any]:
        found: dict[str, Any] = self.spec["TaskTemplate"]["ContainerSpec"]
        return found


def _again(answer: Answer) -> bool:
    said = answer.json().get("message")
    return overloaded(answer) and not (isinstance(said, str) and (_OUT_OF_SEQUENCE in said or _NO_MANAGER in said))


def _route(address: str, ca: str, secret: str) -> Route:
    if address.startswith("unix:"):
        return Route(socket=urlsplit(address).path)
    if not ca and not secret:
        return Route()
    if len(secret) > LONGEST_SECRET:
        raise SettingsInvalid(f"The platform secret has more than {LONGEST_SECRET} characters.", field=SECRET)
    try:
        return Route(tls=tls_context(ca, secret))
    except (ssl.SSLError, ValueError, OSError):
        raise SettingsInvalid(
            "Platform docker: ca must be the PEM text of an authority, and the platform secret that of a client "
            "certificate followed by its key; enter the secret with `workload set --secret-file`, for a browser drops "
            "the ends of its lines.",
            field=SECRET if secret else SETTINGS,
        ) from None


def _wrong(problem: str) -> SettingsInvalid:
    return SettingsInvalid(f"Platform docker: {problem}.", field=SETTINGS)
