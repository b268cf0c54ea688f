"""Time zones by their IANA names."""

from zoneinfo import ZoneInfo, ZoneInfoNotFoundError


class UnknownZone(ValueError):
    """The text says so and gives an example."""


def zone(name: str) -> ZoneInfo:
    """A time zone by its IANA name. Raises UnknownZone."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise UnknownZone("There is no such time zone; use an IANA name such as Europe/Berlin or UTC.") from error
