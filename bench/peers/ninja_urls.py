"""A bare django-ninja endpoint: it validates a body, inserts one row in a transaction and shows it."""

from datetime import datetime

from django.db import transaction
from django.http import HttpRequest
from django.urls import path
from ninja import NinjaAPI, Schema
from ninja.responses import Status

from bench.peers.models import Deployed

api = NinjaAPI()


class Given(Schema):
    service: str
    environment: str
    version: str
    commit_sha: str
    commit_message: str
    triggered_by: str
    github_run_id: str


class Shown(Given):
    id: int
    status: str
    started_at: datetime


@api.post("/deployments", response={201: Shown})
def insert(request: HttpRequest, body: Given) -> Status[Deployed]:
    with transaction.atomic():
        return Status(201, Deployed.objects.create(**body.dict()))


urlpatterns = [path("api/v1/", api.urls)]
