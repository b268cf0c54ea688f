"""SARIF 2.1.0 (https://docs.oasis-open.org/sarif/sarif/v2.1.0/), the JSON in which most analysers can report.

Read as a stream: what Pulsewatch does not need is passed over unseen, and what a result refers to (rules, artifacts,
base URIs) may come after it, for keys have no order. Results that the source suppresses, that passed, or that a
baseline knows as gone are left out.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from apps.builds.parsers.base import MAX_FOUND, BadReport, Bounded, Found, Run, Stream, located, too_many
from apps.builds.parsers.json_reader import ERRORS, MAX_TEXT, Reader
from apps.builds.paths import BadPath, Place, from_uri
from apps.builds.rules import MAX_MESSAGE, plain, tool_code, tool_name

VERSION = "2.1.0"
MAX_CHAIN = 20  # of base URIs or artifacts that stand on each other

_LEVELS = {"error": "error", "warning": "warning", "note": "note", "none": "note"}
_KINDS_LEFT_OUT = frozenset({"pass", "notApplicable"})
_ARGUMENT = re.compile(r"\{(\d{1,3})\}|\{\{|\}\}")
_DRIVER = -1  # the tool itself, beside its extensions 0, 1, …


@dataclass(slots=True)
class _Artifact:
    """An artifactLocation, and for an entry of the run's table the artifact that holds it."""

    uri: str = ""
    base: str = ""
    index: int = -1
    parent: int = -1


@dataclass(slots=True)
class _Message:
    text: str = ""
    key: str = ""
    arguments: tuple[str, ...] = ()


@dataclass(slots=True)
class _Result:
    rule: str = ""
    rule_index: int = -1
    component: int = _DRIVER
    level: str = ""
    judged: bool = True  # kind `fail`; the others only inform
    message: _Message = field(default_factory=_Message)
    artifact: _Artifact | None = None
    line: int | None = None
    column: int | None = None
    suppressed: bool = False
    left_out: bool = False  # passed, does not apply, or gone since the baseline


@dataclass(slots=True)
class _Rule:
    id: str = ""
    level: str = ""
    texts: dict[str, str] = field(default_factory=dict)
    description: str = ""


@dataclass(slots=True)
class _Run:
    """A run as it was read, before its references are followed."""

    tool: str = ""
    rules: dict[int, list[_Rule]] = field(default_factory=dict)
    bases: dict[str, _Artifact] = field(default_factory=dict)
    artifacts: list[_Artifact] = field(default_factory=list)
    results: list[_Result] | None = None
    suppressed: int = 0
    crashed: bool = False


def parse(stream: Stream, place: Place) -> list[Run]:
    """What each tool found, in the order of the report. Raises BadReport."""
    reader = Reader(Bounded(stream))
    version = ""
    runs: list[_Run] = []
    try:
        for key in reader.members("the whole"):
            if key == "version":
                version = reader.text("version", 20)
                _check(version)
            elif key == "runs":
                for _ in reader.items("runs"):
                    runs.append(_run(reader, left=MAX_FOUND - sum(len(run.results or ()) for run in runs)))
            else:
                reader.skip()
        reader.end()
    except ERRORS as error:
        raise BadReport(
            "The report is no whole JSON text in UTF-8: it is cut off, damaged, or another format."
        ) from error
    _check(version)
    if not runs:
        raise BadReport("The SARIF report holds no run, so no tool says anything in it.")
    found: dict[str, Run] = {}
    for run in runs:
        one = _resolved(run, place)
        had = found.get(one.tool)
        if had:
            one = Run(one.tool, [*had.found, *one.found], had.doubts + one.doubts, had.suppressed + one.suppressed)
        found[one.tool] = one
    return list(found.values())


def _check(version: str) -> None:
    if version != VERSION:
        said = f"is SARIF {plain(version, 20)}" if version else "names no SARIF version"
        raise BadReport(f"The report {said}; version {VERSION} is understood.")


# ---- Reading ---------------------------------------------------------------------------------------------------------


def _run(reader: Reader, left: int) -> _Run:
    run = _Run()
    for key in reader.members("a run"):
        if key == "results":
            run.results = _results(reader, run, left)
        elif key in _RUN_PARTS:
            _RUN_PARTS[key](reader, run)
        else:
            reader.skip()
    return run


def _results(reader: Reader, run: _Run, left: int) -> list[_Result] | None:
    if reader.null():
        return None
    results: list[_Result] = []
    for _ in reader.items("results", limit=MAX_FOUND * 10):
        result = _result(reader)
        if result.left_out:
            continue
        if result.suppressed:
            run.suppressed += 1
        elif len(results) >= left:
            raise too_many()
        else:
            results.append(result)
    return results


def _result(reader: Reader) -> _Result:
    result = _Result()
    for key in reader.members("a result"):
        if key in _RESULT_PARTS:
            _RESULT_PARTS[key](reader, result)
        else:
            reader.skip()
    return result


def _level(reader: Reader, result: "_Result | _Rule") -> None:
    word = reader.text("level", MAX_TEXT)
    if word and word not in _LEVELS:
        raise BadReport(f"In the report level must be one of {', '.join(_LEVELS)}.")
    result.level = _LEVELS.get(word, "")


