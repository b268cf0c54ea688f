"""How an operation is declared, and what every request passes before its view is asked.

In this order, the cheap and the deciding first: token, scope, rate, size and type of the body, its JSON, unknown
parameters; then validation (django-ninja), the view, and, for a write with an Idempotency-Key, the stored answer.
"""

import hashlib
from collections.abc import Callable
from functools import wraps
from typing import IO, Any

from django.http import HttpRequest, HttpResponse
from ninja import Router
from ninja.decorators import decorate_view
from ninja.parser import Parser

from apps.api import access, bodies, idempotency, refusals, rules
from apps.api.models import ApiToken
from apps.api.schemas import Problem
from apps.core.audit import Actor

Run = Callable[..., HttpResponse]

READ_FAULTS = frozenset({401, 403, 404, 422, 429, 500, 503})
WRITE_FAULTS = READ_FAULTS | {400, 409, 411, 413, 415}

_KEY_PARAMETER = {
    "in": "header",
    "name": idempotency.HEADER,
    "required": False,
    "schema": {"type": "string", "minLength": 1, "maxLength": rules.MAX_KEY, "pattern": "^[!-~]+$"},
    "description": "The same key and request within 24 hours get the same answer, and the work is done once.",
}


class ApiRequest(HttpRequest):
    """What a view is given: a request whose token is known and whose body has been read."""

    token: ApiToken
    json: Any
    upload: IO[bytes]


class BodyParser(Parser):
    """Hands django-ninja the JSON that has been read already."""

    def parse_body(self, request: ApiRequest) -> Any:  # type: ignore[override]  # a request that came through `_guarded`
        return request.json


def actor(request: ApiRequest) -> Actor:
    """Who asks, for services and the audit trail."""
    return Actor.token(request.token.name)


class Endpoints(Router):
    """A router whose operations name the scope they take."""

    def read(
        self, path: str, *, scope: str, answer: Any, types: tuple[str, ...] = ()
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """A GET. With `types` the view answers by itself, with a file of one of them, and `answer` is None."""
        return self._operation("GET", path, scope=scope, answers={200: answer}, faults=READ_FAULTS, files=types)

    def write(
        self,
        method: str,
        path: str,
        *,
        scope: str,
        answers: dict[int, Any],
        limit: int = bodies.LIMIT,
        types: tuple[str, ...] = bodies.JSON_TYPES,
        keyed: bool = True,
        repeatable: bool = False,
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """A POST, PATCH or DELETE. `limit`: bytes of its body. With `types` other than JSON the view reads `upload`.

        Not `keyed`: it stores nothing, so sent again it is done again, and no transaction is held while it waits.
        `repeatable`: done again it changes nothing, so with a key no transaction is held while it reads and works.
        """
        return self._operation(
            method,
            path,
            scope=scope,
            answers=answers,
            faults=WRITE_FAULTS,
            limit=limit,
            types=types,
            keyed=keyed,
            repeatable=repeatable,
        )

    def _operation(
        self,
        method: str,
        path: str,
        *,
        scope: str,
        answers: dict[int, Any],
        faults: frozenset[int],
        limit: int = 0,
        types: tuple[str, ...] = (),
        files: tuple[str, ...] = (),
        keyed: bool = True,
        repeatable: bool = False,
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        described: dict[str, Any] = {"parameters": [_KEY_PARAMETER]} if limit and keyed else {}
        if files:
            content: dict[str, Any] = {name: {"schema": {}} for name in files}
            described["responses"] = {200: {"description": "A file", "content": content}}
        if types and types != bodies.JSON_TYPES:
            content = {name: {"schema": {"type": "string", "format": "binary"}} for name in types}
            described["requestBody"] = {"content": content, "required": True}

        def register(view: Callable[..., Any]) -> Callable[..., Any]:
            gate = _Gate(view, scope, limit=limit, types=types, keyed=keyed, repeatable=repeatable)
            declared = self.api_operation(
                [method],
                path,
                operation_id=view.__name__,
                by_alias=True,
                response={**answers, **dict.fromkeys(sorted(faults), Problem)},
                auth=access.Bearer(),
                openapi_extra={**described, "x-scope": scope},
            )(decorate_view(gate.around)(view))
            gate.learn(declared._ninja_operation)
            return declared

        return register


class _Gate:
    """Stands before one operation."""

    def __init__(
        self,
        view: Callable[..., Any],
        scope: str,
        *,
        limit: int,
        types: tuple[str, ...],
        keyed: bool,
        repeatable: bool,
    ) -> None:
        self._view, self._scope, self._limit, self._types, self._keyed = view, scope, limit, types, keyed
        self._repeatable = repeatable
        self._parameters: frozenset[str] = frozenset()
        self._takes_json = False

    def learn(self, operation: Any) -> None:
        """What the operation takes, as django-ninja has read it from the view's signature."""
        for model in operation.models:
            if model.__ninja_param_source__ == "query":
                self._parameters |= frozenset(model.__ninja_flatten_map__)
            elif model.__ninja_param_source__ == "body":
                self._takes_json = True

    def around(self, run: Run) -> Run:
        """The operation with everything that comes first."""

        @wraps(run)
        def guarded(request: ApiRequest, **path: Any) -> HttpResponse:
            try:
                request.token = access.authenticate(request)
                access.require(request.token, self._scope)
                access.count(request.token)
                self._check_parameters(request)
                if not self._limit:
                    return run(request, **path)
                digest = self._read_body(request)
                if not self._keyed:
                    return run(request, **path)
                return idempotency.once(
                    request, request.token, digest, lambda: run(request, **path), repeatable=self._repeatable
                )
            except Exception as error:  # The last stop: whatever it is, a program is told so in the one shape.
                return refusals.answer(error)
            finally:
                if upload := getattr(request, "upload", None):
                    upload.close()

        return guarded

    def _check_parameters(self, request: HttpRequest) -> None:
        for name, values in request.GET.lists():
            if name not in self._parameters:
                known = ", ".join(sorted(self._parameters)) or "none"
                raise refusals.Refused(422, f"A parameter is unknown here; known are: {known}.", errors=[])
            if len(values) > 1:
                raise refusals.Refused(
                    422,
                    f"{name} is given twice.",
                    errors=[{"field": name, "message": "Give it once."}],
                )
            if rules.unstorable(values[0]):
                raise refusals.Refused(
                    422,
                    f"{name} holds a NUL character.",
                    errors=[{"field": name, "message": "Leave out NUL characters."}],
                )

    def _read_body(self, request: ApiRequest) -> str:
        """Read and check the body; its digest."""
        if self._types and self._types != bodies.JSON_TYPES:
            bodies.check_type(request, self._types)
            request.upload = bodies.spool(request, self._limit)
            digest = hashlib.file_digest(request.upload, "sha256").hexdigest()  # type: ignore[arg-type]  # IO[bytes] will do
            request.upload.seek(0)
            request._body = b""  # consumed: django-ninja and Django must not read it again
            return digest
        body = bodies.read(request, self._limit)
        # Django would read a body in chunks as empty; what was read here is the body from now on.
        request._body = body
        if self._takes_json and body:
            bodies.check_type(request, self._types)
            request.json = rules.parse_json(body)
        return hashlib.sha256(body).hexdigest()
