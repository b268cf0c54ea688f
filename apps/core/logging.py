"""One JSON object a line on stdout, without a secret in it.

`RedactionFilter` cleans a record before any formatter sees it; `JsonFormatter` writes it with these fields:

- always `timestamp` (ISO 8601, UTC, microseconds), `level`, `logger`, `message`, `event`, `event_type`, `module` and
  `function`;
- where they apply those of `APPLICABLE`, taken from `extra=`, else from `apps.core.context`;
- every other key of `extra=` under its own name, or as `<name>_given` where that is taken by one of the fields above.

`event` says what happened (`backup_completed`); without one it is `error` from level ERROR up, else `log`. `event_type`
is one of `EVENT_TYPES`. Without one, or with an unknown one (kept as `event_type_given`), the logger decides
(`_TYPE_OF_LOGGER`, the closest parent counts), else `task` inside a task, `request` inside a request. What is left is
what a process says about itself: `startup_error` from level ERROR up, for little else fails there, else `health`.
"""

import json
import logging
import re
import sys
import textwrap
import threading
import traceback
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import lru_cache, partial
from numbers import Number
from types import TracebackType
from typing import Any

from pythonjsonlogger.json import JsonFormatter as BaseJsonFormatter

from apps.core import context
from apps.core.redaction import (
    CONTAINERS,
    CUT,
    MAX_TEXT,
    PLACEHOLDER,
    announces_secret,
    is_sensitive,
    redact,
    redact_value,
    redacted_message,
    summary,
)

EVENT_TYPES = frozenset(
    {"auth_failure", "authz_failure", "db_error", "validation_error", "startup_error"}
    | {"request", "task", "health", "backup", "deployment", "scaling", "alert", "audit"}
)
APPLICABLE = (
    *("request_id", "user_id", "ip_address", "method", "path", "status_code", "duration_ms"),
    *("resource_id", "task_id", "error", "exception", "stack_trace"),
)

MAX_CHAIN = 20  # exceptions shown of one chain of causes
MAX_FRAMES = 50  # frames shown of one traceback, the innermost: a runaway recursion has a thousand
MAX_GROUP = 15  # exceptions shown of one group, as Python itself does
MAX_GROUP_DEPTH = 4  # groups inside groups

_TYPE_OF_LOGGER = {
    "aiohttp": "request",
    "amqp": "task",
    "apps.alerts": "alert",
    "apps.api": "request",
    "apps.backups": "backup",
    "apps.builds": "deployment",
    "apps.console": "request",
    "apps.core.audit": "audit",
    "apps.deployments": "deployment",
    "apps.health": "health",
    "apps.scaling": "scaling",
    "axes": "auth_failure",
    "billiard": "task",
    "celery": "task",
    "django.request": "request",
    "django.security": "authz_failure",
    "django.security.DisallowedHost": "validation_error",
    "django.server": "request",
    "gunicorn.access": "request",
    "kombu": "task",
}
_ERROR_TYPE_OF_LOGGER = {"django.db": "db_error"}  # from level ERROR up

# ---- Exceptions ------------------------------------------------------------------------------------------------------

_CAUSE = "\nThe above exception was the direct cause of the following exception:\n\n"
_CONTEXT = "\nDuring handling of the above exception, another exception occurred:\n\n"


def stack_trace(error: BaseException, trace: TracebackType | None = None, depth: int = MAX_GROUP_DEPTH) -> str:
    """The redacted traceback of an exception with its causes, notes and group members, laid out as Python does.

    Each message is redacted on its own, before indentation or a neighbour can disguise a secret in it. Never raises.
    """
    try:
        text = "".join(_chain(error, trace, depth))
    except Exception:  # A stranger's exception may fail in any attribute; its class and message must still come out.
        return summary(error) + "\n"
    half = MAX_TEXT // 2
    return text if len(text) <= MAX_TEXT else f"{text[:half]}\n{CUT}\n{text[-half:]}"


def _chain(error: BaseException, trace: TracebackType | None, depth: int) -> Iterator[str]:
    links: list[tuple[BaseException, str]] = []
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen and len(links) < MAX_CHAIN:
        seen.add(id(current))
        links.append((current, _CONTEXT if current.__cause__ is None else _CAUSE))
        older = None if current.__suppress_context__ else current.__context__
        current = current.__cause__ or older
    for index, (link, sentence) in enumerate(reversed(links)):
        if index:
            yield sentence
        yield from _single(link, trace if link is error and trace is not None else link.__traceback__, depth)