def _kind(reader: Reader, result: _Result) -> None:
    kind = reader.text("kind", MAX_TEXT) or "fail"
    result.left_out |= kind in _KINDS_LEFT_OUT
    result.judged = kind == "fail"


def _baseline(reader: Reader, result: _Result) -> None:
    result.left_out |= reader.text("baselineState", MAX_TEXT) == "absent"


def _rule_id(reader: Reader, result: _Result) -> None:
    result.rule = reader.text("ruleId", MAX_TEXT) or result.rule


def _rule_index(reader: Reader, result: _Result) -> None:
    result.rule_index = reader.index("ruleIndex")


def _rule_reference(reader: Reader, result: _Result) -> None:
    for key in reader.members("rule"):
        if key == "id":
            result.rule = reader.text("rule.id", MAX_TEXT) or result.rule
        elif key == "index":
            result.rule_index = reader.index("rule.index")
        elif key == "toolComponent":
            for name in reader.members("toolComponent"):
                if name == "index":
                    result.component = reader.index("toolComponent.index")
                else:
                    reader.skip()
        else:
            reader.skip()


def _locations(reader: Reader, result: _Result) -> None:
    """The first one counts; the others say where else the same thing shows."""
    for number in reader.items("locations"):
        if number:
            reader.skip()
            continue
        for key in reader.members("a location"):
            if key == "physicalLocation":
                _physical_location(reader, result)
            else:
                reader.skip()


def _physical_location(reader: Reader, result: _Result) -> None:
    for key in reader.members("physicalLocation"):
        if key == "artifactLocation":
            result.artifact = _artifact_location(reader)
        elif key == "region":
            for part in reader.members("region"):
                if part == "startLine":
                    result.line = reader.place("startLine")
                elif part == "startColumn":
                    result.column = reader.place("startColumn")
                else:
                    reader.skip()
        else:
            reader.skip()


def _artifact_location(reader: Reader) -> _Artifact:
    found = _Artifact()
    for key in reader.members("an artifact location"):
        if key == "uri":
            found.uri = reader.text("uri")
        elif key == "uriBaseId":
            found.base = reader.text("uriBaseId", MAX_TEXT)
        elif key == "index":
            found.index = reader.index("index")
        else:
            reader.skip()
    return found


def _artifact(reader: Reader) -> _Artifact:
    found, parent = _Artifact(), -1
    for key in reader.members("an artifact"):
        if key == "location":
            found = _artifact_location(reader)
        elif key == "parentIndex":
            parent = reader.index("parentIndex")
        else:
            reader.skip()
    found.parent = parent
    return found


def _result_message(reader: Reader, result: _Result) -> None:
    result.message = _message(reader)


def _message(reader: Reader) -> _Message:
    found, markdown = _Message(), ""
    for key in reader.members("message"):
        if key == "text":
            found.text = reader.text("message.text")
        elif key == "markdown":
            markdown = reader.text("message.markdown")
        elif key == "id":
            found.key = reader.text("message.id", MAX_TEXT)
        elif key == "arguments":
            found.arguments = tuple(reader.text("message.arguments") for _ in reader.items("message.arguments"))
        else:
            reader.skip()
    found.text = found.text or markdown
    return found


def _suppressions(reader: Reader, result: _Result) -> None:
    """The source says to leave it when each suppression that is there is accepted. No status means accepted."""
    statuses = []
    for _ in reader.items("suppressions"):
        status = ""
        for key in reader.members("a suppression"):
            if key == "status":
                status = reader.text("suppression.status", 20)
            else:
                reader.skip()
        statuses.append(status)
    result.suppressed = bool(statuses) and all(status in ("", "accepted") for status in statuses)


def _tool(reader: Reader, run: _Run) -> None:
    for key in reader.members("tool"):
        if key == "driver":
            run.tool, run.rules[_DRIVER] = _component(reader)
        elif key == "extensions":
            for number in reader.items("extensions"):
                _, run.rules[number] = _component(reader)
        else:
            reader.skip()


def _component(reader: Reader) -> tuple[str, list[_Rule]]:
    name, rules = "", []
    for key in reader.members("a tool component"):
        if key == "name":
            name = reader.text("the tool's name", MAX_TEXT)
        elif key == "rules":
            rules = [_rule(reader) for _ in reader.items("rules")]
        else:
            reader.skip()
    return name, rules


def _rule(reader: Reader) -> _Rule:
    rule, full = _Rule(), ""
    for key in reader.members("a rule"):
        if key == "id":
            rule.id = reader.text("a rule's id", MAX_TEXT)
        elif key == "defaultConfiguration":
            for name in reader.members("defaultConfiguration"):
                if name == "level":
                    _level(reader, rule)
                else:
                    reader.skip()
        elif key == "messageStrings":
            for name in reader.members("messageStrings"):
                rule.texts[name[:MAX_TEXT]] = _message(reader).text
        elif key == "shortDescription":
            rule.description = _message(reader).text
        elif key == "fullDescription":
            full = _message(reader).text
        else:
            reader.skip()
    rule.description = rule.description or full
    return rule


