"""SARIF 2.1.0: what ruff really writes, what the standard allows, and what is no SARIF at all."""

import json
import subprocess
import sys
from contextlib import suppress
from io import BytesIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.builds.parsers import base, sarif
from apps.builds.parsers.base import BadReport, Found
from apps.builds.parsers.sarif import parse
from apps.builds.paths import Place
from apps.builds.rules import MAX_MESSAGE

PLACE = Place("/repo")


class Trickle(BytesIO):
    """A stream that gives a few bytes at a time."""

    def read(self, size=-1, /):
        return super().read(min(size, 7))


def at(uri: str = "src/a.py", line: int | None = 3, **more):
    region = {"region": {"startLine": line, "startColumn": 5}} if line is not None else {}
    return [{"physicalLocation": {"artifactLocation": {"uri": uri, **more}, **region}}]


def result(**more):
    return {"ruleId": "F401", "level": "error", "message": {"text": "unused"}, "locations": at(), **more}


def log(*results, tool="ruff", rules=(), **run):
    driver = {"name": tool, "rules": list(rules)}
    return {"version": "2.1.0", "runs": [{"tool": {"driver": driver}, "results": list(results), **run}]}


def read_all(document, place=PLACE):
    return parse(BytesIO(json.dumps(document).encode()), place)


def read(document, place=PLACE):
    (run,) = read_all(document, place)
    return run


def one(*results, **options) -> Found:
    (found,) = read(log(*results, **options)).found
    return found


def test_what_ruff_reports_is_read_whole(tmp_path):
    (tmp_path / "my app").mkdir()
    (tmp_path / "my app" / "a b.py").write_text("import os\nimport sys\n\n\ndef f():\n    l = 1\n    return os\n")
    (tmp_path / "broken.py").write_text("def f(:\n")
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--no-cache", "--select", "E,F"]
    output, listed = (
        subprocess.run([*command, "--output-format", name, str(tmp_path)], capture_output=True, check=False).stdout
        for name in ("sarif", "json")
    )
    (run,) = parse(BytesIO(output), Place(str(tmp_path)))

    assert (run.tool, run.doubts) == ("ruff", ())
    found = {(one.file, one.line, one.column, one.message) for one in run.found}
    told = {
        (
            item["filename"].removeprefix(f"{tmp_path}/"),
            item["location"]["row"],
            item["location"]["column"],
            item["message"],
        )
        for item in json.loads(listed)
    }
    assert found == told
    assert ("my app/a b.py", 2, 8, "`sys` imported but unused") in found
    assert {one.code for one in run.found} >= {"F401", "E741", "F841"}


def test_a_result_in_full():
    assert one(result()) == Found("src/a.py", 3, 5, "error", "F401", "unused")


def test_the_order_of_keys_and_the_size_of_blocks_make_no_difference():
    document = log(result(), result(level="note"), rules=[{"id": "F401"}])
    run = document["runs"][0]
    turned = {"runs": [dict(reversed(run.items()))], "version": "2.1.0"}

    for text in (json.dumps(turned), json.dumps(document, indent=8)):
        (found,) = parse(Trickle(b"\xef\xbb\xbf" + text.encode()), PLACE)
        assert found == read(document)


@pytest.mark.parametrize(
    ("more", "rule", "level"),
    [
        ({"level": "warning"}, {"defaultConfiguration": {"level": "error"}}, "warning"),
        ({"level": None}, {"defaultConfiguration": {"level": "error"}}, "error"),
        ({"level": None}, {"defaultConfiguration": {"level": "none"}}, "note"),
        ({"level": None}, {"defaultConfiguration": {}}, "warning"),
        ({"level": None}, {}, "warning"),
        ({"level": None, "kind": "review"}, {"defaultConfiguration": {"level": "error"}}, "note"),
        ({"level": "none"}, {}, "note"),
        ({"level": None, "ruleId": None, "ruleIndex": 0}, {"defaultConfiguration": {"level": "error"}}, "error"),
        ({"level": None, "ruleId": "F401/2"}, {"defaultConfiguration": {"level": "error"}}, "error"),
        ({"level": None, "rule": {"id": "F401", "index": 0}}, {"defaultConfiguration": {"level": "error"}}, "error"),
    ],
)
def test_the_level_is_the_results_own_or_its_rules(more, rule, level):
    found = one(result(**more), rules=[{"id": "F401", **rule}])

    assert (found.level, found.code.partition("/")[0]) == (level, "F401")


