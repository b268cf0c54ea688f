"""Where Django looks for an engine's connection."""

from functools import cache
from typing import Any

from django_prometheus.db.backends.mysql import base
from django_prometheus.db.common import ExportingCursorWrapper

_counting = cache(ExportingCursorWrapper)


class DatabaseWrapper(base.DatabaseWrapper):
    """Its cursors count statements as django-prometheus' do, by a class that is not made anew for each of them."""

    def create_cursor(self, name: str | None = None) -> Any:
        return _counting(self.CURSOR_CLASS, self.alias, self.vendor)(self.connection.cursor())