def _bases(reader: Reader, run: _Run) -> None:
    for name in reader.members("originalUriBaseIds"):
        run.bases[name[:MAX_TEXT]] = _artifact_location(reader)


def _artifacts(reader: Reader, run: _Run) -> None:
    run.artifacts = [_artifact(reader) for _ in reader.items("artifacts")]


def _invocations(reader: Reader, run: _Run) -> None:
    for _ in reader.items("invocations"):
        for key in reader.members("an invocation"):
            if key == "executionSuccessful":
                run.crashed |= reader.flag("executionSuccessful") is False
            else:
                reader.skip()


def _elsewhere(reader: Reader, run: _Run) -> None:
    for key in reader.members("externalPropertyFileReferences"):
        if key == "results":
            raise BadReport("The SARIF report keeps its results in other files: send one that holds them.")
        reader.skip()


_RUN_PARTS: Mapping[str, Callable[[Reader, _Run], None]] = {
    "tool": _tool,
    "originalUriBaseIds": _bases,
    "artifacts": _artifacts,
    "invocations": _invocations,
    "externalPropertyFileReferences": _elsewhere,
}
_RESULT_PARTS: Mapping[str, Callable[[Reader, _Result], None]] = {
    "ruleId": _rule_id,
    "ruleIndex": _rule_index,
    "rule": _rule_reference,
    "level": _level,
    "kind": _kind,
    "baselineState": _baseline,
    "message": _result_message,
    "locations": _locations,
    "suppressions": _suppressions,
}


# ---- Following references --------------------------------------------------------------------------------------------


def _resolved(run: _Run, place: Place) -> Run:
    try:
        tool = tool_name(run.tool)
    except ValueError as error:
        raise BadReport(f"The SARIF report does not say which tool wrote it. {error}") from error
    by_id = {rule.id: rule for rules in run.rules.values() for rule in reversed(rules) if rule.id}
    found = [_found(run, result, tool, by_id, place) for result in run.results or ()]
    doubts = []
    if run.results is None:
        doubts.append(f"It says that {tool} did not look for anything: a run has no results.")
    if run.crashed:
        doubts.append(f"It says that {tool} did not run to its end (executionSuccessful is false).")
    return Run(tool, found, tuple(doubts), run.suppressed)


def _found(run: _Run, result: _Result, tool: str, by_id: Mapping[str, _Rule], place: Place) -> Found:
    rules = run.rules.get(result.component, [])
    rule = rules[result.rule_index] if 0 <= result.rule_index < len(rules) else None
    # A result may name a special case of its rule: CA1000/1 is of rule CA1000.
    rule = rule or by_id.get(result.rule) or by_id.get(result.rule.rpartition("/")[0]) or _Rule()
    level = result.level or (rule.level if result.judged else "note") or "warning"
    message = result.message.text or rule.texts.get(result.message.key, "")
    if message and (result.message.arguments or result.message.key):
        message = _filled(message, result.message.arguments)
    try:
        code = tool_code(tool, result.rule or rule.id)
    except ValueError as error:
        raise BadReport(str(error)) from error
    file = _path(run, result.artifact) if result.artifact else ""
    return Found(
        file=located(place, file) if file else "",
        line=result.line if file else None,
        column=result.column if file else None,
        level=level,
        code=code,
        message=plain(message or rule.description or code or "(no message)", MAX_MESSAGE),
    )


def _filled(text: str, arguments: tuple[str, ...]) -> str:
    """The text with {0}, {1} … replaced; doubled braces stand for themselves."""

    def value(match: re.Match[str]) -> str:
        if match[1] is None:
            return match[0][0]
        number = int(match[1])
        return arguments[number] if number < len(arguments) else match[0]

    return _ARGUMENT.sub(value, text[:MAX_MESSAGE])


def _path(run: _Run, location: _Artifact) -> str:
    """The file a location names; for a file within a file, with the file around it in front."""
    if 0 <= location.index < len(run.artifacts):
        entry = run.artifacts[location.index]
        location = replace(location if location.uri else entry, parent=entry.parent)
    path = _file(run, location)
    for _ in range(MAX_CHAIN):
        if not 0 <= location.parent < len(run.artifacts):
            return path
        location = run.artifacts[location.parent]
        around = _file(run, location)
        path = f"{around}/{path.lstrip('/')}" if around else path
    raise BadReport("In the SARIF report artifacts hold each other in a circle.")


def _file(run: _Run, location: _Artifact) -> str:
    uri, base = location.uri, location.base
    for _ in range(MAX_CHAIN):
        if not base or re.match(r"[A-Za-z][A-Za-z0-9+.-]*:|/", uri):
            try:
                return from_uri(uri)
            except BadPath as error:
                raise BadReport(str(error)) from error
        around = run.bases.get(base, _Artifact())
        start = around.uri if not around.uri or around.uri.endswith("/") else f"{around.uri}/"
        uri, base = start + uri, around.base
    raise BadReport("In the SARIF report base URIs stand on each other in a circle.")
