"""Every setting of Pulsewatch, read once from the environment. docs/configure.md describes the variables.

With nothing set, `ENVIRONMENT` is `development` and the embedded default runs: SQLite and a Valkey socket in `var/`,
secrets made on first need. Importing this module with a wrong variable ends the process with status 1, after every
fault has been printed, before a port is opened.
"""

import os
import re
import socket
import sys
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from django.templatetags.static import static

from apps.core.logging import logging_config
from apps.core.redaction import register_secret
from pulsewatch import __version__
from pulsewatch.embedded import embedded_keyset, embedded_secret, embedded_socket
from pulsewatch.env import Reader, bracketed, celery_url, reachable, read_env_file

BASE_DIR = Path(__file__).resolve().parent.parent
_env_file = os.environ.get("ENV_FILE", ".env")
_env_problem = read_env_file(BASE_DIR / _env_file) if _env_file else ""

env = Reader(os.environ)
if _env_problem:
    env.fault("ENV_FILE", _env_problem, ".env")

# --- Where this is ----------------------------------------------------------------------------------------------------
VERSION = __version__
ENVIRONMENT = env.choice("ENVIRONMENT", "development", ("development", "staging", "production"))
DEPLOYED = ENVIRONMENT != "development"
VAR_DIR = Path(env.text("VAR_DIR", str(BASE_DIR / "var"), example="/var/lib/pulsewatch")).absolute()
DEBUG = env.boolean("DEBUG", False)
if DEBUG and DEPLOYED:
    env.fault("DEBUG", f"must be off when ENVIRONMENT is {ENVIRONMENT}", "false")

# --- Secrets ----------------------------------------------------------------------------------------------------------
SECRET_KEY = env.text(
    "SECRET_KEY",
    required=DEPLOYED,
    min_length=50,
    example="$(python -c 'import secrets; print(secrets.token_urlsafe(50))')",
)
if DEPLOYED and SECRET_KEY and (SECRET_KEY.startswith(("django-insecure", "change-me")) or len(set(SECRET_KEY)) < 8):
    env.fault("SECRET_KEY", "is a default or trivial value; generate one", "$(openssl rand -base64 48)")
if not DEPLOYED and not env.given("SECRET_KEY"):
    SECRET_KEY = embedded_secret(VAR_DIR, "secret_key")
BACKUP_KEYSET = env.text("BACKUP_KEYSET", example="$(python manage.py backup new-keyset)")
BACKUP_KEYSET_FILE = env.file_of("BACKUP_KEYSET")  # read again when it is needed: a key rotation writes there
if not DEPLOYED and not env.given("BACKUP_KEYSET"):
    BACKUP_KEYSET = embedded_secret(VAR_DIR, "backup_keyset.json", make=embedded_keyset)
    BACKUP_KEYSET_FILE = VAR_DIR / "backup_keyset.json"
METRICS_TOKEN = env.text(
    "METRICS_TOKEN", min_length=16 if env.given("METRICS_TOKEN") else 0, example="$(openssl rand -hex 32)"
)

# --- Database ---------------------------------------------------------------------------------------------------------
_mysql_example = "mysql://pulsewatch:password@db:3306/pulsewatch"
_database_url = env.url("DATABASE_URL", schemes=("mysql", "sqlite"), example=_mysql_example)
_mysql_variables = ("MYSQL_HOST", "MYSQL_PORT", "MYSQL_USER", "MYSQL_PASSWORD", "MYSQL_DATABASE")
if not env.given("DATABASE_URL") and any(env.given(name) for name in _mysql_variables):
    _database_url = "mysql://{user}:{password}@{host}:{port}/{name}".format(
        user=quote(env.text("MYSQL_USER", "pulsewatch", example="pulsewatch"), safe=""),
        password=quote(env.text("MYSQL_PASSWORD", required=True, example="a-long-password"), safe=""),
        host=bracketed(env.host("MYSQL_HOST", "db", example="db")),
        port=env.integer("MYSQL_PORT", 3306, minimum=1, maximum=65535),
        name=quote(env.text("MYSQL_DATABASE", "pulsewatch_dev", example="pulsewatch"), safe=""),
    )
