"""What holds for every operation there is, and for each one that is added."""

import re

import pytest

from apps.api import bodies
from apps.api.choices import Scope
from apps.api.models import ApiToken
from apps.api.services import revoke_token
from apps.api.v1 import api as described
from apps.core.audit import Actor
from tests.api.test_builds import problem_of

OPERATIONS = [
    (method.upper(), re.sub(r"\{[^}]+\}", "some", path.removeprefix("/api/v1")), operation)
    for path, operations in described.get_openapi_schema(path_prefix="/api/v1")["paths"].items()
    for method, operation in operations.items()
]
EVERY = pytest.mark.parametrize(
    ("method", "path", "operation"), OPERATIONS, ids=[operation["operationId"] for _, _, operation in OPERATIONS]
)
JSON_BODIES = [
    each for each in OPERATIONS if [*each[2].get("requestBody", {}).get("content", {})] == ["application/json"]
]
EVERY_BODY = pytest.mark.parametrize(
    ("method", "path", "operation"), JSON_BODIES, ids=[operation["operationId"] for _, _, operation in JSON_BODIES]
)


@EVERY
def test_it_takes_its_scope_and_a_living_token(holder, method, path, operation):
    scope = operation["x-scope"]
    noun = scope.partition(":")[0]
    others = holder(*(each for each in Scope.values if each.partition(":")[0] != noun))
    assert problem_of(others.send(method, path, {}), 403)["scope"] == scope
    if scope.endswith(":write"):
        problem_of(holder(f"{noun}:read").send(method, path, {}), 403)

    revoke_token(token=ApiToken.objects.get(name="test-1"), actor=Actor.automation("test"))

    assert "revoked" in problem_of(others.send(method, path, {}), 401)["detail"]


@EVERY_BODY
def test_it_reads_no_other_body_than_clean_json(api, method, path, operation):
    problem_of(api.send(method, path, b'{"a": 1}', Content_Type="text/plain"), 415)
    problem_of(api.send(method, path, b'{"a": 1}', Content_Encoding="gzip"), 415)
    for broken in (b"{", b'{"a": 1, "a": 2}', b'{"a": NaN}', b'{"a": "\\u0000"}', b"[" * 100_000, b"\xff"):
        problem_of(api.send(method, path, broken), 400)
    for other in (b"[]", b"null", b'"some"', b""):
        problem_of(api.send(method, path, other), 422)
    if operation["operationId"] != "push_health_checks":  # which takes 10,000 samples
        problem_of(api.send(method, path, b" " * (bodies.LIMIT + 1)), 413)
