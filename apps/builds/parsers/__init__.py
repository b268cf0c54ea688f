"""Readers of what tools report, by format."""

from collections.abc import Mapping

from apps.builds.parsers import sarif, tsc
from apps.builds.parsers.base import Parser

PARSERS: Mapping[str, Parser] = {"tsc": tsc.parse, "sarif": sarif.parse}