elif not env.given("DATABASE_URL"):
    if DEPLOYED:
        env.fault("DATABASE_URL", "is required and not set (MYSQL_HOST and its companions do as well)", _mysql_example)
elif DEPLOYED and _database_url.startswith("sqlite"):
    env.fault("DATABASE_URL", f"must name MySQL or MariaDB when ENVIRONMENT is {ENVIRONMENT}", _mysql_example)

# The path of the embedded file is no URL: a folder may be called anything.
_database = env.database(_database_url) if _database_url else {"NAME": str(VAR_DIR / "pulsewatch.sqlite3")}
if _database_url.startswith("mysql"):
    if not _database["NAME"] and env.given("DATABASE_URL"):
        env.fault("DATABASE_URL", "is a URL without a database name", _mysql_example)
    elif not _database["NAME"]:
        env.fault("MYSQL_DATABASE", "is empty", "pulsewatch")
    # Seconds. 0 = wait for ever, right for migrations; pulsewatch.web sets a bound for the web processes, so that a
    # frozen server holds no request thread for good.
    _read_timeout = env.integer("DATABASE_TIMEOUT", 0, minimum=0, maximum=3600)
    _timeouts = {"read_timeout": _read_timeout, "write_timeout": _read_timeout} if _read_timeout else {}
    _database |= {
        "ENGINE": "pulsewatch.mysql",
        "OPTIONS": {
            "charset": "utf8mb4",
            "init_command": "SET sql_mode='STRICT_TRANS_TABLES'",
            "isolation_level": "read committed",
            "connect_timeout": 3,
            **_timeouts,
        },
        "CONN_MAX_AGE": 60,  # seconds; well below MySQL's wait_timeout of 8 hours
        "CONN_HEALTH_CHECKS": True,
        "TEST": {"CHARSET": "utf8mb4", "COLLATION": "utf8mb4_unicode_ci"},
    }
else:
    _database |= {
        "ENGINE": "django_prometheus.db.backends.sqlite3",
        "OPTIONS": {
            # IMMEDIATE takes the write lock at once: a transaction never fails in its middle because another one wrote.
            "transaction_mode": "IMMEDIATE",
            "timeout": 20,  # seconds to wait for that lock
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL",
        },
    }
DATABASES = {"default": _database}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
# E034 keeps index names below 30 characters for Oracle's sake. MySQL allows 64, and operators know these tables by the
# names their indexes have had from the start.
SILENCED_SYSTEM_CHECKS = ["models.E034"]

# --- Redis, Celery ----------------------------------------------------------------------------------------------------
_redis_example = "redis://redis:6379/0"
REDIS_URL = env.redis("REDIS_URL", example=_redis_example, required=DEPLOYED)
# The embedded broker listens on a socket in the folder: no port, so two clones run side by side.
EMBEDDED_SOCKET = None if env.given("REDIS_URL") else embedded_socket(VAR_DIR)
if EMBEDDED_SOCKET:
    REDIS_URL = f"unix://{quote(str(EMBEDDED_SOCKET))}?db=0"
CELERY_BROKER_URL = celery_url(env.redis("CELERY_BROKER_URL", REDIS_URL, example=_redis_example))
CELERY_RESULT_BACKEND = celery_url(env.redis("CELERY_RESULT_BACKEND", REDIS_URL, example=_redis_example))
CELERY_TIMEZONE = "UTC"
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_ACKS_LATE = True
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_TASK_CREATE_MISSING_QUEUES = False
CELERY_TASK_DEFAULT_QUEUE = "fast"
# By name, for a message is sent without importing its task.
CELERY_TASK_ROUTES = {
    name: {"queue": "long"}
    for name in ("backups.run", "backups.restore", "backups.clean_up", "health.roll_up", "alerts.clean_up")
}
# Seconds a task of queue `fast` may run before its process is replaced; `long` tasks name their own limit.
CELERY_TASK_TIME_LIMIT = 120
CELERY_TASK_SOFT_TIME_LIMIT = 100
# Redis hands a message out again after this many seconds, even while its task runs: stands above every hard limit.
CELERY_BROKER_TRANSPORT_OPTIONS = {"visibility_timeout": 24 * 3600, "socket_connect_timeout": 5}
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_CONNECTION_MAX_RETRIES = None  # a broker that comes back after hours finds its workers waiting
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_BEAT_SCHEDULE_FILENAME = str(VAR_DIR / "celerybeat-schedule")

