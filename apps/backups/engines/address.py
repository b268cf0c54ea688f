"""Which URLs name a database that can be backed up."""

from apps.backups.engines.base import EngineError
from apps.inventory import addresses
from apps.inventory.addresses import Address


def parse_url(url: str) -> Address:
    """The address a URL names. EngineError says what is wrong with it, without any part of it."""
    try:
        address = addresses.parse_url(url)
    except addresses.AddressInvalid as error:
        raise EngineError(str(error)) from None
    if address.engine == "redis":
        raise EngineError("Redis is watched, and never backed up.")
    return address