def test_a_rule_may_stand_in_an_extension_of_the_tool():
    document = log(result(level=None, ruleId=None, rule={"index": 1, "toolComponent": {"index": 0}}))
    document["runs"][0]["tool"]["extensions"] = [
        {"name": "pack", "rules": [{"id": "x"}, {"id": "js/sql-injection", "defaultConfiguration": {"level": "error"}}]}
    ]

    (found,) = read(document).found
    assert (found.code, found.level) == ("js/sql-injection", "error")


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"text": "plain"}, "plain"),
        ({"markdown": "**bold**"}, "**bold**"),
        ({"text": "say {0} to {1}, {{not}} {7}", "arguments": ["hello", "you"]}, "say hello to you, {not} {7}"),
        ({"id": "short", "arguments": ["x"]}, "found x"),
        ({"id": "unknown"}, "what the rule is about"),
        ({}, "what the rule is about"),
        ({"text": "with { braces }"}, "with { braces }"),
        ({"text": "a\x00b\x1b[31m"}, "ab[31m"),
    ],
)
def test_the_message_is_found_wherever_it_stands(message, text):
    rule = {
        "id": "F401",
        "messageStrings": {"short": {"text": "found {0}"}},
        "shortDescription": {"text": "what the rule is about"},
        "fullDescription": {"text": "at length"},
    }

    assert one(result(message=message), rules=[rule]).message == text


def test_a_result_without_any_text_still_says_something():
    assert one(result(message={})).message == "F401"
    assert one(result(message={}, ruleId=None)).message == "(no message)"
    assert (
        one(result(message={}), rules=[{"id": "F401", "fullDescription": {"text": "at length"}}]).message == "at length"
    )


@pytest.mark.parametrize(
    ("uri", "bases", "file"),
    [
        ("src/a%20b.py", {}, "src/a b.py"),
        ("file:///repo/src/a.py", {}, "src/a.py"),
        ("src/a.py", {"SRCROOT": {"uri": "file:///repo/"}}, "src/a.py"),
        ("a.py", {"SRCROOT": {"uri": "file:///repo/lib"}}, "lib/a.py"),
        ("a.py", {"SRCROOT": {"uri": "lib/", "uriBaseId": "TOP"}, "TOP": {"uri": "file:///repo/"}}, "lib/a.py"),
        ("a.py", {"SRCROOT": {}}, "a.py"),
        ("file:///repo/b.py", {"SRCROOT": {"uri": "file:///repo/lib/"}}, "b.py"),
    ],
)
def test_base_uris_are_followed(uri, bases, file):
    assert one(result(locations=at(uri, uriBaseId="SRCROOT")), originalUriBaseIds=bases).file == file


def test_artifacts_are_followed_also_into_files_within_files():
    artifacts = [
        {"location": {"uri": "dist/app.zip", "uriBaseId": "SRC"}},
        {"location": {"uri": "/lib/a.py", "index": 1}, "parentIndex": 0},
        {"location": {"uri": "src/b.py"}},
    ]
    bases = {"SRC": {"uri": "file:///repo/"}}

    def file(**location):
        place = [{"physicalLocation": {"artifactLocation": location}}]
        return one(result(locations=place), artifacts=artifacts, originalUriBaseIds=bases).file

    assert file(index=2) == "src/b.py"
    assert file(index=1) == "dist/app.zip/lib/a.py"
    assert file(index=1, uri="/lib/a.py") == "dist/app.zip/lib/a.py"
    assert file(uri="src/c.py", index=99) == "src/c.py"


@pytest.mark.parametrize(
    ("locations", "place"),
    [
        (None, ("", None, None)),
        ([], ("", None, None)),
        ([{}], ("", None, None)),
        ([{"logicalLocations": [{"name": "f"}]}], ("", None, None)),
        ([{"physicalLocation": {"region": {"startLine": 3}}}], ("", None, None)),
        (at(line=None), ("src/a.py", None, None)),
        (at(line=0), ("src/a.py", None, 5)),
        ([*at(), *at("src/other.py")], ("src/a.py", 3, 5)),
    ],
)
def test_a_place_that_is_not_told_is_left_open(locations, place):
    found = one(result(locations=locations))

    assert (found.file, found.line, found.column) == place


