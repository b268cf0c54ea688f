"""A project that has django-dbbackup make its backups, into the folder and from the database of its environment."""

import os
from urllib.parse import unquote, urlsplit

_url = urlsplit(os.environ["DATABASE_URL"])

SECRET_KEY = "bench"
USE_TZ = True
INSTALLED_APPS = ["dbbackup"]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.mysql",
        "HOST": _url.hostname,
        "PORT": _url.port,
        "USER": _url.username,
        "PASSWORD": unquote(_url.password or ""),
        "NAME": _url.path.removeprefix("/"),
    }
}
STORAGES = {
    "dbbackup": {
        "BACKEND": "django.core.files.storage.FileSystemStorage",
        "OPTIONS": {"location": os.environ["DBBACKUP_FOLDER"]},
    }
}
DBBACKUP_TMP_DIR = os.environ["DBBACKUP_FOLDER"]