CACHES = {
    "default": {
        "BACKEND": "django_prometheus.cache.backends.redis.RedisCache",
        "LOCATION": REDIS_URL,
        "KEY_PREFIX": "pulsewatch",
        # The cache only saves work: without Redis the console goes on from the database.
        "OPTIONS": {"IGNORE_EXCEPTIONS": True, "SOCKET_CONNECT_TIMEOUT": 1, "SOCKET_TIMEOUT": 1},
    }
}
# In the database alone: a session in a cache that is away while its user signs out would be valid again afterwards.
SESSION_ENGINE = "django.contrib.sessions.backends.db"

# --- Probes, metrics, Pulsewatch's own instance -----------------------------------------------------------------------
PROMETHEUS_METRICS_ENABLED = env.boolean("PROMETHEUS_METRICS_ENABLED", True)
PROMETHEUS_EXPORT_MIGRATIONS = False  # it would query the database when the process starts
READY_TIMEOUT_SECONDS = env.number("READY_TIMEOUT_SECONDS", 0.8, minimum=0.1, maximum=10)
# Into how many parts, each with a process of its own, the checks of endpoints and databases are divided.
PROBE_SHARDS = env.integer("PROBE_SHARDS", 1, minimum=1, maximum=64)
# Whether endpoints and instances may be on the machine that the workers run on.
PROBE_ALLOW_LOOPBACK = env.boolean("PROBE_ALLOW_LOOPBACK", not DEPLOYED)
# Seconds of silence after which the console says that its own data is stale: three missed samples.
STALE_AFTER_SECONDS = 180
HOST = env.host("HOST", "127.0.0.1", example="127.0.0.1")
PORT = env.integer("PORT", 8000, minimum=1, maximum=65535)
WEB_CONCURRENCY = env.integer("WEB_CONCURRENCY", 2, minimum=1, maximum=64)  # gunicorn worker processes
WEB_THREADS = 16  # in each of them; some are kept for probes, see apps.health.middleware
# Where this machine reaches the web server.
LOCAL_URL = f"http://{bracketed(reachable(HOST))}:{PORT}"
# Where people reach the console; links in messages begin with it.
CONSOLE_URL = env.http_url("CONSOLE_URL", "", example="https://pulsewatch.example.com")
# Where the sampler reaches Pulsewatch's own web process.
SELF_URL = env.http_url("SELF_URL", LOCAL_URL, example="http://web:8000")
# A computer may be called anything; the inventory takes letters, digits and some signs.
_hostname = re.sub(r"[^A-Za-z0-9_.-]", "-", socket.gethostname()).lstrip("_.-")[:64] or "pulsewatch"
INSTANCE_ID = env.word("INSTANCE_ID", f"{_hostname}:{PORT}", max_length=100, example="pulsewatch-web-1")
# Both are for `make run`, which also takes the password out of the environment; here it is only checked.
SCHEDULER_ENABLED = env.boolean("SCHEDULER_ENABLED", True)
_admin_password = env.text("PULSEWATCH_ADMIN_PASSWORD", example="a-long-pass-phrase")

# --- Backups ----------------------------------------------------------------------------------------------------------
# A folder, or an S3 bucket as s3://bucket/prefix.
BACKUP_STORAGE = env.text("BACKUP_STORAGE", str(VAR_DIR / "backups"), example="s3://backups/pulsewatch")
BACKUP_STORAGE_OPTIONS = {
    "endpoint": env.url("BACKUP_S3_ENDPOINT", schemes=("https", "http"), example="https://s3.example.com"),
    "access_key": env.text("BACKUP_S3_ACCESS_KEY", example="pulsewatch"),
    "secret_key": env.text("BACKUP_S3_SECRET_KEY", example="a-long-secret"),
    "region": env.text("BACKUP_S3_REGION", example="eu-central-1"),
    "object_lock_days": env.integer("BACKUP_S3_OBJECT_LOCK_DAYS", 0, minimum=0, maximum=3650),
}

