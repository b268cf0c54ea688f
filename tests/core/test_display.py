"""Sizes, durations and badges in the words of the console."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.core.display import badge, share, size, span


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (None, "-"),
        (0, "0 B"),
        (999, "999 B"),
        (999_499, "999 kB"),
        (999_950, "1 MB"),
        (1000, "1 kB"),
        (380_220_118, "380 MB"),
        (1_250_113_482, "1.25 GB"),
        (2_500_000_000_000, "2.50 TB"),
    ],
)
def test_sizes_are_decimal(count, shown):
    assert size(count) == shown


@pytest.mark.parametrize(
    ("length", "shown"),
    [
        (None, "-"),
        (0.4, "0.4 s"),
        (9.96, "10 s"),
        (59.6, "1 min"),
        (61.5, "1 min 2 s"),
        (3600, "1 h"),
        (3601, "1 h"),
        (7500, "2 h 5 min"),
        (timedelta(days=3, hours=4, minutes=59), "3 d 4 h"),
    ],
)
def test_durations_have_at_most_two_units(length, shown):
    assert span(length) == shown


@given(st.floats(0, 1e9))
def test_every_duration_can_be_said(seconds):
    assert 1 <= len(span(seconds).split()) // 2 <= 2
    assert len(span(seconds, units=1).split()) == 2


@given(st.integers(0, 10**18))
def test_every_size_can_be_said(count):
    number, unit = size(count).split()

    assert unit in ("B", "kB", "MB", "GB", "TB")
    assert "e" not in number


def test_a_small_share_keeps_its_digits():
    assert (share(0.3041), share(0.00147), share(None)) == ("30 %", "0.15 %", "")


def test_a_badge_escapes_what_it_says():
    assert "<b>" not in badge("<b>", "danger", '"><b>')
