"""Deletes what is old enough: raw checks of 24 hours ago, and the history of 90 days ago."""

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

from django.db import models

from apps.core.models import StopSwitch
from apps.health import rules
from apps.health.models import HealthHourly, RolledHour, UtilisationMinute
from apps.health.raw import SOURCES

ROWS_OF_ONE_DELETION = 5_000  # about; a transaction of some 50 ms


def delete_old(now: datetime, *, in_time: Callable[[], bool] = lambda: True) -> int:
    """Delete raw rows of hours that ended 24 hours ago and have been summed up, and hours and minutes of 90 days ago.

    Gives how many rows. Ends early when its time is up or the stop switch is on, before the next few thousand.
    """
    deleted = 0
    for rows in _old(now):
        if not in_time() or StopSwitch.objects.filter(on=True).exists():
            break
        deleted += rows.delete()[0]
    return deleted


def _old(now: datetime) -> Iterator[models.QuerySet[Any]]:
    """What may go, oldest first, in portions. Each is meant to be deleted before the next is asked for."""
    for source in SOURCES:
        rolled = set(RolledHour.objects.filter(kind=source.kind).values_list("hour", flat=True))
        for hour in source.hours(before=rules.hour_of(now - rules.RAW_KEPT)):
            if hour in rolled:
                yield from _portions(source.model, source.at, hour)
    before = rules.hour_of(now - rules.HISTORY_KEPT)
    for model, at in ((HealthHourly, "hour"), (RolledHour, "hour"), (UtilisationMinute, "minute")):
        while (first := model.objects.order_by(at).values_list(at, flat=True).first()) is not None and first < before:
            yield from _portions(model, at, rules.hour_of(first))


def _portions(model: type[models.Model], at: str, hour: datetime) -> Iterator[models.QuerySet[Any]]:
    """The rows of an hour, in equal parts of its time that have a few thousand rows each."""
    rows = model._default_manager.order_by()
    count = rows.filter(**{f"{at}__gte": hour, f"{at}__lt": hour + rules.HOUR}).count()
    parts = -(-count // ROWS_OF_ONE_DELETION)
    for part in range(parts):
        start, end = hour + rules.HOUR * part / parts, hour + rules.HOUR * (part + 1) / parts
        yield rows.filter(**{f"{at}__gte": start, f"{at}__lt": end})
