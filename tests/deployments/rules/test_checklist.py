"""Which items of a checklist refuse."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.core.errors import Invalid
from apps.deployments.rules import checklist
from apps.deployments.rules.checklist import AFTER, BEFORE, FAILED, ITEMS, NOT_APPLICABLE, OPEN, PASSED, Standing

standings = st.lists(
    st.builds(
        Standing,
        st.sampled_from(sorted(ITEMS)),
        st.sampled_from([OPEN, PASSED, FAILED, NOT_APPLICABLE]),
        detail=st.just("why"),
        overridden=st.booleans(),
    ),
    unique_by=lambda standing: standing.key,
)
phases = st.sampled_from([BEFORE, AFTER])


@given(standings, phases, st.booleans(), st.sets(st.sampled_from(sorted(ITEMS))))
def test_an_item_refuses_exactly_when_it_blocks_failed_and_is_not_overridden(found, phase, strict, also):
    refused = checklist.blockers(found, phase=phase, strict=strict, also=also)

    by_key = {standing.key: standing for standing in found}
    expected = []
    for item in ITEMS.values():
        standing = by_key.get(item.key, Standing(item.key, OPEN))
        wrong = standing.state == FAILED or (strict and standing.state == OPEN)
        if item.phase == phase and (item.blocking or item.key in also) and wrong and not standing.overridden:
            expected.append(item.title)
    assert [sentence.partition(":")[0] for sentence in refused] == expected


@given(standings, phases)
def test_what_was_overridden_or_is_not_blocking_never_refuses(found, phase):
    overridden = [Standing(row.key, row.state, overridden=True) for row in found]
    assert checklist.blockers(overridden, phase=phase) == ()


@pytest.mark.parametrize(
    ("key", "state"), [("none", PASSED), ("health_passing", PASSED), ("database_safe", PASSED), ("chart_valid", OPEN)]
)
def test_ci_reports_only_what_is_its_to_say(key, state):
    with pytest.raises(Invalid) as caught:
        checklist.check_reported(key, state)
    assert caught.value.field == "checklist"


@given(st.sampled_from([item for item in ITEMS.values() if item.reported]), st.sampled_from(checklist.REPORTABLE))
def test_ci_reports_how_its_items_went(item, state):
    assert checklist.check_reported(item.key, state) is item


@given(
    st.sampled_from(list(ITEMS.values())),
    st.sampled_from(["queued", "in_progress", "completed", "failed", "cancelled", "rolled_back"]),
    st.booleans(),
    st.booleans(),
)
def test_an_item_is_ticked_while_what_it_is_about_can_be_looked_at(item, status, undone, archived):
    refusal = checklist.too_late(item, status=status, undone=undone, archived=archived)

    opened = status in ("queued", "in_progress")
    stands = item.phase == AFTER and status == "completed" and not undone and not archived
    assert (refusal == "") == (opened or stands)
    assert not refusal or refusal.endswith(".")
