"""What the TypeScript compiler prints: plain, `--pretty`, or copied out of a terminal or a log.

    src/a.ts(12,5): error TS2322: Type 'string' is not assignable to type 'number'.
      Indented lines go on with the message.
    src/a.ts:12:5 - error TS2322: Type 'string' …      (--pretty; an empty line, then a picture of the source)
    error TS18003: No inputs were found …              (belongs to no file)

Any other line is passed over. The last line of `--pretty` counts the errors, which shows whether the output is whole.
"""

import codecs
import re
from collections.abc import Iterator

from apps.builds.parsers.base import BLOCK, MAX_FOUND, Bounded, Found, Run, Stream, located, too_many
from apps.builds.paths import Place
from apps.builds.rules import MAX_MESSAGE, MAX_NUMBER, TSC, plain

MAX_LINE = 16_384  # characters of a line that are looked at; a message is cut far below

_KIND = r"(?P<kind>error|warning|message|suggestion) TS(?P<code>\d{1,6}): (?P<text>.*)"
_PLAIN = re.compile(rf"(?P<file>\S.*?)\((?P<line>\d{{1,10}}),(?P<column>\d{{1,10}})\): {_KIND}")
_PRETTY = re.compile(rf"(?P<file>\S.*?):(?P<line>\d{{1,10}}):(?P<column>\d{{1,10}}) - {_KIND}")
_GLOBAL = re.compile(_KIND)
_LEVELS = {"error": "error", "warning": "warning", "message": "note", "suggestion": "note"}

_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])")
_PICTURED = re.compile(r" *\d+ ")  # a line of the source, drawn under a diagnostic of --pretty
_TOTAL = re.compile(r"(?:\[.{1,40}\] |[\d: APM]{5,12} - )?Found (\d{1,9}) errors?\b")
# Lines of a run that found nothing: the file list of --listFiles, the figures of --diagnostics, the steps of --build,
# and what npm, yarn and pnpm say before and after.
_HARMLESS = re.compile(
    r"(?:>|\$ |yarn |Done in |\[.{1,40}\] |\d{1,2}:\d\d:\d\d (?:[AP]M )?- | |Version \d"
    r"|.*\.(?:[cm]?[jt]sx?|json)$|[A-Z][\w /]+: +[\d.]+[sKM]?$)"
)


def parse(stream: Stream, place: Place) -> list[Run]:
    """The diagnostics in order. One run, of tool `tsc`, even when there is none."""
    output = _Output(place)
    for line in _lines(Bounded(stream)):
        output.read(line)
    output.close()
    return [Run(TSC, output.found, tuple(output.doubts()))]


class _Output:
    """What has been read so far, and the diagnostic whose message may go on in the next line."""

    def __init__(self, place: Place) -> None:
        self.found: list[Found] = []
        self._place = place
        self._head: re.Match[str] | None = None
        self._message: list[str] = []
        self._room = 0  # characters of the message that are still kept
        self._going_on = self._pretty = False
        self._told = 0
        self._strange = ""

    def read(self, line: str) -> None:
        """The next line."""
        pictured = self._pretty and _PICTURED.match(line)
        head = None if pictured else _begin(line)
        if head:
            self.close()
            self._head, self._message, self._room = head, [head["text"]], MAX_MESSAGE
            self._going_on, self._pretty = True, head.re is _PRETTY
        elif self._going_on and line[:1] in (" ", "\t") and line.strip():
            if self._room > 0:
                self._message.append(line)
                self._room -= len(line)
        else:
            self._going_on = False
            self._other(line)

    def _other(self, line: str) -> None:
        total = _TOTAL.match(line)
        if total:
            self._told += int(total[1])
        elif line.strip() and not self._strange and not _HARMLESS.match(line):
            self._strange = plain(line, 120) or "characters that are no text"

    def close(self) -> None:
        """The diagnostic that was begun is whole."""
        if self._head:
            if len(self.found) >= MAX_FOUND:
                raise too_many()
            self.found.append(_found(self._head, self._message, self._place))
        self._head = None

    def doubts(self) -> Iterator[str]:
        """Why this may not be all that tsc found."""
        errors = sum(one.level == "error" for one in self.found)
        if self._told > errors:
            yield f"It says that tsc found {self._told} errors and holds {errors}: a part is missing."
        if self._strange and not self.found:
            yield f"It holds no diagnostic, and text that tsc does not print: {self._strange!r}."


def _begin(line: str) -> re.Match[str] | None:
    """The first line of a diagnostic."""
    if " TS" not in line or line[0] in " \t":
        return None
    plainly, prettily = _PLAIN.match(line), _PRETTY.match(line)
    if plainly and prettily:  # one of them is quoted in the message of the other
        return min(plainly, prettily, key=lambda match: match.start("kind"))
    return plainly or prettily or _GLOBAL.match(line)


def _found(head: re.Match[str], message: list[str], place: Place) -> Found:
    in_file = head.re is not _GLOBAL
    return Found(
        file=located(place, head["file"]) if in_file else "",
        line=_number(head["line"]) if in_file else None,
        column=_number(head["column"]) if in_file else None,
        level=_LEVELS[head["kind"]],
        code=f"TS{head['code']}",
        message=plain("\n".join(message), MAX_MESSAGE),
    )


def _number(digits: str) -> int | None:
    number = int(digits)
    return number if 1 <= number <= MAX_NUMBER else None


def _lines(stream: Bounded) -> Iterator[str]:
    """Lines without their ends, colours and what is beyond MAX_LINE. Bytes that are no text become `\ufffd`.

    A redirect in Windows PowerShell writes UTF-16.
    """
    block = stream.read(BLOCK)
    utf16 = block.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    decoder = codecs.getincrementaldecoder("utf-16" if utf16 else "utf-8-sig")("replace")
    rest, skipping = "", False
    while block:
        *whole, rest = (rest + decoder.decode(block)).split("\n")
        for line in whole:
            if not skipping:
                yield from _clean(line)
            skipping = False
        if len(rest) > MAX_LINE:
            if not skipping:
                yield from _clean(rest)
            rest, skipping = "", True
        block = stream.read(BLOCK)
    rest += decoder.decode(b"", final=True)
    if rest and not skipping:
        yield from _clean(rest)


def _clean(line: str) -> list[str]:
    line = line[:MAX_LINE].removesuffix("\r")
    if "\x1b" in line:
        line = _ANSI.sub("", line)
    return line.split("\r") if "\r" in line else [line]
