"""Verdicts on environment variables, and the checklist."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.core.errors import Invalid
from apps.deployments.rules import checklist, variables
from apps.deployments.rules.checklist import Standing
from apps.deployments.rules.variables import Report, Rule


def verdict(rule: Rule | None, report: Report | None) -> tuple[str, str]:
    [found] = variables.judge([rule] if rule else [], [report] if report else [])
    return found.status, found.reason


@pytest.mark.parametrize(
    ("rule", "report", "status", "reason"),
    [
        (Rule("MODE", pattern="live|test"), Report("MODE", value="live"), "valid", ""),
        (Rule("MODE", pattern="live|test"), Report("MODE", value="alive"), "invalid", "does not match its pattern"),
        (Rule("MODE", min_length=5), Report("MODE", value="live"), "invalid", "shorter than 5 characters"),
        (Rule("MODE", pattern=".*"), Report("MODE", value="x" * 513), "not_validated", "longer than the 512 "),
        (Rule("MODE"), Report("MODE", value=""), "invalid", "required, but not set"),
        (Rule("MODE"), None, "invalid", "required, but not reported"),
        (Rule("MODE", required=False), None, "not_validated", "not set"),
        (Rule("MODE", required=False), Report("MODE", is_set=False), "valid", "not set"),
        (Rule("KEY", sensitive=True), Report("KEY", is_set=True), "valid", ""),
        (Rule("KEY", sensitive=True, min_length=9), Report("KEY", is_set=True), "not_validated", "length not reported"),
        (Rule("KEY", sensitive=True, pattern="a+"), Report("KEY", length=9), "not_validated", "matches not reported"),
        (
            Rule("KEY", sensitive=True, pattern="a+"),
            Report("KEY", length=9, matches=False),
            "invalid",
            "does not match",
        ),
        (Rule("KEY", sensitive=True, min_length=9), Report("KEY", length=8, matches=True), "invalid", "shorter than 9"),
        (None, Report("COLOUR", value="red"), "not_validated", "no rule asks anything of it"),
    ],
)
def test_the_verdict_on_one_variable(rule, report, status, reason):
    found = verdict(rule, report)
    assert found[0] == status
    assert found[1].startswith(reason)


@pytest.mark.parametrize(
    ("rules", "report"),
    [
        ([Rule("X", sensitive=True)], Report("X", value="open-sesame")),
        ([], Report("DB_PASSWORD", value="open-sesame")),
        ([], Report("COLOUR", value="open-sesame", is_sensitive=True)),
    ],
)
def test_the_value_of_a_sensitive_variable_is_refused_and_not_repeated(rules, report):
    with pytest.raises(Invalid) as caught:
        variables.judge(rules, [report])
    assert "sesame" not in str(caught.value)
    assert "sesame" not in repr(report)


def test_a_report_is_refused_when_it_is_too_long_doubled_or_names_no_variable():
    for reports in ([Report("A")] * 2, [Report(f"V{n}") for n in range(501)], [Report("1A")], [Report("A-B")]):
        with pytest.raises(Invalid):
            variables.judge([], reports)


@pytest.mark.parametrize(
    "pattern",
    [
        *("(a+)+", "((a+)b)+", "[[a]", "(a|b)*", "a*b*c*d*", "(", "(?=x)", r"(a)\1", "(?:a{1,})+"),
        *("x{3,}y{3,}z{3,}w{3,}", "(a|b){2,99}", "(?:a?){999999999}"),
        *("a?" * 40 + "a" * 40, "(?:a|a)" * 40, "a{0,500}" * 5 + "b", "(a?|b?)" * 30, "(?:a|a)" * 3 + "a*" * 3 + "b"),
    ],
)
def test_a_pattern_that_could_run_for_years_or_is_none_is_refused(pattern):
    with pytest.raises(Invalid):
        variables.check_pattern(pattern)


@pytest.mark.parametrize(
    "pattern",
    [
        *("live|test", "[a-z]+@[a-z]+", r"\d{3}(-\d{2})?", "(?:ab)?c", "[]a]+", "(a(b))c{2}", "((a|b)c)d"),
        *(r"https?://[^/:]+(:\d+)?(/.*)?", r"(debug|info|warning|error|critical)", r"\d{1,3}(\.\d{1,3}){3}"),
        *("a*?b", "(a|b){2}", "(ab?){0,3}", "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "a{,}b{,2}"),
    ],
)
def test_ordinary_patterns_are_taken(pattern):
    variables.check_pattern(pattern)
    re.compile(pattern)


@given(st.text(max_size=40), st.text(alphabet="ab(|)*+?{},0123456789[]^\\.", max_size=12))
def test_whatever_is_accepted_is_tried_without_trouble(value, pattern):
    try:
        variables.check_pattern(pattern)
    except Invalid:
        return
    assert verdict(Rule("MODE", pattern=pattern), Report("MODE", value=value or "x"))[0] in ("valid", "invalid")


def test_what_blocks_is_failed_blocking_of_this_phase_and_not_overridden():
    rows = [
        Standing("migrations_run", "failed", "exit 1"),
        Standing("variables_configured", "failed", "A", overridden=True),
        Standing("chart_valid", "failed", "not blocking"),
        Standing("services_accessible", "failed", "after"),
        Standing("database_safe", "failed", "old"),
    ]
    assert checklist.blockers(rows, phase="before") == ("Database migrations run: exit 1.",)
    assert checklist.blockers(rows, phase="after") == ("Services accessible: after.",)
    assert "Database safe: old." in checklist.blockers(rows, phase="before", also=["database_safe"])
    assert "Secrets present: nobody has reported it." in checklist.blockers(rows, phase="before", strict=True)


def test_ci_reports_what_is_its_own_to_say():
    assert checklist.check_reported("migrations_run", "passed").blocking
    for key, state in (("health_passing", "passed"), ("nothing", "passed"), ("migrations_run", "open")):
        with pytest.raises(Invalid):
            checklist.check_reported(key, state)
