"""A Kubernetes API server on this machine, as far as Pulsewatch uses one: a Deployment, its scale, its pods.

https://kubernetes.io/docs/reference/using-api/api-concepts/: every change moves the resourceVersion, and so does the
status; an update that names another one is answered with 409.
"""

import re
from dataclasses import dataclass, field
from typing import Any

from tests.inventory.platforms.plays import Asked, HTTPPlay
from tests.inventory.platforms.stands import SECRET

NAMESPACE, NAME = "shop", "web"
_WORKLOAD = re.compile(r"/apis/apps/v1/namespaces/([^/]+)/(deployments|statefulsets)/([^/]+?)(/scale)?")
_PODS = re.compile(r"/api/v1/namespaces/([^/]+)/pods")
_VERBS = {"GET": "get", "PUT": "update", "PATCH": "patch"}


def status(code: int, reason: str, message: str) -> tuple[int, Any]:
    """How the API server says no."""
    return code, {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message,
                  "reason": reason, "code": code}  # fmt: skip


def pod(name: str, *, ready: bool = True, ip: str | None = "10.1.0.7", phase: str = "Running",
        image: str = "registry.example.com/shop:v1.4.2", labels: dict[str, str] | None = None,
        ending: bool = False) -> dict[str, Any]:  # fmt: skip
    """A pod as the API server describes it."""
    found: dict[str, Any] = {
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": labels or {"app": "shop"}},
        "spec": {"containers": [{"name": "web", "image": image}, {"name": "sidecar", "image": "envoy:1.30"}]},
        "status": {
            "phase": phase,
            "startTime": "2026-03-02T10:00:00Z",
            "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
        },
    }
    if ip:
        found["status"]["podIP"] = ip
    if ending:
        found["metadata"]["deletionTimestamp"] = "2026-03-02T11:00:00Z"
    return found


@dataclass
class Cluster(HTTPPlay):
    plural: str = "deployments"
    revision: int = 100
    ready: int | None = 2
    containers: list[dict[str, Any]] = field(default_factory=list)
    pods: list[dict[str, Any]] = field(default_factory=list)
    selector: dict[str, Any] = field(default_factory=lambda: {"matchLabels": {"app": "shop"}})
    restless: int = 0  # so many changes meet somebody else's
    verbs: set[tuple[str, str, str]] = field(default_factory=set)  # group, resource, verb, as in a role

    def starts_over(self, running: int = 2) -> None:
        super().starts_over(running)
        self.ready, self.restless = running, 0
        self.containers = [{"name": "web", "image": "registry.example.com/shop:v1.4.2"},
                           {"name": "sidecar", "image": "envoy:1.30"}]  # fmt: skip
        self.selector = {"matchLabels": {"app": "shop"}}
        self.pods = []

    def complaint(self, code: int) -> Any:
        return status(code, "Forbidden", f"no {SECRET}")[1]

    def answer(self, asked: Asked) -> tuple[int, Any]:
        if asked.headers.get("authorization") != f"Bearer {SECRET}":
            return status(401, "Unauthorized", "Unauthorized")
        if found := _PODS.fullmatch(asked.path):
            self.verbs.add(("", "pods", "list"))
            return 200, self._listed(asked.query)
        found = _WORKLOAD.fullmatch(asked.path)
        if not found or (found[1], found[2], found[3]) != (NAMESPACE, self.plural, NAME):
            return status(404, "NotFound", f'deployments.apps "{asked.path.rpartition("/")[2]}" not found')
        self.verbs.add(("apps", f"{self.plural}{found[4] or ''}", _VERBS[asked.method]))
        if asked.method == "GET" and not found[4]:
            return 200, self._workload()
        order = asked.json()
        if self.restless:
            self.restless -= 1
            self.revision += 1
        if order["metadata"].get("resourceVersion") not in (None, str(self.revision)):
            return status(409, "Conflict", "the object has been modified; please apply your changes to the latest")
        self.revision += 1
        if asked.method == "PUT" and found[4]:
            assert (order["apiVersion"], order["kind"]) == ("autoscaling/v1", "Scale")
            self.running = order["spec"]["replicas"]
            self.wishes.append(self.running)
            return 200, {**order, "metadata": {"name": NAME, "resourceVersion": str(self.revision)}}
        if asked.method == "PATCH" and not found[4]:
            assert asked.headers["content-type"] == "application/strategic-merge-patch+json"
            for changed in order["spec"]["template"]["spec"]["containers"]:
                known = [item for item in self.containers if item["name"] == changed["name"]]
                known[0].update(changed) if known else self.containers.append(changed)
            return 200, self._workload()
        return status(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")

    def _workload(self) -> Any:
        return {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": NAME, "namespace": NAMESPACE, "resourceVersion": str(self.revision)},
            "spec": {
                "replicas": self.running,
                "selector": self.selector,
                "template": {"metadata": {}, "spec": {"containers": self.containers}},
            },
            "status": {"replicas": self.running} | ({"readyReplicas": self.ready} if self.ready else {}),
        }

    def _listed(self, query: dict[str, str]) -> Any:
        """A page of the pods whose labels are as asked for; equality only."""
        wanted = dict(pair.split("=") for pair in query["labelSelector"].split(",") if re.fullmatch(r"[^ !]+=.+", pair))
        found = [item for item in self.pods if wanted.items() <= item["metadata"]["labels"].items()]
        start, limit = int(query.get("continue", "0")), int(query["limit"])
        more = {"continue": str(start + limit)} if len(found) > start + limit else {}
        return {"kind": "PodList", "apiVersion": "v1", "metadata": {"resourceVersion": "7", **more},
                "items": found[start : start + limit]}  # fmt: skip
