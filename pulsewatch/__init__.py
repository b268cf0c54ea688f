"""Pulsewatch: how the apps are put together. The version is the newest one in CHANGELOG.md."""

import re
from pathlib import Path

_CHANGELOG = Path(__file__).resolve().parent.parent / "CHANGELOG.md"
_NEWEST = re.compile(r"^## (\d+\.\d+\.\d+)\b", re.MULTILINE)

__version__ = _NEWEST.findall(_CHANGELOG.read_text(encoding="utf-8"))[0]
