"""How builds develop: the newest ones of each service and environment, drawn as bars."""

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median

from django.db.models import QuerySet

from apps.builds.choices import BuildStatus
from apps.builds.models import Build

READ, DRAWN, SHOWN = 300, 30, 4  # builds read, builds of one trend, trends of one page
HEIGHT, STEP, WIDTH = 48, 10, 8  # of the drawing; a bar and the gap beside it
LEAST = 3  # height of a bar that stands for no time or a short one


@dataclass(frozen=True, slots=True)
class Bar:
    build: Build
    x: int
    height: int

    @property
    def y(self) -> int:
        return HEIGHT - self.height


@dataclass(frozen=True, slots=True)
class Trend:
    """Oldest first, as one reads."""

    title: str
    bars: tuple[Bar, ...]
    over: int
    succeeded: int
    median_time: float | None  # seconds, of successful builds
    newest_size: int | None  # bytes
    growth: float | None  # of the bundle, from the oldest build that has a size; 0.1 is ten percent more

    @property
    def growth_percent(self) -> str | None:
        return None if self.growth is None else f"{100 * self.growth:+.1f}"

    @property
    def width(self) -> int:
        return len(self.bars) * STEP


def trends(builds: QuerySet[Build]) -> list[Trend]:
    """The trends of the newest builds; what was built last comes first."""
    groups: dict[str, list[Build]] = {}
    rows = builds.select_related("service").defer("error_log").order_by("-created_at", "-pk")
    for build in rows[:READ]:
        groups.setdefault(f"{build.service} / {build.get_environment_display()}", []).append(build)
    return [_trend(title, group[:DRAWN]) for title, group in list(groups.items())[:SHOWN]]


def _trend(title: str, newest_first: list[Build]) -> Trend:
    builds = newest_first[::-1]
    longest = max((build.build_time or 0 for build in builds), default=0) or 1
    over = [build for build in builds if build.over and build.build_status != BuildStatus.CANCELLED]
    good = [build for build in over if build.deployable]
    sizes = [build.bundle_size for build in good if build.bundle_size is not None]
    return Trend(
        title=title,
        bars=tuple(
            Bar(build, number * STEP, max(LEAST, round(HEIGHT * (build.build_time or 0) / longest)))
            for number, build in enumerate(builds)
        ),
        over=len(over),
        succeeded=len(good),
        median_time=_median(build.build_time for build in good if build.build_time is not None),
        newest_size=sizes[-1] if sizes else None,
        growth=sizes[-1] / sizes[0] - 1 if len(sizes) > 1 and sizes[0] else None,
    )


def _median(values: Iterable[float]) -> float | None:
    known = list(values)
    return median(known) if known else None
