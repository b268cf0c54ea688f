"""Schedules, retries, retention and odd sizes."""

from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.backups import rules
from apps.backups.rules import BadSchedule, Facts, Kept, Standing

BERLIN = "Europe/Berlin"


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def test_after_days_away_the_newest_slot_runs_and_not_all_older_ones_are_recorded():
    now = datetime(2026, 3, 8, 12, 0, 30, tzinfo=UTC)

    owed = rules.due("* * * * *", "UTC", last=now - timedelta(days=6), now=now)

    assert owed.run == now.replace(second=0)
    assert len(owed.missed) == rules.SLOTS_AT_ONCE - 1


def test_a_first_backup_is_expected_to_take_what_two_small_cores_take():
    assert (rules.expected_seconds(0), rules.expected_seconds(1_000_000_000)) == (1, 20)


def test_one_slot_is_due_once_its_time_has_come():
    owed = rules.due("0 2 * * *", "UTC", last=utc("2026-03-01T02:00"), now=utc("2026-03-02T02:00"))

    assert (owed.run, owed.missed) == (utc("2026-03-02T02:00"), ())
    assert rules.due("0 2 * * *", "UTC", last=owed.run, now=utc("2026-03-02T23:59")).run is None


def test_of_several_missed_slots_only_the_newest_runs_and_keeps_its_time():
    owed = rules.due("0 2 * * *", "UTC", last=utc("2026-03-01T02:00"), now=utc("2026-03-04T09:30"))

    assert owed.run == utc("2026-03-04T02:00")
    assert owed.missed == (utc("2026-03-02T02:00"), utc("2026-03-03T02:00"))


def test_a_clock_that_jumped_back_owes_nothing():
    assert rules.due("0 2 * * *", "UTC", last=utc("2026-03-05T02:00"), now=utc("2026-03-02T09:00")).run is None


def test_a_long_absence_is_not_recorded_slot_by_slot_for_ever():
    owed = rules.due("0 * * * *", "UTC", last=utc("2020-01-01T00:00"), now=utc("2026-03-01T00:30"))

    assert len(owed.missed) == 7 * 24 - 1


def test_a_time_that_daylight_saving_skips_runs_at_the_next_minute_there_is():
    owed = rules.due("30 2 * * *", BERLIN, last=utc("2026-03-28T12:00"), now=utc("2026-03-29T12:00"))

    assert (owed.run, owed.missed) == (utc("2026-03-29T01:00"), ())  # 03:00 in Berlin


def test_a_time_that_daylight_saving_repeats_runs_once():
    owed = rules.due("30 2 * * *", BERLIN, last=utc("2026-10-24T12:00"), now=utc("2026-10-25T12:00"))

    assert (owed.run, owed.missed) == (utc("2026-10-25T00:30"), ())


@given(
    st.datetimes(datetime(2025, 1, 1), datetime(2027, 12, 31)),
    st.integers(1, 400),
    st.sampled_from(["0 2 * * *", "30 2 * * *", "0 */6 * * *", "15 3 * * 0"]),
    st.sampled_from(["UTC", BERLIN, "America/New_York", "Australia/Lord_Howe"]),
)
def test_ticking_every_hour_owes_the_same_slots_as_looking_once(start, hours, cron, zone):
    start = start.replace(tzinfo=UTC)
    end = start + timedelta(hours=min(hours, 24 * 7 - 1))
    whole = rules.due(cron, zone, last=start, now=end)
    once = [*whole.missed, *([whole.run] if whole.run else [])]

    last, ticked, now = start, [], start
    while now < end:
        now = min(now + timedelta(hours=1), end)
        owed = rules.due(cron, zone, last=last, now=now)
        ticked += [*owed.missed, *([owed.run] if owed.run else [])]
        last = owed.run or last

    assert ticked == once
    assert len(set(once)) == len(once)


@pytest.mark.parametrize("text", ["", "0 2 * *", "0 25 * * *", "often", "0 0 31 2 *", "* * * * * * *"])
def test_a_wrong_cron_expression_is_explained(text):
    with pytest.raises(BadSchedule):
        rules.check_cron(text)


@pytest.mark.parametrize("name", ["", "Berlin", "Europe/Berlinn", "../etc/passwd", "\0"])
def test_a_wrong_time_zone_is_explained(name):
    with pytest.raises(BadSchedule, match="IANA"):
        rules.zone(name)


@pytest.mark.parametrize(
    ("month", "slot"),
    [
        (date(2026, 1, 1), "2026-01-25T04:00"),
        (date(2026, 2, 1), "2026-02-22T04:00"),
        (date(2026, 5, 1), "2026-05-31T04:00"),
        (date(2026, 12, 1), "2026-12-27T04:00"),
    ],
)
def test_the_drill_is_on_the_last_sunday_of_the_month(month, slot):
    assert rules.drill_slot(month, "UTC") == utc(slot)


def test_the_drill_keeps_local_time_on_the_sunday_clocks_change():
    assert rules.drill_slot(date(2026, 3, 1), BERLIN) == utc("2026-03-29T02:00")
    assert rules.drill_slot(date(2026, 10, 1), BERLIN) == utc("2026-10-25T03:00")


