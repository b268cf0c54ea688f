"""The least Django that answers an API request: no middleware at all."""

from bench.peers.settings import *  # noqa: F403  (the same database; only what follows differs)

INSTALLED_APPS = ["bench.peers"]
MIDDLEWARE: list[str] = []
ROOT_URLCONF = "bench.peers.ninja_urls"
