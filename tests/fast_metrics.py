"""Pulsewatch's WSGI application with stored figures that are read again four times a second, not every five."""

from apps.core import stored_metrics
from pulsewatch.wsgi import application

stored_metrics.REUSE_SECONDS = 0.25

__all__ = ["application"]
