"""Paths as tools write them, and what lies outside the root."""

import posixpath
from contextlib import suppress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from apps.builds.paths import MAX_PATH, BadPath, Place, from_uri

POSIX, WINDOWS, SHARE = Place("/home/ci/app"), Place("C:\\Work\\app"), Place("//build/share/app")


@pytest.mark.parametrize(
    ("place", "path", "found"),
    [
        (Place(), "src/a.ts", "src/a.ts"),
        (Place(), "./src//b/../a.ts", "src/a.ts"),
        (Place(), "src\\lib/a.ts", "src/lib/a.ts"),
        (POSIX, "/home/ci/app/src/a.ts", "src/a.ts"),
        (POSIX, "/home/ci/app/src/../a.ts", "a.ts"),
        (POSIX, "src/a.ts", "src/a.ts"),
        (POSIX, "../app/src/a.ts", "src/a.ts"),
        (POSIX, "src/(group)/[id]/page 1.tsx", "src/(group)/[id]/page 1.tsx"),
        (Place("/home/ci/app/"), "/home/ci/app/a%20b.ts", "a%20b.ts"),
        (Place("file:///home/ci/my%20app"), "/home/ci/my app/a.ts", "a.ts"),
        (Place("/"), "/a.ts", "a.ts"),
        (WINDOWS, "C:\\Work\\app\\src\\a.ts", "src/a.ts"),
        (WINDOWS, "c:/work/APP/Src/a.ts", "Src/a.ts"),
        (WINDOWS, "src\\a.ts", "src/a.ts"),
        (Place("C:/Work/50%"), "C:\\Work\\50%\\a.ts", "a.ts"),
        (SHARE, "\\\\BUILD\\share\\app\\a.ts", "a.ts"),
        (Place("/repo", "packages/web"), "src/a.ts", "packages/web/src/a.ts"),
        (Place("/repo", "packages/web"), "../shared/b.ts", "packages/shared/b.ts"),
        (Place("/repo", "/repo/packages/web"), "a.ts", "packages/web/a.ts"),
        (Place("", "packages/web"), "../shared/b.ts", "packages/shared/b.ts"),
    ],
)
def test_a_path_is_told_from_the_root(place, path, found):
    assert place.relative(path) == found


@pytest.mark.parametrize(
    ("place", "path", "why"),
    [
        (Place(), "../a.ts", "outside"),
        (Place(), "src/../../a.ts", "outside"),
        (Place(), "/etc/passwd", "say with root"),
        (Place(), "C:\\a.ts", "say with root"),
        (POSIX, "/home/ci/application/a.ts", "outside"),
        (POSIX, "/home/ci/a.ts", "outside"),
        (POSIX, "/home/ci/app/../a.ts", "outside"),
        (POSIX, "../../../../../../a.ts", "outside"),
        (POSIX, "/home/CI/app/a.ts", "outside"),
        (POSIX, "/../../x", "above the file system"),
        (POSIX, "C:\\home\\ci\\app\\a.ts", "outside"),
        (WINDOWS, "D:\\Work\\app\\a.ts", "outside"),
        (WINDOWS, "C:a.ts", "current folder"),
        (WINDOWS, "src\\..\\..\\a.ts", "outside"),
        (SHARE, "\\\\other\\share\\app\\a.ts", "outside"),
        (POSIX, "", "a folder"),
        (POSIX, "/home/ci/app", "a folder"),
        (POSIX, "src/..", "a folder"),
        (POSIX, "a\x00.ts", "control characters"),
        (POSIX, "a\ud800.ts", "half a character"),
        (POSIX, "x" * (MAX_PATH + 1), "1000 characters"),
        (Place("/repo", "packages/web"), "../../../b.ts", "outside"),
    ],
)
def test_what_is_not_inside_is_refused_with_a_sentence(place, path, why):
    with pytest.raises(BadPath, match=why) as caught:
        place.relative(path)

    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("src/a%20b.ts", "src/a b.ts"),
        ("file:///home/ci/a%23b.ts", "/home/ci/a#b.ts"),
        ("file:///home/ci/a.ts#L3", "/home/ci/a.ts"),
        ("file://localhost/home/a.ts", "/home/a.ts"),
        ("file:/home/a.ts", "/home/a.ts"),
        ("file:///C:/Work/a.ts", "C:/Work/a.ts"),
        ("file:///c%3A/Work/a.ts", "c:/Work/a.ts"),
        ("file://C:/Work/a.ts", "C:/Work/a.ts"),
        ("file://server/share/a.ts", "//server/share/a.ts"),
        ("FILE:///a.ts", "/a.ts"),
        ("C:\\Work\\a.ts", "C:\\Work\\a.ts"),
    ],
)
def test_a_uri_names_a_path(uri, path):
    assert from_uri(uri) == path


@pytest.mark.parametrize("uri", ["https://example.com/a.ts", "webpack:///a.ts", "git+ssh://x/y", "data:text/plain,x"])
def test_a_uri_that_names_no_file_is_refused(uri):
    with pytest.raises(BadPath, match="is no file"):
        from_uri(uri)


@pytest.mark.parametrize(("root", "folder"), [("src", ""), ("a\x00", ""), ("/repo", "../x"), ("", "/abs"), ("C:x", "")])
def test_a_root_that_makes_no_sense_is_refused(root, folder):
    with pytest.raises(BadPath):
        Place(root, folder)


SEGMENTS = st.lists(st.sampled_from(["a", "b", "..", ".", "", "app", "C:", "x y", "\\", "é"]), max_size=8)


@given(SEGMENTS, st.sampled_from(["", "/", "/home/ci/app/", "C:\\", "C:/Work/app/", "//build/", "\\\\build\\share\\"]))
@example(["..", "app", "a"], "")
def test_whatever_is_accepted_lies_inside_and_stays_the_same(segments, start):
    path = start + "/".join(segments)
    for place in (Place(), POSIX, WINDOWS, SHARE, Place("/repo", "packages/web")):
        try:
            found = place.relative(path)
        except BadPath:
            continue
        assert found == posixpath.normpath(found)
        assert not found.startswith(("/", "../"))
        assert "\\" not in found
        assert Place().relative(found) == found


@given(st.text(max_size=60), st.text(max_size=20))
def test_no_text_raises_anything_else(path, root):
    for make in (lambda: Place(root).relative(path), lambda: POSIX.relative(from_uri(path)), lambda: Place("/r", root)):
        with suppress(BadPath):
            make()
