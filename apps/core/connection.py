"""A connection to Pulsewatch's own database that gives up soon."""

from typing import Any

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.utils import load_backend

# Whole seconds, the smallest MySQL's client library knows.
DRIVER_TIMEOUT = 1


def bounded() -> BaseDatabaseWrapper:
    """A wrapper that is not connected yet; a server that does not answer fails it after a second, not after ten."""
    configured: dict[str, Any] = connections["default"].settings_dict
    options = dict(configured["OPTIONS"])
    if "mysql" in configured["ENGINE"]:
        options |= dict.fromkeys(("connect_timeout", "read_timeout", "write_timeout"), DRIVER_TIMEOUT)
    wrapper: BaseDatabaseWrapper = load_backend(configured["ENGINE"]).DatabaseWrapper(
        {**configured, "OPTIONS": options}, alias="default"
    )
    return wrapper
