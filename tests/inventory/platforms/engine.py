"""A Docker engine on this machine, as far as Pulsewatch uses one: a service of a swarm, and its tasks.

https://docs.docker.com/reference/api/engine/: an update names the version it was read at, and one that has moved is
refused with status 500.
"""

from dataclasses import dataclass, field
from typing import Any

from tests.inventory.platforms.plays import Asked, HTTPPlay

SERVICE, SERVICE_ID = "web", "c2j15271k1texdqnlpj0ke2g8"


def task(container: str, *, state: str = "running", image: str = "shop:v1.4.2", network: str = "ops") -> dict[str, Any]:
    """A task as the engine describes it."""
    return {
        "ID": f"task-{container[:4]}",
        "Spec": {"ContainerSpec": {"Image": image}},
        "ServiceID": SERVICE_ID,
        "Status": {
            "Timestamp": "2026-03-02T10:00:00.719331582Z",
            "State": state,
            "ContainerStatus": {"ContainerID": container} if container else {},
        },
        "DesiredState": "running",
        "NetworksAttachments": [
            {"Network": {"Spec": {"Name": "ingress"}}, "Addresses": ["10.0.0.9/24"]},
            {"Network": {"Spec": {"Name": network}}, "Addresses": ["10.0.7.4/24"]},
        ],
    }


@dataclass
class Engine(HTTPPlay):
    version: int = 100
    restless: int = 0  # so many changes meet somebody else's
    spec: dict[str, Any] = field(default_factory=dict)
    tasks: list[dict[str, Any]] = field(default_factory=list)

    @property
    def running(self) -> int:
        return self.spec["Mode"]["Replicated"]["Replicas"]

    @running.setter
    def running(self, count: int) -> None:
        self.spec = {
            "Name": SERVICE,
            "Labels": {"team": "shop"},
            "TaskTemplate": {
                "ContainerSpec": {"Image": "shop:v1.4.3", "Env": ["A=b"], "Isolation": "default"},
                "ForceUpdate": 7,
                "SomethingNew": {"kept": True},
            },
            "Mode": {"Replicated": {"Replicas": count}},
        }

    def starts_over(self, running: int = 2) -> None:
        super().starts_over(running)
        self.restless, self.tasks = 0, []

    def answer(self, asked: Asked) -> tuple[int, Any]:
        if asked.path == "/tasks":
            return 200, self.tasks
        if asked.path not in (f"/services/{SERVICE}", f"/services/{SERVICE_ID}/update"):
            return 404, {"message": f"service {asked.path.split('/')[2]} not found"}
        if asked.method == "GET":
            return 200, {"ID": SERVICE_ID, "Version": {"Index": self.version}, "Spec": self.spec}
        if self.restless:
            self.restless -= 1
            self.version += 1
        if asked.query["version"] != str(self.version):
            return 500, {"message": "rpc error: code = Unknown desc = update out of sequence"}
        self.version += 1
        before, self.spec = self.running, asked.json()
        if self.running != before:
            self.wishes.append(self.running)
        return 200, {"Warnings": None}
