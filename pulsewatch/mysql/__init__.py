"""The database engine of the settings: django-prometheus' MySQL, with cheaper cursors."""
