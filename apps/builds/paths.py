"""Where a diagnostic's file lies within the checkout, whatever way the tool wrote it. Pure; no file is touched.

Tools write `src/a.ts`, `src\\a.ts`, `C:\\app\\src/a.ts`, `/home/ci/app/src/a.ts` and `file:///home/ci/app/src/a.ts` for
one file. Stored is `src/a.ts`: the path from the root of the checkout, with slashes. What lies outside is refused.
"""

import re
from dataclasses import dataclass, field
from functools import lru_cache
from urllib.parse import unquote

MAX_PATH = 1000  # characters; Linux allows 4096, no repository comes near

_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]+):")  # two letters at least: one is a drive
_DRIVE = re.compile(r"^([A-Za-z]):([\\/]?)")
_BAD = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")


class BadPath(ValueError):
    """A path that names no file inside the root. The text says why and what to do."""


@dataclass(frozen=True, slots=True)
class _Path:
    """An absolute path has an anchor: `/`, a drive (`c:`) or a share (`//server`). The parts hold no `.` and no `..`
    except those that lead up from where a relative path starts.
    """

    anchor: str
    parts: tuple[str, ...]


def from_uri(uri: str) -> str:
    """The path a URI or relative reference names. Raises BadPath for anything but files."""
    scheme = _SCHEME.match(uri)
    if scheme is None:
        return unquote(uri)
    if scheme[1].lower() != "file":
        raise BadPath(f"A diagnostic names {_shown(uri)}, which is no file: only file: and relative references are.")
    rest = re.split(r"[?#]", uri[len(scheme[0]) :], maxsplit=1)[0]
    if rest.startswith("//"):
        host, _, path = rest[2:].partition("/")
        if host and host.lower() != "localhost" and not _DRIVE.match(host):
            return f"//{host}/{unquote(path)}"
        rest = f"{host}/{path}" if _DRIVE.match(host) else f"/{path}"
    path = unquote(rest)
    return path[1:] if re.match(r"^/[A-Za-z]:", path) else path


def _parse(path: str) -> _Path:
    if _BAD.search(path):
        raise BadPath("A path holds control characters or half a character: the report is damaged.")
    slashed = path.replace("\\", "/")
    drive = _DRIVE.match(slashed)
    if drive:
        if not drive[2]:
            raise BadPath(f"The path {_shown(path)} depends on a drive's current folder: name it in full.")
        anchor, rest = f"{drive[1].lower()}:", slashed[2:]
    elif slashed.startswith("//") and not slashed.startswith("///"):
        server, _, rest = slashed[2:].partition("/")
        anchor = f"//{server.lower()}"
    else:
        anchor, rest = "/" if slashed.startswith("/") else "", slashed
    parts: list[str] = []
    for part in rest.split("/"):
        if part == ".." and (anchor or (parts and parts[-1] != "..")):
            if not parts:
                raise BadPath(f"The path {_shown(path)} leads above the file system's top.")
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    return _Path(anchor, tuple(parts))


@dataclass(frozen=True, slots=True)
class Place:
    """What the paths of one report stand on.

    `root` is the checkout's absolute path on the machine that built; without it only relative paths are understood.
    `folder` is where relative paths start when that is not the root, such as `packages/web`; absolute or from the root.
    """

    root: str = ""
    folder: str = ""
    _root: _Path = field(init=False, repr=False, compare=False)
    _folder: tuple[str, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        root = _parse(_given(self.root))
        if self.root and not root.anchor:
            raise BadPath("The root is the checkout's absolute path, such as /home/runner/work/app/app.")
        object.__setattr__(self, "_root", root)
        object.__setattr__(self, "_folder", ())
        object.__setattr__(self, "_folder", self._within(_parse(_given(self.folder)), self.folder))

    def relative(self, path: str) -> str:
        """The path from the root, with slashes. Raises BadPath when it lies outside or names no file."""
        return _relative(self, path)

    def _within(self, found: _Path, path: str) -> tuple[str, ...]:
        if not found.anchor:
            found = _joined(self._root.parts + self._folder, found.parts, path)
        elif not self._root.anchor:
            raise BadPath(f"The path {_shown(path)} is absolute: say with root where the checkout lay.")
        elif found.anchor != self._root.anchor:
            raise _outside(path)
        top = self._root.parts
        same = _same_on_windows if self._root.anchor != "/" else tuple.__eq__
        if not same(found.parts[: len(top)], top):
            raise _outside(path)
        return found.parts[len(top) :]


def _given(path: str) -> str:
    return from_uri(path) if path[:5].lower() == "file:" else path  # in a plain path a % is a %


@lru_cache(maxsize=4096)  # a report names the same files over and over
def _relative(place: Place, path: str) -> str:
    parts = place._within(_parse(path), path)
    if not parts:
        raise BadPath(f"The path {_shown(path)} names a folder, not a file.")
    found = "/".join(parts)
    if _DRIVE.match(found):
        raise BadPath(f"The path {_shown(path)} names a drive within a folder.")
    if len(found) > MAX_PATH:
        raise BadPath(f"A path has more than {MAX_PATH} characters: {_shown(path)}.")
    return found


def _joined(start: tuple[str, ...], parts: tuple[str, ...], path: str) -> _Path:
    up = sum(part == ".." for part in parts)  # they all stand in front
    if up > len(start):
        raise _outside(path)
    return _Path("", start[: len(start) - up] + parts[up:])


def _same_on_windows(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    return tuple(map(str.casefold, one)) == tuple(map(str.casefold, other))


def _outside(path: str) -> BadPath:
    return BadPath(f"The path {_shown(path)} lies outside the root: nothing of this report was stored.")


def _shown(path: str) -> str:
    return repr(path if len(path) <= 120 else f"{path[:60]}…{path[-59:]}")
