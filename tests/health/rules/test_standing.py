"""When a workload is unhealthy."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from apps.health.rules.standing import Seen, Trouble, trouble

NOW = datetime(2026, 3, 2, 3, 0, tzinfo=UTC)
LONG_AGO = NOW - timedelta(days=1)


def seen(name: str, statuses: str, *, read: bool = True, last: float = 0, since: datetime = LONG_AGO) -> Seen:
    """An instance by the first letters of its statuses, a minute apart; the newest was `last` minutes ago."""
    words = {"u": "unhealthy", "h": "healthy", "d": "degraded", "?": "unknown"}
    count = len(statuses)
    samples = [(NOW - timedelta(minutes=last + count - 1 - n), words[s]) for n, s in enumerate(statuses)]
    return Seen(name, read, since, samples)


def test_three_bad_samples_in_a_row_and_no_fewer():
    assert trouble([seen("a", "huu")], NOW) is None
    assert trouble([seen("a", "huuu")], NOW) == Trouble(("a",), (), 1, grave=True)
    assert trouble([seen("a", "uuud")], NOW) is None
    assert trouble([], NOW) is None


def test_an_unknown_sample_neither_opens_nor_closes():
    assert trouble([seen("a", "uu?")], NOW) is None
    assert trouble([seen("a", "uuu??")], NOW) == Trouble(("a",), (), 1, grave=True)
    assert trouble([seen("a", "???")], NOW) is None


def test_one_of_many_is_less_grave_than_half_of_them():
    well = [seen(f"w{n}", "hhh") for n in range(3)]
    assert trouble([*well, seen("a", "uuu")], NOW) == Trouble(("a",), (), 4, grave=False)
    assert trouble([*well[:1], seen("a", "uuu")], NOW).grave


def test_an_instance_we_read_is_missed_after_four_minutes():
    assert trouble([seen("a", "h", last=4)], NOW) is None
    assert trouble([seen("a", "h", last=5)], NOW) == Trouble((), ("a",), 1, grave=True)
    assert trouble([seen("a", "", since=NOW - timedelta(minutes=3))], NOW) is None
    assert trouble([seen("a", "")], NOW) == Trouble((), ("a",), 1, grave=True)


def test_one_that_pushes_may_have_been_replaced_and_is_missed_only_when_all_are_silent():
    old, new = seen("pod-1", "", read=False), seen("pod-2", "hh", read=False)
    assert trouble([old, new], NOW) is None
    assert trouble([old], NOW) == Trouble((), ("pod-1",), 1, grave=True)
    assert trouble([old], NOW, at_work=False) is None  # we were away, and with us what takes samples


words = st.text(alphabet="uhd?", max_size=8)


@given(st.lists(st.tuples(words, st.booleans(), st.integers(0, 20)), max_size=6), st.booleans())
def test_no_trouble_without_somebody_who_is_in_it(rows, at_work):
    instances = [seen(str(n), w, read=read, last=last) for n, (w, read, last) in enumerate(rows)]
    found = trouble(instances, NOW, at_work=at_work)
    if found is not None:
        assert found.unhealthy or found.silent
        assert len(set(found.unhealthy) | set(found.silent)) <= found.expected
