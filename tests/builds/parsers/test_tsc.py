"""What tsc prints. The two files in `outputs` were printed by TypeScript 5.6.3 for one small project."""

import re
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.builds.parsers import base
from apps.builds.parsers.base import BadReport, Found
from apps.builds.parsers.tsc import MAX_LINE, parse
from apps.builds.paths import Place
from apps.builds.rules import MAX_MESSAGE

OUTPUTS = Path(__file__).parent / "outputs"
PLACE = Place("/work/app")
ONE = "src/a.ts(12,5): error TS2322: Type 'string' is not assignable to type 'number'.\n"
A = Found("src/a.ts", 12, 5, "error", "TS2322", "Type 'string' is not assignable to type 'number'.")


class Trickle(BytesIO):
    """A stream that gives a few bytes at a time."""

    def read(self, size=-1, /):
        return super().read(min(size, 7))


def read(text: str | bytes, place: Place = PLACE):
    (run,) = parse(BytesIO(text.encode() if isinstance(text, str) else text), place)
    assert run.tool == "tsc"
    return run


def test_plain_and_pretty_output_of_the_compiler_say_the_same():
    plain = read((OUTPUTS / "tsc-plain.txt").read_bytes())
    pretty = read((OUTPUTS / "tsc-pretty.txt").read_bytes())

    assert list(plain.found) == list(pretty.found)
    assert (len(plain.found), plain.doubts, pretty.doubts) == (17, (), ())
    assert plain.found[0].file == "src/(admin)/page.ts"
    last = plain.found[-1]
    assert (last.file, last.line, last.column, last.code) == ("src/prices.ts", 12, 14, "TS2322")
    assert last.message.splitlines()[-1] == "        Type 'number' is not assignable to type 'string'."


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("name", ["tsc-plain.txt", "tsc-pretty.txt"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_line_ends_and_encodings_of_windows_make_no_difference(ending, name, encoding):
    text = (OUTPUTS / name).read_text()
    (run,) = parse(Trickle(text.replace("\n", ending).encode(encoding)), PLACE)

    assert list(run.found) == list(read(text).found)


def test_pretty_output_without_its_colours_reads_the_same():
    text = (OUTPUTS / "tsc-pretty.txt").read_text()
    bare = re.sub(r"\x1b\[[0-9;]*m", "", text)

    assert "\x1b" not in bare
    assert list(read(bare).found) == list(read(text).found)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (ONE, [A]),
        (ONE.rstrip("\n"), [A]),
        ("C:\\Work\\app\\src\\a.ts(12,5): error TS2322: Type 'string' is not assignable to type 'number'.\r\n", [A]),
        (
            "error TS18003: No inputs were found.\n",
            [Found("", None, None, "error", "TS18003", "No inputs were found.")],
        ),
        ("a.ts(1,1): warning TS1: w\n", [Found("a.ts", 1, 1, "warning", "TS1", "w")]),
        ("a.ts(1,1): message TS1: m\n", [Found("a.ts", 1, 1, "note", "TS1", "m")]),
        ("a.ts(1,1): suggestion TS1: s\n", [Found("a.ts", 1, 1, "note", "TS1", "s")]),
        ("a.ts(0,0): error TS1: e\n", [Found("a.ts", None, None, "error", "TS1", "e")]),
        ("a.ts(9999999999,1): error TS1: e\n", [Found("a.ts", None, 1, "error", "TS1", "e")]),
        (
            "a(1,2).ts(3,4): error TS1: like b.ts(5,6): error TS2: x\n",
            [Found("a(1,2).ts", 3, 4, "error", "TS1", "like b.ts(5,6): error TS2: x")],
        ),
        (
            "a.ts(3,4): error TS1: like b.ts:5:6 - error TS2: x\n",
            [Found("a.ts", 3, 4, "error", "TS1", "like b.ts:5:6 - error TS2: x")],
        ),
        (
            "a.ts:3:4 - error TS1: like b.ts(5,6): error TS2: x\n",
            [Found("a.ts", 3, 4, "error", "TS1", "like b.ts(5,6): error TS2: x")],
        ),
        ("a.ts(1,1): error TS1: e\n  more\n\n  not more\n", [Found("a.ts", 1, 1, "error", "TS1", "e\n  more")]),
        (
            "a.ts(1,1): error TS1: e\n  b.ts(2,2): error TS2: x\n",
            [Found("a.ts", 1, 1, "error", "TS1", "e\n  b.ts(2,2): error TS2: x")],
        ),
        ("a.ts(1,1): error TS1: e\nnoise\n  not more\n", [Found("a.ts", 1, 1, "error", "TS1", "e")]),
        ("a.ts(1,1): error TS1: \xe9\x07\n", [Found("a.ts", 1, 1, "error", "TS1", "\xe9")]),
        ("50%\r99%\ra.ts(1,1): error TS1: e\n", [Found("a.ts", 1, 1, "error", "TS1", "e")]),
        (
            "a.ts:1:1 - error TS1: e\n\n1 b.ts:7:7 - error TS2: in a text of the source\n  ~~~\n",
            [Found("a.ts", 1, 1, "error", "TS1", "e")],
        ),
    ],
)
def test_each_form_of_a_diagnostic(text, found):
    place = Place("C:/Work/app") if "C:" in text else PLACE
    assert list(read(text, place).found) == found


