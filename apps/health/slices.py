"""Who checks which shard in which minute. A slice belongs to whoever makes its row, or adopts it from one who died."""

import secrets
from collections.abc import Sequence
from datetime import datetime, timedelta

from django.db import IntegrityError, transaction

from apps.core import heartbeats
from apps.core.choices import HeartbeatSource
from apps.health.models import ProbeSlice
from apps.health.rules import schedule

BEAT_SECONDS = 10.0  # between two signs of life of a holder
DEAD_AFTER = timedelta(seconds=25)  # without one: two were missed, and the slice is anybody's
KEPT = timedelta(hours=1)
AHEAD = timedelta(minutes=2)  # a slice further ahead than this was made before the clock was set back


def new_holder() -> str:
    """A name nobody ever had."""
    return secrets.token_hex(16)


def claim(shard: int, shards: int, minute: datetime, now: datetime, *, holder: str = "") -> ProbeSlice | None:
    """Take a slice; None when somebody has it who lives. A holder who did not hear the answer may ask again."""
    ProbeSlice.objects.filter(starts_at__gt=now + AHEAD).delete()
    taken = ProbeSlice(shard=shard, shards=shards, starts_at=minute, holder=holder or new_holder(), beat_at=now)
    earlier = previous(taken)
    # A suspicion of ourselves goes on from slice to slice, but not over a time in which nobody looked.
    taken.suspicious = earlier is not None and earlier.suspicious and span(earlier)[1] >= span(taken)[0]
    try:
        with transaction.atomic():
            taken.save(force_insert=True)
    except IntegrityError:
        found = ProbeSlice.objects.filter(shard=shard, starts_at=minute).first()
        if found and found.holder == holder:
            return found
        return _adopt(found, now) if found and _dead(found, now) else None
    ProbeSlice.objects.filter(starts_at__lt=now - KEPT).delete()
    return taken


def previous(taken: ProbeSlice) -> ProbeSlice | None:
    """The slice of the same shard before this one, however long ago."""
    earlier = ProbeSlice.objects.filter(shard=taken.shard, shards=taken.shards, starts_at__lt=taken.starts_at)
    return earlier.order_by("-starts_at").first()


def beat(held: Sequence[ProbeSlice], now: datetime, *, suspicious: bool, storing: bool = True) -> list[ProbeSlice]:
    """Say that the holder lives; the slices that are still his.

    It is a sign of life of the prober as a whole too, unless what it finds cannot be stored.
    """
    mine = [one for one in held if _his(one).update(beat_at=now, suspicious=suspicious)]
    if mine and storing:
        heartbeats.beat(HeartbeatSource.PROBER, now)
    return mine


def finish(held: Sequence[ProbeSlice], now: datetime, *, suspicious: bool) -> None:
    """All of their checks are stored."""
    if sum(_his(one).update(finished_at=now, suspicious=suspicious) for one in held):
        heartbeats.beat(HeartbeatSource.PROBER, now)


def adopt_abandoned(now: datetime) -> list[ProbeSlice]:
    """Take over what lies there because its holder died."""
    lying = ProbeSlice.objects.filter(finished_at=None, beat_at__lt=now - DEAD_AFTER, starts_at__gt=now - KEPT)
    return [one for found in lying if (one := _adopt(found, now)) is not None]


def _dead(one: ProbeSlice, now: datetime) -> bool:
    return one.finished_at is None and one.beat_at < now - DEAD_AFTER


def _adopt(found: ProbeSlice, now: datetime) -> ProbeSlice | None:
    holder = new_holder()
    # The sign of life is compared too: he may have given one since we looked.
    if not _his(found).filter(finished_at=None, beat_at=found.beat_at).update(holder=holder, beat_at=now):
        return None  # or another one was faster
    found.holder = holder
    return found


def _his(one: ProbeSlice):  # type: ignore[no-untyped-def]  # a QuerySet
    return ProbeSlice.objects.filter(pk=one.pk, holder=one.holder)


def span(one: ProbeSlice) -> tuple[datetime, datetime]:
    """From when to when its checks are."""
    return schedule.window(one.starts_at)


def gap(taken: ProbeSlice) -> tuple[datetime, datetime] | None:
    """The time before a slice that no slice of its shard covers, at most as long as missed checks are recorded."""
    earlier = previous(taken)
    start, _ = span(taken)
    if earlier is None or span(earlier)[1] >= start:
        return None
    return max(span(earlier)[1], start - schedule.MISSED_KEPT), start
