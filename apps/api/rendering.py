"""How answers are written: times in UTC with all their digits, and no character that HTML would take for markup."""

import json
from datetime import UTC, datetime
from typing import Any

from django.http import HttpRequest
from ninja.renderers import JSONRenderer
from ninja.responses import NinjaJSONEncoder

from apps.core.problems import harmless


class _Encoder(NinjaJSONEncoder):
    def default(self, o: Any) -> Any:
        if isinstance(o, datetime):
            return o.astimezone(UTC).isoformat().replace("+00:00", "Z")
        return super().default(o)


class Renderer(JSONRenderer):
    """JSON."""

    def render(self, request: HttpRequest, data: Any, *, response_status: int) -> str:
        return harmless(json.dumps(data, cls=_Encoder))
