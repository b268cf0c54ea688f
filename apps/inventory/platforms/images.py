"""How a version is written in the name of a container image."""

import re
from dataclasses import dataclass
from typing import ClassVar

from apps.inventory.platforms.base import PlatformError, Release

_PLACE = re.compile(r"\{(version|commit_sha)\}")
_REFERENCE = re.compile(r"(?P<repository>[a-z0-9][A-Za-z0-9._:/-]{0,254}):(?P<tag>\w[\w.-]{0,127})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Template:
    """An image whose tag holds `{version}` or `{commit_sha}`."""

    PATTERN: ClassVar[tuple[str, str]] = (
        r"[a-z0-9][A-Za-z0-9._:/-]{0,254}:[A-Za-z0-9_.-]{0,60}\{(version|commit_sha)\}[A-Za-z0-9_.-]{0,60}",
        "an image with {version} or {commit_sha} in its tag, such as registry.example.com/shop:{version}",
    )

    text: str

    def of(self, release: Release) -> str:
        """The image of a release. Raises PlatformError for a version that can be no tag."""
        name = _PLACE.search(self.text)
        value = release.commit_sha if name and name[1] == "commit_sha" else release.version
        image = _PLACE.sub(lambda _: value, self.text)
        if not _REFERENCE.fullmatch(image):
            raise PlatformError(
                f"{value[:60]!r} cannot be part of an image's tag, so {self.text} names no image with it: roll it out "
                "by hand."
            )
        return image

    def version_in(self, image: str) -> str:
        """What stands in the version's place in a running image; its tag when it is none of ours."""
        before, _, after = _PLACE.sub("\0", self.text).partition("\0")
        plain = image.partition("@")[0]
        fits = plain.startswith(before) and plain.endswith(after) and len(plain) > len(before) + len(after)
        if not fits or "{commit_sha}" in self.text:
            return self.tag_in(image)
        return plain[len(before) : len(plain) - len(after)]

    @staticmethod
    def tag_in(image: str) -> str:
        """The tag of an image; empty for one that is named by its digest alone, or not at all."""
        found = _REFERENCE.fullmatch(image.partition("@")[0])
        return found["tag"] if found else ""