def _single(error: BaseException, trace: TracebackType | None, depth: int) -> Iterator[str]:
    if trace is not None:
        yield "Traceback (most recent call last):\n"
        yield from map(redact, traceback.extract_tb(trace, limit=-MAX_FRAMES).format())
    kind = type(error)
    yield f"{summary(error) if kind.__module__ == 'builtins' else f'{kind.__module__}.{summary(error)}'}\n"
    notes = getattr(error, "__notes__", ())
    for note in notes if isinstance(notes, list | tuple) else ():
        yield f"{redact_value(None, note)}\n"
    if isinstance(error, BaseExceptionGroup):
        members = error.exceptions[: MAX_GROUP if depth > 0 else 0]
        for number, member in enumerate(members, start=1):
            yield f"  + {number} of {len(error.exceptions)}:\n"
            yield textwrap.indent(stack_trace(member, depth=depth - 1), "  | ")
        if len(members) < len(error.exceptions):
            yield f"  + {CUT}\n"


# ---- Messages --------------------------------------------------------------------------------------------------------

_SPEC = re.compile(r"%(?:\((?P<name>[^)]{0,100})\))?[-#0 +]*(?:\d+|\*)?(?:\.(?:\d+|\*))?[hlL]?(?P<type>[a-zA-Z%])")


def _message(template: object, args: object) -> str:
    """`template % args`, redacted; arguments that do not fit are left out, for they may be anything."""
    if not isinstance(template, str):
        template = str(redact_value(None, template))
    if args:
        try:
            return str(redact_value(None, _merge(str.__str__(template), args)))
        except Exception:  # A wrong number or type of arguments, or an object whose text cannot be had.
            template += " [arguments left out: they do not fit the text]"
    return str(redact_value(None, template))


def _merge(template: str, args: object) -> str:
    """The text with its arguments; one that the template itself calls a secret is hidden whole.

    So `"password=%s"` hides a password with spaces in it, which no one could tell apart afterwards.
    """
    places = _places(template)
    if isinstance(args, Mapping):
        hidden = {name for name, hide in places if hide or is_sensitive(name)}
        return template % {name: PLACEHOLDER if name in hidden else _safe(args[name]) for name, _ in places if name}
    values = [_safe(value) for value in (args if isinstance(args, tuple) else (args,))]
    if len(places) == len(values):
        values = [PLACEHOLDER if hide else value for value, (_, hide) in zip(values, places, strict=True)]
    return template % tuple(values)


@lru_cache(maxsize=1024)
def _places(template: str) -> tuple[tuple[str, bool], ...]:
    """The places of a template: the name of each (may be empty), and whether the text around it announces a secret."""
    return tuple(
        (spec["name"] or "", spec["type"] in "sra" and announces_secret(template, spec.start(), spec.end()))
        for spec in _SPEC.finditer(template)
        if spec["type"] != "%"
    )


def _safe(argument: object) -> object:
    """An argument redacted before its neighbours can disguise a secret in it, and still fit for `%d` or `%r`."""
    if argument is None or isinstance(argument, Number):
        return argument
    return redact_value(None, argument) if isinstance(argument, (str, *CONTAINERS)) else _Redacted(argument)


class _Redacted:
    """An object whose texts come out redacted."""

    __slots__ = ("_object",)

    def __init__(self, of: object) -> None:
        self._object = of

    def __str__(self) -> str:
        return str(redact_value(None, str(self._object)))

    def __repr__(self) -> str:
        return str(redact_value(None, repr(self._object)))


# ---- Records ---------------------------------------------------------------------------------------------------------

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"asctime", "message", "taskName"}
_SEAL = object()  # marks a record that is clean, so that a second handler or the formatter does not do it all again
_SEALED = "_sealed"


