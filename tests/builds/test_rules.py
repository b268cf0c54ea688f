"""The flows, words and fingerprints, as rules."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.builds import rules
from apps.builds.choices import BuildStatus, Category, DiagnosticStatus, Level, Severity

MESSAGES = st.text(min_size=1, max_size=80)


def test_the_flows_know_every_status_and_lead_nowhere_else():
    for flow, words in ((rules.BUILD_FLOW, BuildStatus.values), (rules.DIAGNOSTIC_FLOW, DiagnosticStatus.values)):
        assert set(flow) == set(words)
        assert all(targets <= set(words) for targets in flow.values())
        assert not any(rules.may_move(flow, word, word) for word in words)


def test_the_flow_of_a_build():
    assert rules.targets_of(rules.BUILD_FLOW, "pending") == ["building", "cancelled"]
    assert rules.targets_of(rules.BUILD_FLOW, "building") == ["cancelled", "failed", "success"]
    for over in ("success", "failed", "cancelled", "unheard of"):
        assert rules.targets_of(rules.BUILD_FLOW, over) == []
    assert not rules.may_move(rules.BUILD_FLOW, "unheard of", "building")


def test_the_flow_of_a_diagnostic():
    assert rules.targets_of(rules.DIAGNOSTIC_FLOW, "identified") == ["deferred", "in_progress"]
    assert rules.targets_of(rules.DIAGNOSTIC_FLOW, "in_progress") == ["deferred", "resolved"]
    assert rules.targets_of(rules.DIAGNOSTIC_FLOW, "deferred") == ["in_progress"]
    assert rules.targets_of(rules.DIAGNOSTIC_FLOW, "resolved") == []


@pytest.mark.parametrize(
    ("level", "failed", "severity"),
    [
        ("error", True, "critical"),
        ("error", False, "high"),
        ("warning", True, "medium"),
        ("warning", False, "medium"),
        ("note", True, "low"),
        ("note", False, "low"),
    ],
)
def test_severity_follows_level_and_the_builds_end(level, failed, severity):
    assert level in Level.values
    assert severity in Severity.values
    assert rules.severity(level, build_failed=failed) == severity


@pytest.mark.parametrize(
    ("code", "category"),
    [
        ("TS2322", "type_mismatch"),
        ("TS2375", "type_mismatch"),
        ("TS7006", "implicit_any"),
        ("TS7053", "implicit_any"),
        ("TS7016", "missing_types"),
        ("TS2304", "missing_types"),
        ("TS2339", "property_violation"),
        ("TS2741", "property_violation"),
        ("TS2307", "import_export"),
        ("TS2614", "import_export"),
        ("TS2532", "strict_mode"),
        ("TS6133", "strict_mode"),
        ("TS18048", "strict_mode"),
        ("TS1005", "other"),
    ],
)
def test_the_category_comes_from_the_code(code, category):
    assert rules.category("tsc", code) == category


@given(st.integers(0, 999_999))
def test_every_code_of_tsc_has_a_known_category(number):
    assert rules.category("tsc", f"TS{number}") in Category.values


def test_no_code_of_tsc_stands_in_two_categories():
    numbers = [number for text in rules.TSC_CODES.values() for number in rules.numbers(text)]

    assert sorted(numbers) == sorted(set(numbers))
    assert set(rules.TSC_CODES) == set(Category.values) - {"other"}


def test_the_code_table_is_for_tsc_alone():
    assert rules.category("ruff", "F401") == "other"
    assert rules.category("eslint", "TS2322") == "other"


def test_codes_of_tsc_have_a_form_and_other_tools_have_none():
    assert rules.tool_code("tsc", "ts2375") == "TS2375"
    assert rules.tool_code("ruff", "F401") == "F401"
    assert rules.tool_code("ruff", "") == ""
    for wrong in ("F401", "TS", "TS12345678", "TS2322x", ""):
        with pytest.raises(ValueError, match="TS and a number"):
            rules.tool_code("tsc", wrong)
    with pytest.raises(ValueError, match="at most 100"):
        rules.tool_code("ruff", "x" * 101)


def test_tools_are_called_by_one_name():
    assert rules.tool_name("  Microsoft   (R)  ".replace("(R)", "C#")) == "microsoft c#"
    assert rules.tool_name("ESLint") == "eslint"
    for wrong in ("", "<script>", "x" * 65, "-x", "\x00"):
        with pytest.raises(ValueError, match="letters, digits"):
            rules.tool_name(wrong)


@given(st.text(), st.integers(1, 40))
def test_plain_text_can_be_stored_anywhere_and_is_bounded(text, limit):
    found = rules.plain(text, limit)

    assert len(found) <= limit
    found.encode()
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", found)
    assert rules.plain(found, limit) == found.strip()
    end = rules.plain_end(text, limit)
    assert len(end) <= limit
    assert (end == rules.plain(text, len(text) + 1)) or end.startswith("…")


def test_half_a_character_becomes_a_whole_one():
    assert rules.plain("a\ud800b", 10) == "a\ufffdb"


@given(MESSAGES, st.integers(1, 10**6), st.integers(1, 10**6))
def test_a_fingerprint_does_not_know_the_line(message, one, other):
    def of(line: int) -> str:
        return rules.fingerprint(rules.basis("a.py", "F811", f"{message} from line {line}"), 0)

    assert of(one) == of(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("a.ts", "TS1", "x"), ("b.ts", "TS1", "x")),
        (("a.ts", "TS1", "x"), ("a.ts", "TS2", "x")),
        (("a.ts", "TS1", "x"), ("a.ts", "TS1", "y")),
        (("a.ts", "TS1", "Type '1'"), ("a.ts", "TS1", "Type '2'")),
        (("a.ts", "TS1", "\xe9"), ("a.ts", "TS1", "\xe8")),
        (("a", "b", "cd"), ("a", "bc", "d")),
    ],
)
def test_different_diagnostics_have_different_fingerprints(one, other):
    assert rules.fingerprint(rules.basis(*one), 0) != rules.fingerprint(rules.basis(*other), 0)


def test_white_space_and_places_are_no_difference():
    assert rules.basis("a", "b", "see  x.c:12:5\n  and line 7") == rules.basis("a", "b", "see x.c:9:1 and line 12")


@given(st.lists(st.sampled_from("abc"), max_size=30))
def test_equal_ones_are_counted_and_so_told_apart(keys):
    numbers = rules.ordinals(keys)

    pairs = list(zip(keys, numbers, strict=True))
    assert len(set(pairs)) == len(keys)
    assert all(pairs.count((key, 0)) == 1 for key in keys)
    assert len({rules.fingerprint(("f", "c", key), number) for key, number in pairs}) == len(keys)


@pytest.mark.parametrize("version", ["1.2.3", "v20.11.1", "5.4.0-dev.20240101", "1.0.0-rc.1+build.5", "0.0.0"])
def test_versions_that_are_semantic(version):
    assert re.match(rules.SEMVER, version)


@pytest.mark.parametrize("version", ["", "1", "1.2", "01.2.3", "1.2.3.4", "v", "1.2.3-", "1.2.3-01", "1.2.3\n"])
def test_versions_that_are_not(version):
    assert not re.match(rules.SEMVER, version)


@pytest.mark.parametrize("branch", ["main", "feature/login", "release-1.2", "dependabot/npm_and_yarn/x-1.0", "ünï"])
def test_branches_that_git_allows(branch):
    assert re.match(rules.BRANCH, branch)


@pytest.mark.parametrize("branch", [*"~^:?*[\\ \n", "a b", "a..b", "/a", "a/", "a//b", "-a", "a@{1}", "a\n", "a."])
def test_branches_that_it_does_not(branch):
    assert not re.match(rules.BRANCH, branch)