def test_bytes_that_are_no_text_lose_no_diagnostic():
    (one,) = read(b"src/a.ts(1,2): error TS1: caf\xe9 \xff\xfe\n").found

    assert (one.file, one.message) == ("src/a.ts", "caf\ufffd \ufffd\ufffd")


def test_a_huge_line_is_cut_and_the_next_one_read():
    text = "x" * 10_000_000 + "\n" + ONE + f"b.ts(1,1): error TS1: {'y' * 5_000_000}\n" + ONE
    run = read(text)

    assert [one.code for one in run.found] == ["TS2322", "TS1", "TS2322"]
    assert len(run.found[1].message) == MAX_MESSAGE
    assert MAX_LINE > MAX_MESSAGE


def test_a_message_of_many_lines_is_cut():
    (one,) = read("a.ts(1,1): error TS1: e\n" + "  more\n" * 100_000).found

    assert len(one.message) == MAX_MESSAGE


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n\n",
        "> app@1.0.0 check\n> tsc --noEmit\n\n",
        "$ tsc --noEmit\nDone in 1.20s.\n",
        "/work/app/node_modules/typescript/lib/lib.es5.d.ts\n/work/app/src/a.tsx\n",
        "Files:              312\nLines of Library: 41000\nTotal time:        2.31s\nMemory used: 120000K\n",
        "[10:12:13 AM] Found 0 errors. Watching for file changes.\n",
        "9:02:48 AM - Projects in this build: \n    * tsconfig.json\n",
        "Version 5.6.3\n",
    ],
)
def test_a_run_that_found_nothing_leaves_no_doubt(text):
    assert read(text) == base.Run("tsc", [])


@pytest.mark.parametrize(
    ("text", "doubt"),
    [
        ("sh: 1: tsc: not found\n", "sh: 1: tsc: not found"),
        ('npm ERR! Missing script: "check"\n', "npm ERR!"),
        ("<html>502 Bad Gateway</html>", "502"),
        ("\x1b[31mFATAL ERROR: heap out of memory\x1b[0m\n", "heap out of memory"),
        (ONE + "\nFound 2 errors in 2 files.\n", "found 2 errors and holds 1"),
        ("Found 1 error.\n", "found 1 errors and holds 0"),
        ("\0" * 100, "characters that are no text"),
    ],
)
def test_output_that_may_not_be_whole_is_doubted(text, doubt):
    assert doubt in read(text).doubts[0]


@pytest.mark.parametrize("path", ["../a.ts", "/etc/passwd", "C:\\a.ts", "\\\\server\\share\\a.ts"])
def test_a_path_outside_the_root_is_refused(path):
    with pytest.raises(BadReport):
        read(f"{path}(1,1): error TS1: e\n")


def test_too_much_is_refused(monkeypatch):
    monkeypatch.setattr("apps.builds.parsers.tsc.MAX_FOUND", 3)
    assert len(read(ONE * 3).found) == 3
    with pytest.raises(BadReport, match="report in parts"):
        read(ONE * 4)
    monkeypatch.setattr(base, "MAX_BYTES", 1000)
    with pytest.raises(BadReport, match="larger than"):
        read("x" * 1001)


LINES = st.one_of(
    st.text(max_size=40),
    st.sampled_from(
        ["  more of it", "Found 3 errors.", "1 const x = 1", "  ~~~", "a.ts(1,1): error", "TS1: x", "\x1b[7m1\x1b[0m"]
    ),
)


@settings(max_examples=200)
@given(st.binary(max_size=300))
def test_no_bytes_raise_anything_but_a_bad_report(data):
    try:
        (run,) = parse(Trickle(data), PLACE)
    except BadReport:
        return
    assert isinstance(run.found, list)


FOUND = st.builds(
    Found,
    file=st.from_regex(r"\A[a-z]{1,8}(/[a-z(\[][a-z)\] .0-9]{0,8}[a-z]){0,2}\.tsx?\Z"),
    line=st.integers(1, 10**6),
    column=st.integers(1, 10**4),
    level=st.sampled_from(["error", "warning"]),
    code=st.integers(1, 99_999).map("TS{}".format),
    message=st.from_regex(r"\A[A-Z][a-z' ]{0,30}[a-z](\n  [a-z' ]{0,20}[a-z]){0,2}\Z"),
)


@settings(max_examples=60)
@given(
    st.lists(st.tuples(FOUND, st.lists(LINES, max_size=3)), max_size=8), st.booleans(), st.sampled_from(["\n", "\r\n"])
)
def test_whatever_stands_between_no_diagnostic_is_lost(items, pretty, ending):
    text = ""
    for one, noise in items:
        place = f"{one.file}:{one.line}:{one.column} -" if pretty else f"{one.file}({one.line},{one.column}):"
        text += f"{place} {one.level} {one.code}: {one.message}\n\n"
        text += "".join(f"{line.translate({10: ' ', 13: ' '})}\n" for line in noise if " TS" not in line)
    run = read(text.replace("\n", ending))

    assert list(run.found) == [one for one, _ in items]
