"""Charts: what was measured is drawn where it belongs, and nothing where nothing was."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.core.charts import BAD, GOOD, HEIGHT, UNKNOWN, WARNING, WIDTH, Axis, Moment, Period, Sample, draw, lasting

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
DAY = Axis(NOON - timedelta(hours=24), NOON)
MINUTE = timedelta(minutes=1)

states = st.sampled_from([GOOD, UNKNOWN, WARNING, BAD])
minutes = st.integers(-200, 1700)


@st.composite
def samples(draw_from):
    at = DAY.start + draw_from(minutes) * MINUTE
    value = draw_from(st.none() | st.floats(0, 1e7))
    return Sample(at, at + draw_from(st.integers(1, 300)) * MINUTE, draw_from(states), value)


@given(st.lists(samples(), max_size=30))
def test_strips_lie_in_the_drawing_beside_each_other_and_show_every_state_seen(found):
    chart = draw(DAY, lanes=[("checks", found)], curve=found)
    (lane,) = chart.lanes

    for run, following in zip(lane.runs, lane.runs[1:], strict=False):
        assert run.x + run.width <= following.x
        assert run.x + run.width < following.x or run.state != following.state
    assert all(0 <= run.x < run.x + run.width <= WIDTH for run in lane.runs)
    inside = [row for row in found if row.until > DAY.start and row.at < DAY.end]
    assert bool(lane.runs) == bool(inside)
    if any(row.state == BAD for row in inside):
        assert any(run.state == BAD for run in lane.runs)
    assert chart.empty == (not inside)
    assert (chart.curve is not None) == any(row.value is not None for row in inside)


def test_where_nothing_was_measured_the_strip_and_the_curve_have_a_gap():
    morning = Sample(DAY.start, DAY.start + timedelta(hours=6), GOOD, 100)
    evening = Sample(DAY.start + timedelta(hours=12), DAY.end, GOOD, 200)

    chart = draw(DAY, lanes=[("checks", [morning, evening])], curve=[morning, evening])

    assert [(run.x, run.width) for run in chart.lanes[0].runs] == [(0, 180), (360, 360)]
    assert chart.curve.path.count("M") == 2
    assert chart.curve.path.startswith(f"M0 {HEIGHT / 2}H1")
    assert chart.lanes[0].runs[0].text == "healthy 28 Feb 12:00 to 28 Feb 18:00"


def test_a_column_shows_the_worst_state_and_the_highest_value_of_its_time():
    at = DAY.start + timedelta(hours=1)
    found = [Sample(at, at + MINUTE, GOOD, 900), Sample(at, at + MINUTE, BAD, 30), Sample(at, at + MINUTE, WARNING)]

    chart = draw(DAY, lanes=[("checks", found)], curve=found)

    assert [run.state for run in chart.lanes[0].runs] == [BAD]
    assert chart.curve.path == "M30 12.0H31"
    assert [tick.text for tick in chart.curve.ticks] == ["0", "500 ms", "1 s"]


@pytest.mark.parametrize(
    ("highest", "scale"), [(0.0, "1 ms"), (3, "5 ms"), (999, "1 s"), (1001, "2 s"), (40_000, "50 s")]
)
def test_the_scale_ends_at_a_round_figure(highest, scale):
    chart = draw(DAY, lanes=[], curve=[Sample(DAY.start, DAY.end, GOOD, highest)])

    assert chart.curve.ticks[-1].text == scale


def test_periods_are_cut_at_the_edges_and_moments_outside_are_left_out():
    hour = timedelta(hours=1)
    chart = draw(
        DAY,
        lanes=[],
        periods=[
            Period(DAY.start - hour, DAY.start + hour, "over midnight"),
            Period(DAY.end + hour, DAY.end + 2 * hour, "later"),
        ],
        moments=[
            Moment(DAY.start + 6 * hour, "deployment", "v1.2.3", "/somewhere/"),
            Moment(DAY.end - hour, "note", "DNS"),
            Moment(DAY.start - hour, "note", "before"),
        ],
    )

    assert [(shade.x, shade.width, shade.text) for shade in chart.shades] == [(0, 30, "over midnight")]
    assert [(mark.percent, mark.text, mark.url) for mark in chart.marks] == [
        (25, "v1.2.3", "/somewhere/"),
        (pytest.approx(95.83, 0.01), "DNS", ""),
    ]
    assert chart.kinds == ("deployment", "note")
    assert chart.empty


@pytest.mark.parametrize(
    ("length", "words"),
    [
        (timedelta(hours=24), ["16:00", "20:00", "00:00", "04:00", "08:00"]),
        (timedelta(days=90), ["17 Dec", "01 Jan", "16 Jan", "31 Jan", "15 Feb"]),
    ],
)
def test_the_axis_names_full_hours_or_days(length, words):
    assert [tick.text for tick in Axis(NOON - length, NOON).ticks()] == words


def test_an_observation_speaks_until_the_next_one_unless_some_are_missing():
    times = [NOON, NOON + MINUTE, NOON + 3 * MINUTE, NOON + 10 * MINUTE]

    ends = lasting(times, every=MINUTE)

    assert ends == [NOON + MINUTE, NOON + 3 * MINUTE, NOON + 4 * MINUTE, NOON + 11 * MINUTE]
    assert lasting([], every=MINUTE) == []
