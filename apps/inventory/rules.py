"""What addresses may look like. Pure."""

import re
from urllib.parse import urlsplit

# Git's own forms: git@host:owner/name.git and ssh://git@host:22/owner/name.git
_OVER_SSH = re.compile(r"(?:[\w.-]+@[\w.-]+:|ssh://[\w.-]+@[\w.-]+(?::\d{1,5})?/)[\w./~-]+", re.ASCII)
_SPACE_OR_CONTROL = re.compile(r"[\s\x00-\x1f\x7f]")


def http_url_fault(value: str) -> str:
    """Why a text is no address that may be stored and shown, or an empty text.

    Unlike Django's own validator it takes the single-label names of containers and clusters.
    """
    try:
        parts = urlsplit(value)
        named = bool(parts.hostname) and parts.port != 0
    except ValueError:  # an unbalanced bracket, a port that is no port
        return "Enter a URL that starts with http:// or https:// and names a host."
    if parts.scheme not in ("http", "https") or not named or _SPACE_OR_CONTROL.search(value):
        return "Enter a URL that starts with http:// or https:// and names a host."
    if parts.username is not None or parts.password is not None:
        return "Leave user and password out of the URL: it is shown to everyone here."
    return ""


def repository_fault(value: str) -> str:
    """Why a text is no address of a repository, or an empty text."""
    if _OVER_SSH.fullmatch(value) or not http_url_fault(value):
        return ""
    return "Enter the repository's address, such as https://github.com/acme/shop or git@github.com:acme/shop.git."