# --- Alerts -----------------------------------------------------------------------------------------------------------
# Whether routes may lead to the machine that the workers run on, such as to a mail server there.
ALERT_ALLOW_LOOPBACK = env.boolean("ALERT_ALLOW_LOOPBACK", not DEPLOYED)
# Called once a minute while all is well here, so that whoever listens there notices when it stops. A secret: whoever
# knows it can make us look alive.
DEADMAN_URL = env.url("DEADMAN_URL", schemes=("https", "http"), example="https://hc-ping.example.com/a-long-secret")

# --- Webhooks that come in --------------------------------------------------------------------------------------------
_webhook_example = "$(openssl rand -hex 32)"
# What the senders sign with; a source without one is not listened to.
WEBHOOK_SECRETS = {
    "github": env.text(
        "GITHUB_WEBHOOK_SECRET",
        min_length=16 if env.given("GITHUB_WEBHOOK_SECRET") else 0,
        example=_webhook_example,
    ),
    "zeabur": env.text(
        "ZEABUR_WEBHOOK_SECRET",
        min_length=16 if env.given("ZEABUR_WEBHOOK_SECRET") else 0,
        example=_webhook_example,
    ),
}
# Their names of environments beside the usual ones, in lower case.
WEBHOOK_ENVIRONMENTS = env.pairs(
    "WEBHOOK_ENVIRONMENTS",
    values=("development", "staging", "production"),
    example="live-eu=production,qa=staging",
)

# --- Web --------------------------------------------------------------------------------------------------------------
ALLOWED_HOSTS = env.hosts("ALLOWED_HOSTS", "localhost,127.0.0.1")
if not env.given("ALLOWED_HOSTS") and bracketed(reachable(HOST)) not in ALLOWED_HOSTS:
    ALLOWED_HOSTS.append(bracketed(reachable(HOST)))
CORS_ORIGINS = env.origins("CORS_ORIGINS")
# Requests a minute that each API token may make; 0: any number.
API_RATE_LIMIT = env.integer("API_RATE_LIMIT", 600, minimum=0, maximum=10_000_000)
# Hours without news of a build after which it is over.
BUILD_TIMEOUT_HOURS = env.integer("BUILD_TIMEOUT_HOURS", 6, minimum=1, maximum=720)
CSRF_TRUSTED_ORIGINS = env.origins("CSRF_TRUSTED_ORIGINS")
if not CONSOLE_URL:
    CONSOLE_URL = CSRF_TRUSTED_ORIGINS[0] if CSRF_TRUSTED_ORIGINS else LOCAL_URL
# How many proxies of ours stand in front: that many entries from the right of X-Forwarded-For are believed.
TRUSTED_PROXIES = env.integer("TRUSTED_PROXIES", 0, minimum=0, maximum=10)
if TRUSTED_PROXIES:
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
SECURE_SSL_REDIRECT = env.boolean("SECURE_SSL_REDIRECT", DEPLOYED)
SESSION_COOKIE_SECURE = env.boolean("SESSION_COOKIE_SECURE", DEPLOYED)
CSRF_COOKIE_SECURE = env.boolean("CSRF_COOKIE_SECURE", DEPLOYED)
# Seconds browsers remember to use HTTPS only: one year in production and staging; 0 switches it off.
SECURE_HSTS_SECONDS = env.integer("SECURE_HSTS_SECONDS", 31_536_000 if DEPLOYED else 0, minimum=0, maximum=63_072_000)
SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = bool(SECURE_HSTS_SECONDS)
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
SESSION_COOKIE_AGE = 12 * 3600  # seconds: one long shift
SESSION_COOKIE_NAME = f"pulsewatch_{PORT}_session"  # cookies ignore ports: two clones on one laptop stay signed in
CSRF_COOKIE_NAME = f"pulsewatch_{PORT}_csrf"
ROOT_URLCONF = "pulsewatch.urls"
WSGI_APPLICATION = "pulsewatch.wsgi.application"

