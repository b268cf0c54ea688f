"""Readable identifiers such as `health_20251020_143100_7f3k9q2m4x8z`: what, when (UTC), and a random suffix."""

import os
import random
import string
from datetime import UTC, datetime

ALPHABET = string.digits + string.ascii_lowercase
# 36**12 = 4.7e18: at ten million rows in one second the chance of one collision is below 1 in 90,000.
SUFFIX_LENGTH = 12

_system_random = random.SystemRandom()
# For thousands of identifiers at once, which must differ and need not be secret: six times as fast as the system's.
# Forked processes would go on with the same numbers, so each begins anew.
fast = random.Random()  # noqa: S311
os.register_at_fork(after_in_child=fast.seed)


def suffix(length: int = SUFFIX_LENGTH, *, source: random.Random = _system_random) -> str:
    """`length` random characters of 0-9a-z."""
    return "".join(source.choices(ALPHABET, k=length))


def in_order(at: datetime, number: int = 0) -> str:
    """Four characters that sort as moments within a second do; `number` of them later when the first is taken."""
    value = at.microsecond + number
    digits = []
    for _ in range(4):  # 36**4 = 1.7 million
        value, digit = divmod(value, 36)
        digits.append(ALPHABET[digit])
    return "".join(reversed(digits))


def timestamped(prefix: str, at: datetime) -> str:
    """`prefix_YYYYMMDD_HHMMSS` in UTC. `at` must be aware."""
    if at.tzinfo is None:
        raise ValueError("a time without a zone names no moment; pass an aware datetime")
    return f"{prefix}_{at.astimezone(UTC):%Y%m%d_%H%M%S}"
