"""The page of DORA's figures: what each workload's deployments say of how it is delivered."""

from dataclasses import dataclass
from typing import Any

from django.contrib.admin import ModelAdmin
from django.core.cache import cache
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils import timezone

from apps.core.choices import Environment
from apps.core.display import span
from apps.deployments import figures
from apps.deployments.models import Deployment
from apps.deployments.rules import dora

SHOWN = 100  # workloads on the page; the API has them all
KEPT = 60  # seconds: the figures are of months
_MOST_PRECIOUS_FIRST = (Environment.PRODUCTION, Environment.STAGING, Environment.DEVELOPMENT)
HEIGHT, STEP, WIDTH = 48, 12, 10  # of the drawing of the weeks; a bar and the gap beside it


@dataclass(frozen=True, slots=True)
class Bar:
    """One week: what went well below, what failed on top of it."""

    x: int
    good: int  # heights
    bad: int
    text: str

    @property
    def good_y(self) -> int:
        return HEIGHT - self.good

    @property
    def bad_y(self) -> int:
        return HEIGHT - self.good - self.bad


def page(admin: ModelAdmin, request: HttpRequest) -> HttpResponse:
    """Deployment frequency, lead time, change failure rate and time to restore of each workload."""
    if not admin.has_view_permission(request):
        raise PermissionDenied
    context = {
        **admin.admin_site.each_context(request),
        "opts": admin.opts,
        "title": "DORA",
        "windows": dora.WINDOWS,
        "longest": max(dora.WINDOWS),
        **_measured(),
    }
    return TemplateResponse(request, "admin/deployments/dora.html", context)


def _measured() -> dict[str, Any]:
    """What the page shows, in plain values: it is the same for everybody who may see it."""
    newest = Deployment.objects.newest_first().values_list("pk", flat=True).first()
    key = f"deployments:dora:{newest}"  # what begins is shown at once
    kept: dict[str, Any] | None = cache.get(key)
    if kept is not None:
        return kept
    now = timezone.now()
    rows = list(figures.deployed().order_by("service__slug")[: SHOWN + 1])
    found = figures.trends(rows[:SHOWN], now=now)
    fresh = {
        "measured_at": f"{now:%H:%M}",
        "more": len(rows) > SHOWN,
        "environments": [
            {"name": environment.label, "workloads": [_card(one) for one in found if _in(one, environment)]}
            for environment in _MOST_PRECIOUS_FIRST
            if any(_in(one, environment) for one in found)
        ],
    }
    cache.set(key, fresh, timeout=KEPT)
    return fresh


def _in(one: figures.Trend, environment: Environment) -> bool:
    return one.workload.environment == environment


def _card(one: figures.Trend) -> dict[str, Any]:
    most = max((week.deployments for week in one.weeks), default=0)
    return {
        "workload": str(one.workload),
        "environment": one.workload.environment,
        "service": str(one.workload.service),
        "service_id": one.workload.service_id,
        "lines": (
            {"what": "Deployment frequency", "values": [_frequency(found) for found in one.windows]},
            {"what": "Lead time, median", "values": [_lead_time(found) for found in one.windows]},
            {"what": "Change failure rate", "values": [_failure_rate(found) for found in one.windows]},
            {"what": "Time to restore, median", "values": [_restore(found) for found in one.windows]},
        ),
        "empty": not one.windows[-1].deployments,
        "bars": [_bar(number, week, most) for number, week in enumerate(one.weeks)] if most else [],
        "width": STEP * len(one.weeks),
        "height": HEIGHT,
        "bar_width": WIDTH,
        "most": most,
    }


def _bar(number: int, week: dora.Week, most: int) -> Bar:
    bad = round(HEIGHT * week.failed / most)
    whole = round(HEIGHT * week.deployments / most)
    text = f"7 days from {week.since:%Y-%m-%d}: {week.deployments} deployments, {week.failed} failed"
    return Bar(number * STEP, whole - bad, bad, text)


def _frequency(found: dora.Figures) -> tuple[str, str]:
    """The figure, and what it is made of."""
    good = found.deployments - found.failed
    if not good:
        return "-", "none succeeded"
    a_week = 7 * found.per_day
    text = f"{found.per_day:.1f} a day" if found.per_day >= 1 else f"{a_week:.1f} a week"
    return text, f"{good} in {found.days} days"


def _lead_time(found: dora.Figures) -> tuple[str, str]:
    if found.lead_time_seconds is None:
        return "-", "send committed_at" if found.deployments else "nothing to measure"
    return span(found.lead_time_seconds), "commit to completed"


def _failure_rate(found: dora.Figures) -> tuple[str, str]:
    if found.change_failure_rate is None:
        return "-", "nothing to measure"
    return f"{100 * found.change_failure_rate:.1f} %", f"{found.failed} of {found.deployments}"


def _restore(found: dora.Figures) -> tuple[str, str]:
    if found.time_to_restore_seconds is None:
        return "-", "not restored yet" if found.failed else "nothing failed"
    return span(found.time_to_restore_seconds), "failure to next success"
