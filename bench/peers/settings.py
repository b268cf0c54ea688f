"""An ordinary Django project: the usual middleware, no probes of ours."""

from pulsewatch.settings import *  # noqa: F403  (the same database, Redis and keys; only what follows differs)

ROOT_URLCONF = "bench.peers.urls"
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
INSTALLED_APPS = [*INSTALLED_APPS, "bench.peers"]  # noqa: F405