def redact_record(record: logging.LogRecord) -> None:
    """Clean a record in place: message with arguments, extras, exception and stack. Never raises.

    Afterwards `args` is empty and `exc_info` None; `exc_text` holds the redacted traceback.
    """
    fields = record.__dict__
    if fields.get(_SEALED) is _SEAL:
        return
    try:
        _redact(record, fields)
    except Exception:  # Whatever a stranger's object did: nothing of it may go out, and the line must.
        for name in [name for name in fields if name not in _STANDARD]:
            del fields[name]
        fields.update(msg="[this log record could not be read]", args=(), exc_info=None, exc_text=None, stack_info=None)
    fields[_SEALED] = _SEAL


def _redact(record: logging.LogRecord, fields: dict[str, Any]) -> None:
    fields.update(msg=_message(record.msg, record.args), args=())
    _simplify_extras(record, fields)
    for name in [name for name in fields if name not in _STANDARD]:
        fields[name] = redact_value(str(name), fields[name])
    error, trace = _exception_of(record)
    if error is not None:
        record.exc_text = stack_trace(error, trace).rstrip("\n")
        fields.setdefault("error", redacted_message(error))
        fields.setdefault("exception", summary(error))
        fields.setdefault("stack_trace", record.exc_text)
    elif record.exc_text:
        record.exc_text = str(redact_value(None, record.exc_text))  # of another formatter
        fields.setdefault("stack_trace", record.exc_text)
    record.exc_info = None
    if record.stack_info:
        record.stack_info = str(redact_value(None, record.stack_info))
        fields.setdefault("stack_trace", record.stack_info)


def _simplify_extras(record: logging.LogRecord, fields: dict[str, Any]) -> None:
    """Replace what Django and Celery attach by the few fields of it that a reader needs.

    Celery's `data` repeats message and traceback and holds the arguments of the task, which may be anything.
    """
    name = str(record.name)
    if name.startswith("celery") and isinstance(data := fields.get("data"), dict):
        del fields["data"]
        fields.setdefault("task_id", data.get("id"))
        fields.setdefault("task_name", data.get("name"))
    if name.startswith("django") and "request" in fields:
        request = fields.pop("request")
        fields.pop("server_time", None)
        for part in ("method", "path"):
            if isinstance(value := getattr(request, part, None), str):
                fields.setdefault(part, value)


def _exception_of(record: logging.LogRecord) -> tuple[BaseException | None, TracebackType | None]:
    info: object = record.exc_info
    if isinstance(info, BaseException):
        return info, None
    if isinstance(info, tuple) and len(info) == 3 and isinstance(info[1], BaseException):
        return info[1], info[2]
    return None, None


class RedactionFilter(logging.Filter):
    """Cleans every record that passes; belongs under every handler."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Always True: a record is cleaned, never dropped."""
        redact_record(record)
        return True


# ---- Lines -----------------------------------------------------------------------------------------------------------