def test_a_drill_is_due_once_also_when_the_month_has_turned():
    slot = utc("2026-05-31T04:00")

    assert rules.drill_due("UTC", last=slot - timedelta(days=30), now=slot) == slot
    assert rules.drill_due("UTC", last=slot, now=slot + timedelta(hours=1)) is None
    assert rules.drill_due("UTC", last=slot - timedelta(days=30), now=utc("2026-06-02T00:00")) == slot
    assert rules.drill_due("UTC", last=slot - timedelta(days=30), now=slot - timedelta(seconds=1)) is None


def test_a_backup_is_tried_four_times_five_minutes_apart():
    now = utc("2026-03-01T02:00")

    assert [rules.next_attempt(n, now) for n in range(5)] == [utc("2026-03-01T02:05")] * 3 + [None, None]


@pytest.mark.parametrize(
    ("start", "months", "end"),
    [
        ("2026-01-31T02:00", 1, "2026-02-28T02:00"),
        ("2027-12-31T02:00", 2, "2028-02-29T02:00"),
        ("2026-03-01T02:00", 12, "2027-03-01T02:00"),
    ],
)
def test_months_are_calendar_months(start, months, end):
    assert rules.add_months(utc(start), months) == utc(end)


def test_archives_are_kept_for_months_and_others_for_days():
    start = utc("2026-03-01T02:00")

    assert rules.expires_at(start, archive=True, days=30, months=12) == utc("2027-03-01T02:00")
    assert rules.expires_at(start, archive=False, days=30, months=12) == utc("2026-03-31T02:00")


kept = st.builds(
    Kept,
    expires_at=st.datetimes(datetime(2025, 1, 1), datetime(2027, 1, 1)).map(lambda moment: moment.replace(tzinfo=UTC)),
    verified=st.booleans(),
    newest_verified=st.booleans(),
    legal_hold=st.booleans(),
    deleted=st.booleans(),
)


@given(kept)
def test_retention_never_takes_the_newest_verified_backup_or_one_on_hold(backup):
    now = utc("2026-03-01T00:00")

    allowed = rules.may_delete(backup, now)

    assert not (allowed and (backup.newest_verified or backup.legal_hold or backup.deleted))
    assert not (allowed and backup.expires_at > now)


@pytest.mark.parametrize(("size", "odd"), [(100, False), (199, False), (201, True), (51, False), (49, True), (0, True)])
def test_a_size_is_odd_beyond_twice_or_half_the_median(size, odd):
    assert bool(rules.odd_size(size, [100, 90, 110, 100, 5000])) == odd


def test_with_few_backups_no_size_is_odd():
    assert rules.odd_size(1, [1000] * 4) == ""
    assert rules.odd_size(1, [0] * 5) == ""


@given(
    st.dictionaries(st.text(max_size=5), st.text(max_size=5)), st.dictionaries(st.text(max_size=5), st.text(max_size=5))
)
def test_the_first_difference_is_empty_only_for_equal_content(before, after):
    named = rules.first_difference(before, after)

    assert (before == after) == (named == "" and before.get("") == after.get(""))


@pytest.mark.parametrize(("size", "shown"), [(None, None), (0, 0), (1, 1), (1_000_000, 1), (1_000_001, 2)])
def test_megabytes_round_up(size, shown):
    assert rules.megabytes(size) == shown


NOON = utc("2026-03-02T12:00")
TODAY = utc("2026-03-02T02:00:20")


@pytest.mark.parametrize(
    ("changed", "standing"),
    [
        ({}, Standing.PROVEN),
        ({"drill_equal": None}, Standing.UNDRILLED),
        ({"drill_equal": False}, Standing.DRILL_FAILED),
        ({"verified_at": None}, Standing.NEVER),
        ({"failed_at": utc("2026-03-02T11:00")}, Standing.FAILED),
        ({"failed_at": utc("2026-03-01T11:00")}, Standing.PROVEN),
        ({"verified_at": utc("2026-03-01T02:00:20")}, Standing.OVERDUE),
        ({"verified_at": utc("2026-01-01T02:00:20"), "cron": None}, Standing.PAUSED),
        ({"drill_equal": False, "cron": None}, Standing.DRILL_FAILED),
    ],
)
def test_a_database_is_called_by_the_worst_that_is_true_of_it(changed, standing):
    facts = {
        "verified_at": TODAY,
        "failed_at": None,
        "drill_equal": True,
        "registered_at": utc("2026-01-01T00:00"),
        "cron": "0 2 * * *",
    }

    assert rules.standing(Facts(**facts | changed), NOON) == standing


@given(st.datetimes(datetime(2026, 1, 1), datetime(2026, 12, 31)), st.integers(0, 10_000), st.booleans())
def test_a_backup_is_owed_from_an_hour_after_its_slot_until_one_is_verified(moment, minutes, verified):
    then = moment.replace(tzinfo=UTC)
    facts = Facts(
        verified_at=then if verified else None, failed_at=None, drill_equal=None, registered_at=then, cron="0 2 * * *"
    )
    now = then + timedelta(minutes=minutes)
    owed = rules.owed_since(facts, now)
    slot = rules.next_slot("0 2 * * *", "UTC", then)

    assert (owed == slot) if now >= slot + rules.OVERDUE_AFTER else (owed is None)
