"""Deployments through the API on MariaDB: how fast they begin, and how fast pages of a million are read."""

import json
from contextlib import ExitStack
from functools import partial
from itertools import count

from bench.measure import Report, interleaved
from bench.peers.models import Deployed
from bench.serving import posts_per_second
from tests.serving import Served, served

# A creation takes its workload's change lock, so each goes to another workload.
WORKLOADS = 30_000
ROOM = 4_000  # of them for one run: more than it can make use of
BODY = {
    "service": "bench-@",
    "environment": "production",
    "version": "v1.2.3",
    "commit_sha": "a1b2c3d4e5f60718293a4b5c6d7e8f9012345678",
    "commit_message": "Count every attempt",
    "triggered_by": "octocat",
    "github_run_id": "7123456789",
}


def creations(report: Report, token: str) -> None:
    """Deployments of distinct workloads against rows of a bare endpoint: one insert, in one transaction."""
    _prepare()
    body, runs = json.dumps(BODY), count()
    with ExitStack() as stack:
        ours = stack.enter_context(served(API_RATE_LIMIT="10000000"))
        contenders = {
            "ours": lambda: posts_per_second(_url(ours), body, token=token, first=next(runs) * ROOM),
            **{
                name: partial(posts_per_second, _url(_peer(stack, module)), body, token=token)
                for name, module in (("bare", "bench.peers.settings"), ("barest", "bench.peers.bare_settings"))
            },
        }
        speed = interleaved(contenders)
    report.figure("deployments created", speed["ours"], "/s")
    report.figure("rows inserted by a bare django-ninja endpoint in an ordinary project", speed["bare"], "/s")
    report.figure("the same in a project without any middleware", speed["barest"], "/s")
    report.ratio("creating a deployment ÷ a bare endpoint's insert", speed["ours"] / speed["bare"], at_least=0.3)
    report.figure("the same against the one without middleware", speed["ours"] / speed["barest"] * 100, "%")


def _peer(stack: ExitStack, module: str) -> Served:
    return stack.enter_context(served("bench.peers.wsgi", path="/", DJANGO_SETTINGS_MODULE=module))


def _url(server: Served) -> str:
    return f"{server.base}/api/v1/deployments"


def _prepare() -> None:
    """The peers' table, and the workloads."""
    from django.db import connection

    from apps.core.choices import Environment
    from apps.inventory.models import Service, Workload

    with connection.schema_editor() as editor:
        editor.create_model(Deployed)
    Service.objects.bulk_create(
        (Service(slug=f"bench-{number}", name=f"Bench {number}") for number in range(WORKLOADS)), batch_size=5000
    )
    Workload.objects.bulk_create(
        (
            Workload(service=service, environment=Environment.PRODUCTION, base_url="https://app.example.com")
            for service in Service.objects.filter(slug__startswith="bench-")
        ),
        batch_size=5000,
    )
