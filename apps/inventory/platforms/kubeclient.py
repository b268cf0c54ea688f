"""The few requests to a Kubernetes API server, made by lightkube and carried by our own transport.

Imported only where it is used: lightkube takes 0.3 s and 25 MB, which most processes of most installations never need.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import httpx2
import msgspec
from lightkube import Client, KubeConfig, operators
from lightkube.config.models import Cluster, User
from lightkube.models.autoscaling_v1 import ScaleSpec
from lightkube.models.core_v1 import Container
from lightkube.models.meta_v1 import LabelSelector, ObjectMeta
from lightkube.resources.apps_v1 import Deployment, StatefulSet
from lightkube.resources.core_v1 import Pod

from apps.inventory.platforms.base import PlatformError, PlatformUnavailable
from apps.inventory.platforms.kubeconfig import Access
from apps.inventory.platforms.transport import Answer, Limits, call, host, overloaded, words

Workload = Deployment | StatefulSet
KINDS: dict[str, type[Deployment] | type[StatefulSet]] = {"Deployment": Deployment, "StatefulSet": StatefulSet}
CHUNK = 100  # pods in one answer: 20 kB each, where at most 4 MB of an answer are read
MOST_PODS = 2000  # that are listed; more than the 1,000 instances a policy may have


class Stale(Exception):
    """The object has changed since it was read."""


class API:
    """One namespace of a cluster. Every method raises PlatformUnavailable or PlatformError."""

    def __init__(self, access: Access, namespace: str, limits: Limits) -> None:
        self.host = host(access.server)
        # lightkube would load all authorities for a connection of its own (60 ms), which it never makes: the carrier
        # below has the context that certificates are verified with.
        cluster = Cluster(server=access.server, insecure=True)
        config = KubeConfig.from_one(cluster=cluster, user=User(token=access.token or None))
        self._client = Client(
            config=config.get(),
            namespace=namespace,
            field_manager="pulsewatch",
            trust_env=False,
            transport=_Carrier(access, limits),
        )

    def read(self, kind: str, name: str) -> Workload:
        """The Deployment or StatefulSet."""
        found: Workload = self._client.get(KINDS[kind], name)
        return found

    def scale(self, kind: str, name: str, *, to: int, revision: str) -> None:
        """Set the replicas of what was read at this revision. Raises Stale when it has changed since."""
        order = KINDS[kind].Scale(
            metadata=ObjectMeta(name=name, namespace=self._client.namespace, resourceVersion=revision or None),
            spec=ScaleSpec(replicas=to),
        )
        self._client.replace(order, name)

    def set_image(self, kind: str, name: str, *, container: str, image: str, revision: str) -> None:
        """Roll out another image in what was read at this revision. Raises Stale when it has changed since."""
        order = {
            "metadata": {"resourceVersion": revision},
            "spec": {"template": {"spec": {"containers": [{"name": container, "image": image}]}}},
        }
        self._client.patch(KINDS[kind], name, order)

    def pods(self, labels: Mapping[str, Any]) -> Iterator[Pod]:
        """Those with these labels, as far as we read."""
        for place, pod in enumerate(self._client.list(Pod, labels=dict(labels), chunk_size=CHUNK)):
            if place == MOST_PODS:
                return
            yield pod


def labels_of(selector: LabelSelector | None) -> dict[str, Any]:
    """A workload's own selector in lightkube's form."""
    if selector is None:
        return {}
    found: dict[str, Any] = dict(selector.matchLabels or {})
    for rule in selector.matchExpressions or []:
        values = rule.values or []
        found[rule.key] = {
            "In": operators.in_(values),
            "NotIn": operators.not_in(values),
            "Exists": operators.exists(),
            "DoesNotExist": operators.not_exists(),
        }[rule.operator]
    return found


def containers_of(workload: Workload) -> list[Container]:
    """What a pod of it runs."""
    spec = workload.spec.template.spec if workload.spec else None
    return list(spec.containers) if spec else []


class _Carrier(httpx2.BaseTransport):
    """Carries lightkube's requests: bounded in time and size, without proxies, and refusals become sentences."""

    def __init__(self, access: Access, limits: Limits) -> None:
        self._access = access
        self._limits = limits

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        headers = {name: request.headers[name] for name in ("accept", "authorization", "content-type")
                   if name in request.headers}  # fmt: skip
        answer = call(
            request.method,
            str(request.url),
            headers,
            request.read(),
            limits=self._limits,
            again=overloaded,
            route=self._access.route,
        )
        if answer.status == 409:
            raise Stale
        if not answer.ok:
            raise self._refusal(answer)
        return httpx2.Response(answer.status, headers={"Content-Type": "application/json"}, content=answer.body)

    def _refusal(self, answer: Answer) -> PlatformError:
        name = host(self._access.server)
        said = words(answer.json().get("message"), self._access.token).rstrip(".")
        status = f"HTTP {answer.status}{f', {said}' if said else ''}"
        if overloaded(answer):
            patience = "asks for patience" if answer.status == 429 else "is in trouble"
            return PlatformUnavailable(f"{name} {patience} ({status}): look at the cluster, then try again.")
        remedies = {
            401: "it does not know us; enter a new token or kubeconfig as the platform secret",
            403: "give Pulsewatch's account the role in docs/platforms.md",
            404: "correct namespace, kind and name in the platform settings",
            422: "correct the platform settings",
        }
        remedy = remedies.get(answer.status, "check that this is the address of a Kubernetes API server")
        return PlatformError(f"{name} refused ({status}): {remedy}.")


# What lightkube raises when an answer is not what it should be; all else comes from the carrier.
NOT_KUBERNETES = (msgspec.MsgspecError, httpx2.HTTPError, UnicodeDecodeError)
