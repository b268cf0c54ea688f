"""A Deployment or StatefulSet on Kubernetes: its replicas, its pods, its image.

Replicas go through the scale subresource and the image through a patch; both carry the revision that was read, so that
a change somebody else made meanwhile is never overwritten. docs/platforms.md holds the role they need.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Self

from apps.inventory.platforms import kubeconfig
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
from apps.inventory.platforms.fields import LONGEST_SECRET, SECRET, SETTINGS, Fields, token
from apps.inventory.platforms.images import Template
from apps.inventory.platforms.kubeconfig import Access
from apps.inventory.platforms.transport import LIMITS, QUICK, Limits, origin

if TYPE_CHECKING:
    from lightkube.resources.core_v1 import Pod

    from apps.inventory.platforms.kubeclient import API

TRIES = 3  # a Deployment's revision moves with its status too: read again and try again so often
DEPLOYMENT, STATEFUL_SET = "Deployment", "StatefulSet"
_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_NAME = (rf"(?=.{{1,253}}$){_LABEL}(\.{_LABEL})*", "a name of Kubernetes: lower-case letters, digits, - and .")
_SELECTOR = (r"[\w./-]{1,317}=[\w.-]{0,63}(,[\w./-]{1,317}=[\w.-]{0,63}){0,9}", "labels such as app=shop,tier=web")


@dataclass(frozen=True, slots=True)
class Kubernetes:
    repeatable: ClassVar[bool] = True  # the same image once more changes nothing

    namespace: str
    kind: str
    name: str
    container: str  # empty: the only one of its pods
    selector: Mapping[str, str]  # of its pods; empty: the workload's own
    image: Template | None  # None: it rolls out nothing
    port: int  # of its pods, where they are read; 0: they push their samples
    access: Access | None  # None: the account of the pod we run in
    secret: str = field(repr=False)
    limits: Limits = LIMITS
    scale_limits: Limits = QUICK
    unit: str = "pod"

    @classmethod
    def made(cls, settings: Mapping[str, Any], secret: str) -> Self:
        given = Fields("kubernetes", settings)
        namespace = given.text("namespace", _LABEL, "the name of a namespace")
        kind = given.text("kind", f"{DEPLOYMENT}|{STATEFUL_SET}", f"{DEPLOYMENT} or {STATEFUL_SET}", DEPLOYMENT)
        name = given.text("name", *_NAME)
        container = given.optional("container", _LABEL, "the name of a container")
        selector = given.optional("selector", *_SELECTOR)
        image = given.optional("image", *Template.PATTERN)
        port = given.number("port", 0, 65535)
        context = given.optional("context", r".{1,200}", "the name of a context")
        server = given.url("server", "https://kubernetes.default.svc")
        ca = given.optional("ca", r"(?s).{1,20000}", "the PEM text of the API server's authority")
        given.done()
        return cls(
            namespace,
            kind,
            name,
            container,
            dict(pair.split("=", 1) for pair in selector.split(",")) if selector else {},
            Template(image) if image else None,
            port,
            _access(secret, context, server if "server" in settings else "", ca),
            secret,
        )

    @staticmethod
    def destination(settings: Mapping[str, Any]) -> str:
        """A kubeconfig names it itself."""
        return origin(str(settings["server"])) if "server" in settings else ""

    def count(self) -> Count:
        with self._api(self.scale_limits) as api:
            found = api.read(self.kind, self.name)
            if found.spec is None or found.metadata is None:
                raise _no_kubernetes(api)
            # Absent means one to Kubernetes, and an absent number of ready pods none.
            desired = 1 if found.spec.replicas is None else found.spec.replicas
            ready = (found.status.readyReplicas if found.status else 0) or 0
            return Count(desired, ready, found.metadata.resourceVersion or "")

    def scale(self, to: int, *, seen: Count) -> None:
        with self._api(self.scale_limits) as api:
            from apps.inventory.platforms.kubeclient import Stale

            revision = seen.revision
            for _ in range(TRIES):
                with suppress(Stale):
                    if revision:  # without one it would overwrite whatever is there
                        api.scale(self.kind, self.name, to=to, revision=revision)
                        return
                now = self.count()
                if now.desired == to:
                    return
                if now.desired != seen.desired:
                    raise CountChanged(
                        f"Somebody else changed the replicas of {self} from {seen.desired} to {now.desired} meanwhile."
                    )
                revision = now.revision
        raise self._restless()

    def instances(self) -> Sequence[Found]:
        with self._api(self.scale_limits) as api:
            from apps.inventory.platforms.kubeclient import labels_of

            labels: Mapping[str, Any] = self.selector
            if not labels:
                spec = api.read(self.kind, self.name).spec
                labels = labels_of(spec.selector) if spec else {}
            if not labels:
                raise _no_kubernetes(api)  # without labels it would be every pod of the namespace
            return [found for pod in api.pods(labels) if (found := self._found(pod)) is not None]

    def roll_out(self, release: Release) -> Receipt:
        if self.image is None:
            return Receipt(
                False,
                f"Nothing was changed, because the platform settings name no image: deploy version {release.version} "
                f'yourself, or set "image" to something like "registry.example.com/{release.service}:{{version}}".',
            )
        image = self.image.of(release)
        with self._api(self.limits) as api:
            from apps.inventory.platforms.kubeclient import Stale, containers_of

            for _ in range(TRIES):
                found = api.read(self.kind, self.name)
                container, running = self._container({item.name: item.image for item in containers_of(found)})
                if running == image:
                    return Receipt(True, f"{self} is set to image {image} already.")
                revision = (found.metadata.resourceVersion if found.metadata else "") or ""
                try:
                    api.set_image(self.kind, self.name, container=container, image=image, revision=revision)
                except Stale:
                    continue
                return Receipt(True, f"{self} was set to image {image} for the {release.kind} to {release.version}.")
        raise self._restless()

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"

    @contextmanager
    def _api(self, limits: Limits) -> Iterator["API"]:
        from apps.inventory.platforms.kubeclient import API, NOT_KUBERNETES

        api = API(self.access or kubeconfig.from_pod(), self.namespace, limits)
        try:
            yield api
        except NOT_KUBERNETES as error:
            raise _no_kubernetes(api) from error

    def _container(self, images: Mapping[str, str | None]) -> tuple[str, str]:
        """The container whose image is the version, and that image: to patch another name would add a container."""
        name = self.container or (next(iter(images)) if len(images) == 1 else "")
        if name not in images:
            names = ", ".join(images) or "none"
            raise PlatformError(
                f"{self} has no container {name!r}: set container in the platform settings to one of {names}."
                if name
                else f"{self} has several containers: set container in the platform settings to one of {names}."
            )
        return name, images[name] or ""

    def _found(self, pod: "Pod") -> Found | None:
        """A pod that runs; None for one that has ended, is being ended, or has no address yet."""
        meta, status = pod.metadata, pod.status
        if meta is None or status is None or not meta.name or not status.podIP:
            return None
        if meta.deletionTimestamp is not None or status.phase in ("Succeeded", "Failed"):
            return None
        images = {item.name: item.image or "" for item in (pod.spec.containers if pod.spec else [])}
        image = images.get(self.container, "") if self.container else next(iter(images.values()), "")
        ready = any(item.type == "Ready" and item.status == "True" for item in status.conditions or [])
        address = f"[{status.podIP}]" if ":" in status.podIP else status.podIP
        return Found(
            name=meta.name,
            ready=ready,
            version=self.image.version_in(image) if self.image else Template.tag_in(image),
            url=f"http://{address}:{self.port}" if self.port else "",
            started_at=status.startTime,
        )

    def _restless(self) -> PlatformError:
        return PlatformUnavailable(
            f"{self} was changed by somebody else each of the {TRIES} times it was to be changed: try again later."
        )


def _access(secret: str, context: str, server: str, ca: str) -> Access | None:
    """What the secret gives us; None when there is none. Raises SettingsInvalid."""
    if len(secret) > LONGEST_SECRET:
        raise SettingsInvalid(f"The kubeconfig has more than {LONGEST_SECRET} characters.", field=SECRET)
    if kubeconfig.is_kubeconfig(secret):
        if server or ca:
            raise _unused("server and ca belong to a token: the kubeconfig names them itself")
        return kubeconfig.from_kubeconfig(secret, context)
    if context:
        raise _unused("context belongs to a kubeconfig, and the platform secret is none")
    if secret:
        if not server:
            raise _unused("setting server is required with a token: the address of the API server")
        return kubeconfig.from_token(server, ca, token("kubernetes", secret))
    if server or ca:
        raise SettingsInvalid(
            "Platform kubernetes needs a token for its server: enter it as the workload's platform secret, or remove "
            "server and ca to use the account of the pod that Pulsewatch's worker runs in.",
            field=SECRET,
        )
    return None


def _unused(problem: str) -> SettingsInvalid:
    return SettingsInvalid(f"Platform kubernetes: {problem}.", field=SETTINGS)


def _no_kubernetes(api: "API") -> PlatformError:
    return PlatformError(f"{api.host} gave no answer of a Kubernetes API: check the address of the API server.")