@pytest.mark.parametrize(
    ("more", "stays"),
    [
        ({"suppressions": []}, True),
        ({"suppressions": [{"kind": "inSource"}]}, False),
        ({"suppressions": [{"kind": "external", "status": "accepted"}]}, False),
        ({"suppressions": [{"kind": "external", "status": "rejected"}]}, True),
        ({"suppressions": [{"kind": "inSource"}, {"kind": "external", "status": "underReview"}]}, True),
        ({"kind": "pass"}, False),
        ({"kind": "notApplicable"}, False),
        ({"kind": "open"}, True),
        ({"baselineState": "absent"}, False),
        ({"baselineState": "unchanged"}, True),
    ],
)
def test_what_is_suppressed_passed_or_gone_is_left_out(more, stays):
    run = read(log(result(**more)))

    assert len(run.found) == stays
    assert run.suppressed == (not stays and "suppressions" in more)


def test_runs_of_one_tool_are_one_and_tools_are_kept_apart():
    document = log(result(), tool="ESLint")
    document["runs"] += log(result(), tool="eslint")["runs"] + log(tool="CodeQL")["runs"]

    assert [(run.tool, len(run.found)) for run in read_all(document)] == [("eslint", 2), ("codeql", 0)]


@pytest.mark.parametrize(
    ("run", "doubt"),
    [
        ({"results": None}, "did not look for anything"),
        ({"invocations": [{"executionSuccessful": True}, {"executionSuccessful": False}]}, "did not run to its end"),
    ],
)
def test_a_tool_that_did_not_finish_is_doubted(run, doubt):
    assert doubt in read(log(**run)).doubts[0]
    assert read(log(invocations=[{"executionSuccessful": True, "exitCode": 1}])).doubts == ()


@pytest.mark.parametrize(
    ("document", "sentence"),
    [
        ({"version": "2.0.0", "runs": []}, "is SARIF 2.0.0"),
        ({"runs": log()["runs"], "version": "1.0.0"}, "is SARIF 1.0.0"),
        ({"runs": log()["runs"]}, "names no SARIF version"),
        ({"version": 2.1, "runs": []}, "version must be a text"),
        ({"version": "2.1.0", "runs": []}, "holds no run"),
        ({"version": "2.1.0"}, "holds no run"),
        ({"version": "2.1.0", "runs": {}}, "runs must be an array"),
        ([], "must be an object"),
        ("2.1.0", "must be an object"),
        ({"version": "2.1.0", "runs": [{"results": []}]}, "does not say which tool"),
        (log(tool="<script>alert(1)</script>"), "does not say which tool"),
        (log(result(ruleId="F401"), tool="tsc"), "TS and a number"),
        (log(result(level="fatal")), "level must be one of"),
        (log(result(ruleId="x" * 101)), "at most 100"),
        (log(result(message="text")), "message must be an object"),
        (log(result(message={"text": ["x"]})), "must be a text"),
        (log(result(locations={"a": 1})), "locations must be an array"),
        (log(result(locations=at(line="3"))), "startLine must be a whole number"),
        (log(result(locations=at(line=True))), "startLine must be a whole number"),
        (log(result(locations=at(line=1.5))), "startLine must be a whole number"),
        (log(result(locations=at(line=2**40))), "startLine must be a whole number"),
        (log(result(locations=at(line=2**200))), "no whole JSON"),
        (log(result(locations=at(line=-1))), "must not be negative"),
        (log(result(locations=at("../a.py"))), "outside the root"),
        (log(result(locations=at("file:///etc/passwd"))), "outside the root"),
        (log(result(locations=at("https://example.com/a.py"))), "is no file"),
        (log(invocations=[{"executionSuccessful": "yes"}]), "must be true or false"),
        (log(externalPropertyFileReferences={"results": [{"itemCount": 3}]}), "in other files"),
        (
            log(result(locations=at("a", uriBaseId="A")), originalUriBaseIds={"A": {"uri": "a", "uriBaseId": "A"}}),
            "in a circle",
        ),
        (
            log(result(locations=at("a", index=0)), artifacts=[{"location": {"uri": "a"}, "parentIndex": 0}]),
            "in a circle",
        ),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(document, sentence):
    with pytest.raises(BadReport, match=sentence) as caught:
        read_all(document)

    assert len(str(caught.value)) < 400
    assert "<script>" not in str(caught.value)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xef\xbb\xbf",
        b"nothing",
        b"{",
        b'{"version":"2.1.0","runs":[',
        b"\xff\xfe{\x00}\x00",
        b'{"version":"2.1.0","runs":[{"tool":{"driver":{"name":"\xff"}}}]}',
        json.dumps(log()).encode() + b"{}",
        json.dumps(log()).encode()[:-1],
        b'{"version":"2.1.0","x":1e999999999999999999999,"runs":[]}',
        b'{"version":"2.1.0","x":' + b"1" * 100_000 + b',"runs":[]}',
        b'{"version":"2.1.0","runs":[' + b"[" * 100_000 + b"]" * 100_000 + b"]}",
        b"[" * 1_000_000,
        b'{"version":"2.1.0","a":' * 100_000,
    ],
)
def test_what_is_no_json_is_refused(data):
    with pytest.raises(BadReport):
        parse(BytesIO(data), PLACE)