INSTALLED_APPS = [
    "apps.console",
    "unfold",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
    "django_prometheus",
    "axes",
    "apps.core",
    "apps.alerts",
    "apps.inventory",
    "apps.health",
    "apps.backups",
    "apps.builds",
    "apps.deployments",
    "apps.scaling",
    "ninja",
    "apps.api",
]
MIDDLEWARE = [
    # Probes come first: nothing above them may refuse a host, redirect, or touch a session or a database.
    "apps.health.middleware.ProbeMiddleware",
    "apps.core.middleware.RequestMiddleware",
    "apps.api.middleware.ApiMiddleware",
    "django_prometheus.middleware.PrometheusBeforeMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "axes.middleware.AxesMiddleware",
    "django_prometheus.middleware.PrometheusAfterMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]

# --- Sign-in ----------------------------------------------------------------------------------------------------------
AUTHENTICATION_BACKENDS = ["axes.backends.AxesStandaloneBackend", "django.contrib.auth.backends.ModelBackend"]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 12}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "django.contrib.auth.password_validation.NumericPasswordValidator"},
]
LOGIN_URL = "admin:login"
# Five wrong passwords for one user from one address lock that pair out for a quarter of an hour.
AXES_FAILURE_LIMIT = 5
AXES_COOLOFF_TIME = 0.25  # hours
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
AXES_RESET_ON_SUCCESS = True
AXES_CLIENT_IP_CALLABLE = "apps.core.middleware.client_address"
AXES_SENSITIVE_PARAMETERS = ["password"]
AXES_ENABLE_ADMIN = False
AXES_VERBOSE = False

# --- Language, time, files --------------------------------------------------------------------------------------------
LANGUAGE_CODE = "en-us"
TIME_ZONE = "UTC"
USE_I18N = False
USE_TZ = True
FORMAT_MODULE_PATH = ["pulsewatch.formats"]
STATIC_URL = "static/"
# The image carries collected, fingerprinted files; a clone serves them straight from the packages.
_static = BASE_DIR / "build" / "static"
_collected = sys.argv[1:2] == ["collectstatic"] or (DEPLOYED and (_static / "staticfiles.json").is_file())
STATIC_ROOT = _static if _collected else None
WHITENOISE_USE_FINDERS = not _collected
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {
        "BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"
        if _collected
        else "django.contrib.staticfiles.storage.StaticFilesStorage"
    },
}

# --- Logs -------------------------------------------------------------------------------------------------------------
LOG_LEVEL = env.choice("LOG_LEVEL", "INFO", ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"))
LOGGING = logging_config(LOG_LEVEL)

# --- Console ----------------------------------------------------------------------------------------------------------
UNFOLD = {
    "SITE_TITLE": "Pulsewatch",
    "SITE_HEADER": "Pulsewatch",
    "SITE_SUBHEADER": f"version {VERSION}",
    "SITE_SYMBOL": "ecg_heart",
    "SITE_FAVICONS": [{"rel": "icon", "type": "image/svg+xml", "href": lambda _: static("console/pulse.svg")}],
    "SHOW_VIEW_ON_SITE": False,
    "ENVIRONMENT": "apps.console.navigation.environment_label",
    "DASHBOARD_CALLBACK": "apps.console.dashboard.dashboard",
    "SIDEBAR": {"show_search": False, "navigation": "apps.console.navigation.navigation"},
    "COMMAND": {"search_models": False},
}

env.exit_on_faults()
_urls = (REDIS_URL, CELERY_BROKER_URL, CELERY_RESULT_BACKEND)
for _secret in (
    *(SECRET_KEY, METRICS_TOKEN, BACKUP_KEYSET, str(BACKUP_STORAGE_OPTIONS["secret_key"]), _admin_password),
    *WEBHOOK_SECRETS.values(),
    DEADMAN_URL,
    *(str(_database.get("PASSWORD") or ""), *(unquote(urlsplit(url).password or "") for url in _urls)),
):
    register_secret(_secret)