class JsonFormatter(BaseJsonFormatter):
    """Writes a record as one line of strict JSON, all ASCII; cleans it first where no filter did."""

    def __init__(self) -> None:
        super().__init__(json_serializer=partial(json.dumps, allow_nan=False))

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its newline. Never raises."""
        try:
            redact_record(record)
            return super().format(record)
        except Exception:  # A record not made by logging itself may lack anything; saying so beats losing it.
            return json.dumps(_unreadable())

    def add_fields(self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]) -> None:
        """Fill the line in the order people read it."""
        extra = {
            str(name): value for name, value in record.__dict__.items() if name not in _STANDARD and name != _SEALED
        }
        now = context.current()
        kind = extra.pop("event_type", None)
        known = isinstance(kind, str) and kind in EVENT_TYPES
        failed = (record.levelno or 0) >= logging.ERROR
        event_type = kind if known else _default_event_type(str(record.name), failed, now)
        log_data.update(
            timestamp=_timestamp(record.created),
            level=str(record.levelname),
            logger=str(record.name),
            message=record.message,
            event=str(extra.pop("event", None) or ("error" if failed else "log")),
            event_type=event_type,
            module=str(record.module or ""),
            function=str(record.funcName or ""),
        )
        if not known and kind is not None:
            log_data["event_type_given"] = kind
        for name in APPLICABLE:
            value = extra.pop(name, None)
            if value is None:
                value = redact_value(None, getattr(now, name, None))
            if value is not None:
                log_data[name] = value
        for name, value in extra.items():
            log_data[f"{name}_given" if name in log_data else name] = value


def _default_event_type(name: str, failed: bool, now: context.Context) -> str:
    if (known := _type_of_logger(name, failed)) is not None:
        return known
    if now.task_id is not None:
        return "task"
    if now.request_id is not None:
        return "request"
    return "startup_error" if failed else "health"


@lru_cache(maxsize=1024)
def _type_of_logger(name: str, failed: bool) -> str | None:
    while name:
        if failed and name in _ERROR_TYPE_OF_LOGGER:
            return _ERROR_TYPE_OF_LOGGER[name]
        if name in _TYPE_OF_LOGGER:
            return _TYPE_OF_LOGGER[name]
        name = name.rpartition(".")[0]
    return None


def _timestamp(created: float) -> str:
    """Seconds since 1970 as ISO 8601 in UTC with microseconds."""
    moment = datetime.fromtimestamp(created, UTC)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def _unreadable() -> dict[str, str]:
    return {
        "timestamp": _timestamp(datetime.now(UTC).timestamp()),
        "level": "ERROR",
        "logger": __name__,
        "message": "A log record could not be written: one of its standard attributes is missing or of the wrong type",
        "event": "log_failure",
        "event_type": "health",
        "module": "logging",
        "function": "format",
    }


# ---- Configuration ---------------------------------------------------------------------------------------------------


def logging_config(level: str) -> dict[str, Any]:
    """The `dictConfig` of every process: web, worker, beat and commands. `level` is the root's, e.g. "INFO".

    Django, gunicorn, Celery and kombu come with handlers of their own; here they lose them and pass on to the root, so
    each record is written once. It is for gunicorn's `logconfig_dict` and for Celery's `setup_logging` signal as well.
    """
    passed_on = (
        *("celery", "celery.redirected", "celery.task", "django", "django.server"),
        *("gunicorn.access", "gunicorn.error", "kombu", "py.warnings"),
    )
    root = logging.getLevelNamesMapping()[level]
    quiet = {
        "aiohttp.access": logging.WARNING,  # one line a request of a server that is only there in tests
        "asyncio": logging.WARNING,  # DEBUG names every selector
        "celery.pool": logging.INFO,  # DEBUG prints the arguments of every task, which may be secrets
        "django.db.backends": logging.INFO,  # DEBUG prints every statement with its values, which may be secrets
        "django.template": logging.INFO,  # DEBUG prints every missing variable
        "django.utils.autoreload": logging.INFO,  # DEBUG prints every file
        "httpx2": logging.WARNING,  # INFO prints every request to a Kubernetes API server
    }
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "filters": {"redaction": {"()": RedactionFilter}},
        "formatters": {"json": {"()": JsonFormatter}},
        "handlers": {
            "console": {
                "class": "logging.StreamHandler",
                "stream": "ext://sys.stdout",
                "filters": ["redaction"],
                "formatter": "json",
            }
        },
        "root": {"level": root, "handlers": ["console"]},
        "loggers": {
            **{name: {"level": "NOTSET", "handlers": [], "propagate": True} for name in passed_on},
            **{name: {"level": max(root, floor), "handlers": [], "propagate": True} for name, floor in quiet.items()},
        },
    }


def install_hooks() -> None:
    """Send what Python would print itself to the log: exceptions nobody caught, in any thread, and warnings.

    For the start of a process, once its logging is configured; processes it forks inherit it. Ctrl-C and an orderly
    exit stay as they are.
    """

    def uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            sys.__excepthook__(kind, error, trace)
        else:
            logging.getLogger(__name__).critical(
                "The process ends, because nothing caught an exception", exc_info=(kind, error, trace)
            )

    def uncaught_in_thread(args: threading.ExceptHookArgs) -> None:
        if args.exc_value is not None and not isinstance(args.exc_value, SystemExit):
            name = args.thread.name if args.thread else "unknown"
            logging.getLogger(__name__).error(
                "Thread %s ended, because nothing caught an exception",
                name,
                exc_info=(args.exc_type, args.exc_value, args.exc_traceback),
            )

    sys.excepthook = uncaught
    threading.excepthook = uncaught_in_thread
    logging.captureWarnings(True)