@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_deep_nesting_in_what_is_passed_over_is_refused(opening):
    data = f'{{"version":"2.1.0","properties":{opening * 1_000_000}'.encode()
    with pytest.raises(BadReport, match="nested deeper"):
        parse(BytesIO(data), PLACE)


def test_hostile_sizes_are_bounded(monkeypatch):
    assert len(one(result(message={"text": "x" * 5_000_000})).message) == MAX_MESSAGE
    monkeypatch.setattr(sarif, "MAX_FOUND", 3)
    assert len(read(log(*[result()] * 3)).found) == 3
    with pytest.raises(BadReport, match="report in parts"):
        read(log(*[result()] * 4))
    document = log(*[result()] * 2)
    document["runs"] *= 2
    with pytest.raises(BadReport, match="report in parts"):
        read_all(document)
    monkeypatch.setattr(base, "MAX_BYTES", 1000)
    with pytest.raises(BadReport, match="larger than"):
        read(log(result(message={"text": "x" * 1000})))


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-9, 2**40), st.floats(allow_nan=False), st.text(max_size=8)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)),
    max_leaves=6,
)
KEYS = ["ruleId", "ruleIndex", "rule", "level", "kind", "message", "locations", "suppressions", "baselineState", "x"]
RUN_KEYS = ["results", "artifacts", "originalUriBaseIds", "invocations", "taxonomies"]


@settings(max_examples=300)
@given(
    st.dictionaries(st.sampled_from(KEYS), JSON, max_size=4),
    st.dictionaries(st.sampled_from(RUN_KEYS), JSON, max_size=3),
)
def test_no_json_raises_anything_but_a_bad_report(wrong, run):
    with suppress(BadReport):
        read_all(log(result(**wrong), rules=[{"id": "F401"}], **run))


@settings(max_examples=200)
@given(st.binary(max_size=200), st.integers(0, 400), st.binary(max_size=5))
def test_no_bytes_raise_anything_but_a_bad_report(data, cut, middle):
    whole = json.dumps(log(result(), rules=[{"id": "F401"}])).encode()
    for broken in (data, whole[:cut] + middle + whole[cut:], whole[:cut] + whole[cut + len(middle) :]):
        with suppress(BadReport):
            parse(BytesIO(broken), PLACE)


@settings(max_examples=100)
@given(
    st.lists(
        st.tuples(
            st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zs"]), min_size=1, max_size=20),
            st.integers(1, 10**6),
            st.sampled_from(["error", "warning", "note"]),
            st.sampled_from(["a.py", "b/c.py"]),
        ),
        max_size=8,
    )
)
def test_no_result_is_lost(items):
    results = [result(message={"text": t}, locations=at(f, n), level=v) for t, n, v, f in items]
    run = read(log(*results))

    assert [(found.line, found.level, found.file) for found in run.found] == [(n, v, f) for _, n, v, f in items]
