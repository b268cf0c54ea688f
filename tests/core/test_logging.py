"""Every record becomes one line of strict JSON with the agreed fields, and no secret of it reaches the line."""

import io
import json
import logging
import math
import os
import re
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from billiard.einfo import ExceptionInfo
from hypothesis import example, given
from hypothesis import strategies as st

from apps.core import context
from apps.core.logging import (
    APPLICABLE,
    EVENT_TYPES,
    MAX_FRAMES,
    JsonFormatter,
    RedactionFilter,
    logging_config,
    redact_record,
    stack_trace,
)
from apps.core.redaction import CUT, MAX_TEXT, PLACEHOLDER
from tests.core.test_redaction import ANY, ANYTHING, HOSTILE, QUOTED, UNBROKEN, UNQUOTED, Hostile, HostileError, Secret

ROOT = Path(__file__).parent.parent.parent
ALWAYS = ["timestamp", "level", "logger", "message", "event", "event_type", "module", "function"]
# Ours, and one that knows nothing: the filter alone must do.
FORMATTERS = (JsonFormatter(), logging.Formatter("%(levelname)s %(message)s"))
ANY_FORMATTER = st.sampled_from(FORMATTERS)


class Log:
    """A logger of its own, outside pytest's, that keeps what it wrote."""

    def __init__(self, name: str = "apps.core.x", formatter: logging.Formatter | None = None, *, filtered: bool = True):
        self.stream = io.StringIO()
        handler = logging.StreamHandler(self.stream)
        handler.setFormatter(formatter or JsonFormatter())
        if filtered:
            handler.addFilter(RedactionFilter())
        self.logger = logging.Logger(name, logging.DEBUG)  # noqa: LOG001  (it shall not be the one that others configure)
        self.logger.addHandler(handler)

    def raw(self) -> str:
        text = self.stream.getvalue()
        self.stream.seek(0)
        self.stream.truncate()
        return text

    def lines(self) -> list[dict[str, Any]]:
        return [strict(line) for line in self.raw().splitlines()]

    def line(self) -> dict[str, Any]:
        [line] = self.lines()
        return line


def strict(line: str) -> dict[str, Any]:
    """The object of a line that every JSON reader would accept."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    assert line.isascii()
    value = json.loads(line, parse_constant=refuse)
    assert isinstance(value, dict)
    assert list(value)[: len(ALWAYS)] == ALWAYS
    assert all(isinstance(value[name], str) for name in ALWAYS)
    assert value["event_type"] in EVENT_TYPES
    return value


def record_of(**attributes: object) -> logging.LogRecord:
    return logging.makeLogRecord({"name": "x", "levelno": logging.INFO, "levelname": "INFO", **attributes})


def everything(value: object) -> str:
    """All keys and texts of a line, unescaped."""
    if isinstance(value, dict):
        return "\n".join(everything(item) for pair in value.items() for item in pair)
    if isinstance(value, list):
        return "\n".join(map(everything, value))
    return str(value)


# ---- Fields ----------------------------------------------------------------------------------------------------------


def test_a_plain_record_has_the_fields_that_are_always_there_and_no_others() -> None:
    log = Log("apps.health.runner")
    log.logger.info("%d of %d instances answered", 3, 5)
    line = log.line()
    assert list(line) == ALWAYS
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", line.pop("timestamp"))
    assert line == {
        "level": "INFO",
        "logger": "apps.health.runner",
        "message": "3 of 5 instances answered",
        "event": "log",
        "event_type": "health",
        "module": "test_logging",
        "function": "test_a_plain_record_has_the_fields_that_are_always_there_and_no_others",
    }


def test_the_time_of_a_record_is_written_in_utc_to_the_microsecond() -> None:
    record = logging.makeLogRecord({"msg": "x"})
    record.created = 1770292496.75
    assert strict(JsonFormatter().format(record))["timestamp"] == "2026-02-05T11:54:56.750000Z"


def test_the_context_of_a_request_and_of_a_task_is_on_every_line() -> None:
    log = Log()
    with context.bind(request_id="r", user_id="7", ip_address="10.0.0.1", method="GET", path="/a?token=hush"):
        with context.bind(task_id="t", request_id="r2"):
            log.logger.info("inner")
        log.logger.info(
            "outer", extra={"status_code": 200, "duration_ms": 1.5, "resource_id": "deploy_1", "path": "/b"}
        )
    log.logger.info("after")
    inner, outer, after = log.lines()
    assert {name: inner[name] for name in APPLICABLE if name in inner} == {
        "request_id": "r2",
        "user_id": "7",
        "ip_address": "10.0.0.1",
        "method": "GET",
        "path": f"/a?token={PLACEHOLDER}",
        "task_id": "t",
    }
    assert (outer["request_id"], outer["path"], outer["status_code"], outer["duration_ms"]) == ("r", "/b", 200, 1.5)
    assert outer["resource_id"] == "deploy_1"
    assert "task_id" not in outer
    assert list(after) == ALWAYS


def test_a_context_is_bound_for_its_block_even_when_that_fails_and_refuses_unknown_fields() -> None:
    def fail() -> None:
        with context.bind(task_id="t"):
            raise RuntimeError

    with context.bind(request_id="r") as bound:
        assert bound == context.current() == context.Context(request_id="r")
        with pytest.raises(RuntimeError):
            fail()
        assert context.current() == bound
        with pytest.raises(TypeError), context.bind(colour="red"):
            pass
    assert context.current() == context.Context()


def test_other_extras_keep_their_names_and_never_replace_a_field() -> None:
    log = Log()
    log.logger.info(
        "x", extra={"checks": {"database": "healthy"}, "level": "mine", "logger": "mine", "limit": None, "n": [1]}
    )
    line = log.line()
    assert (line["checks"], line["limit"], line["n"]) == ({"database": "healthy"}, None, [1])
    assert (line["level"], line["logger"]) == ("INFO", "apps.core.x")
    assert (line["level_given"], line["logger_given"]) == ("mine", "mine")


def test_an_exception_gives_its_message_its_class_and_its_trace() -> None:
    log = Log()
    try:
        raise OSError("could not connect to server")
    except OSError:
        log.logger.exception("Database connection failed", extra={"event": "db_down", "event_type": "db_error"})
    line = log.line()
    assert (line["event"], line["event_type"]) == ("db_down", "db_error")
    assert line["error"] == "could not connect to server"
    assert line["exception"] == "OSError: could not connect to server"
    assert line["stack_trace"].startswith("Traceback (most recent call last):\n  File ")
    assert line["stack_trace"].endswith("\nOSError: could not connect to server")
    assert line["message"] == "Database connection failed"


def test_a_stack_is_written_where_it_was_asked_for() -> None:
    log = Log()
    log.logger.warning("here", stack_info=True)
    line = log.line()
    assert line["stack_trace"].startswith("Stack (most recent call last):\n")
    assert "exception" not in line


def test_without_an_exception_there_is_no_trace() -> None:
    log = Log()
    log.logger.error("nothing was raised", exc_info=(None, None, None))
    assert list(log.line()) == ALWAYS


@pytest.mark.parametrize(
    ("name", "level", "event_type"),
    [
        ("django.request", "ERROR", "request"),
        ("django.server", "INFO", "request"),
        ("gunicorn.access", "INFO", "request"),
        ("django.db.backends", "ERROR", "db_error"),
        ("django.db.backends", "INFO", "health"),
        ("django.security.csrf", "WARNING", "authz_failure"),
        ("django.security.DisallowedHost", "ERROR", "validation_error"),
        ("axes.handlers", "WARNING", "auth_failure"),
        ("celery", "INFO", "task"),
        ("celery.app.trace", "ERROR", "task"),
        ("kombu.connection", "ERROR", "task"),
        ("apps.health", "ERROR", "health"),
        ("apps.health.runner", "INFO", "health"),
        ("apps.healthy", "INFO", "health"),
        ("apps.backups.stream", "ERROR", "backup"),
        ("apps.deployments.gate", "INFO", "deployment"),
        ("apps.scaling", "INFO", "scaling"),
        ("apps.alerts.routes", "INFO", "alert"),
        ("apps.core.audit", "INFO", "audit"),
        ("gunicorn.error", "ERROR", "startup_error"),
        ("gunicorn.error", "INFO", "health"),
        ("apps.core.metrics", "CRITICAL", "startup_error"),
        ("root", "INFO", "health"),
    ],
)
def test_without_an_event_type_the_logger_decides(name: str, level: str, event_type: str) -> None:
    log = Log(name)
    log.logger.log(logging.getLevelNamesMapping()[level], "x")
    line = log.line()
    assert line["event_type"] == event_type
    assert line["event"] == ("error" if level in ("ERROR", "CRITICAL") else "log")


def test_without_a_telling_logger_the_task_or_the_request_decides() -> None:
    log = Log("apps.core.middleware")
    with context.bind(request_id="r"):
        log.logger.error("in a request")
        with context.bind(task_id="t"):
            log.logger.error("in a task")
    assert [line["event_type"] for line in log.lines()] == ["request", "task"]


@pytest.mark.parametrize("unknown", ["nonsense", "", 5, ["request"], {"a": 1}])
def test_an_unknown_event_type_is_replaced_and_kept_aside(unknown: object) -> None:
    log = Log("apps.scaling")
    log.logger.info("x", extra={"event_type": unknown})
    line = log.line()
    assert (line["event_type"], line["event_type_given"]) == ("scaling", unknown)


@pytest.mark.parametrize("event_type", sorted(EVENT_TYPES))
def test_a_known_event_type_is_kept(event_type: str) -> None:
    log = Log("apps.scaling")
    log.logger.info("x", extra={"event_type": event_type})
    assert log.line()["event_type"] == event_type
    assert len(EVENT_TYPES) == 13


def test_of_djangos_request_only_method_and_path_remain() -> None:
    class Request:
        method, path, META = "POST", "/x", {"HTTP_COOKIE": "sessionid=hush"}

    log = Log("django.request")
    log.logger.warning("Not Found: %s", "/x", extra={"request": Request(), "status_code": 404})
    line = log.line()
    assert list(line) == [*ALWAYS, "method", "path", "status_code"]
    assert (line["method"], line["path"]) == ("POST", "/x")


# ---- Secrets ---------------------------------------------------------------------------------------------------------


def raised(error: BaseException, cause: BaseException | None = None) -> BaseException:
    try:
        raise error from cause
    except BaseException as caught:
        return caught


def during(first: BaseException, second: BaseException) -> BaseException:
    try:
        try:
            raise first
        except BaseException:
            raise second  # noqa: B904  (the missing `from` is what is tested)
    except BaseException as caught:
        return caught


def noted(text: str) -> BaseException:
    error = raised(ValueError("bad"))
    error.add_note(text)
    return error


def group(text: str) -> BaseException:
    inner = ExceptionGroup("inner", [raised(KeyError("x"), raised(ValueError(text))), noted(text)])
    return raised(ExceptionGroup(text, [TypeError("y"), inner]))


CHAINS: dict[str, Callable[[str], BaseException]] = {
    "message": lambda text: raised(ValueError(text)),
    "cause": lambda text: raised(RuntimeError("outer"), raised(ValueError(text))),
    "context": lambda text: during(ValueError(text), KeyError("outer")),
    "cause of a context": lambda text: during(raised(KeyError("x"), raised(ValueError(text))), TypeError("outer")),
    "note": noted,
    "cause with a note": lambda text: raised(RuntimeError("outer"), noted(text)),
    "group": group,
    "several arguments": lambda text: raised(OSError(2003, text, "file")),
    "argument of another type": lambda text: raised(ValueError({"password": text}, text)),
    "never raised": ValueError,
}


def ways_in(logger: logging.Logger, text: str) -> Iterator[str]:
    """Log a text in every way a record can carry it."""
    logger.info(f"{text.replace('%', '%%')}%s", "")  # noqa: G004  (the careless way is what is tested)
    yield "message"
    logger.info("%s", text)
    yield "argument"
    logger.info("%(a)s %(b)r", {"a": text, "b": text})
    yield "named argument"
    logger.info("%s %r %s", [text], {"x": text}, ValueError(text))
    yield "argument in a container"
    logger.info("too few %s %s", text)
    yield "too few arguments"
    logger.info("wrong type %d", text)
    yield "argument of the wrong type"
    logger.info(ValueError(text))
    yield "exception as the message"
    logger.info({"text": text, "list": [text]})
    yield "dict as the message"
    logger.info("x", extra={"text": text, "nested": {"a": [{"b": (text, text.encode(), {text})}], text: 1}})
    yield "extra"
    logger.info("x", extra={"event": text, "event_type": text, "user_id": text, "error": ValueError(text)})
    yield "extra that is a field"
    for name, chain in CHAINS.items():
        error = chain(text)
        logger.error("failed", exc_info=error)
        yield f"exception: {name}"
        logger.info("x", exc_info=(type(error), error, error.__traceback__), extra={"cause": error})
        yield f"exception as a tuple: {name}"
    logger.handle(record_of(msg="x", exc_text=text, stack_info=text))
    yield "texts of another formatter"
    with context.bind(path=text, ip_address=text, method=text, request_id=text):
        logger.info("x")
    yield "context"


def check(text: str, secret: Secret, formatter: logging.Formatter) -> None:
    log = Log(formatter=formatter)
    for way in ways_in(log.logger, text):
        output = log.raw()
        if isinstance(formatter, JsonFormatter):
            assert output.count("\n") == 1, way
            output += everything(strict(output))
        assert not secret.leaks_into(output), (way, output)


@given(secret=UNBROKEN, shape=st.sampled_from(sorted(UNQUOTED)), formatter=ANY_FORMATTER)
def test_a_secret_in_a_text_reaches_no_line_whichever_way_it_came(
    secret: Secret, shape: str, formatter: logging.Formatter
) -> None:
    check(UNQUOTED[shape](secret.text), secret, formatter)


@given(secret=ANY, shape=st.sampled_from(sorted(QUOTED)), formatter=ANY_FORMATTER)
@example(secret=Secret('zQone", "zQtwo\\', ("zQone", "zQtwo")), shape="JSON", formatter=FORMATTERS[0])
def test_a_quoted_secret_reaches_no_line_whichever_way_it_came(
    secret: Secret, shape: str, formatter: logging.Formatter
) -> None:
    check(QUOTED[shape](secret.text), secret, formatter)


@given(address=st.emails(), formatter=ANY_FORMATTER)
def test_an_email_address_reaches_no_line(address: str, formatter: logging.Formatter) -> None:
    check(f"wrote to {address}.", Secret(address, (address,)), formatter)


@given(secret=ANY)
def test_a_secret_that_only_its_name_gives_away_reaches_no_line(secret: Secret) -> None:
    text = secret.text
    for formatter in FORMATTERS:
        log = Log(formatter=formatter)
        log.logger.info("password=%s for %d", text, 3)
        log.logger.info("login with token '%s'", "harmless")
        log.logger.info("Authorization: Bearer %s", text)
        log.logger.info('{"api_key": "%s", "n": %d}', text, 1)
        log.logger.info("mysql://%s:%s@%s/x", "root", text, "db")
        log.logger.info("login %(password)s of %(user)s", {"password": text, "user": "bob"})
        log.logger.info("%s", {"headers": {"Cookie": text}})
        log.logger.info("%s and %s", ["--password", text], ("X-Api-Key", text))
        log.logger.info("x", extra={"password": text, "data": {"session": [text], "ok": 1}, "api_key": {"a": text}})
        log.logger.info("x", extra={"headers": [("Authorization", text)], "db_password": text.encode()})
        output = log.raw()
        assert output.count("\n") == 10
        if isinstance(formatter, JsonFormatter):
            output += "".join(everything(strict(line)) for line in output.splitlines())
        assert not secret.leaks_into(output), output


class Opaque:
    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


def test_no_argument_disguises_a_secret_in_the_next_one() -> None:
    log = Log()
    log.logger.info("%s, then %s, then %r", "password='never closed", "token='- hush'", Opaque("token='- hush'"))
    assert "hush" not in log.line()["message"]


def test_what_is_harmless_in_the_arguments_stays_readable() -> None:
    log = Log()
    log.logger.info("password=%s of %s, %d%% of %s, %5.1f", "a b", "bob", 3, [1, "x"], 2.5)
    assert log.line()["message"] == f"password={PLACEHOLDER} of bob, 3% of [1, 'x'],   2.5"
    log.logger.info("%*d and %s", 3, 7, "x")
    assert log.line()["message"] == "  7 and x"
    log.logger.info("%s", ())
    assert log.line()["message"] == "()"


def test_arguments_that_do_not_fit_are_left_out_with_a_word() -> None:
    log = Log()
    for template, args in [
        ("%d", ("hush",)),
        ("%s %s", ("hush",)),
        ("%s", ("hush", "hush")),
        ("%(a)s", ({"b": "hush"},)),
    ]:
        log.logger.info(template, *args)
        line = log.line()
        assert line["message"] == f"{template} [arguments left out: they do not fit the text]"
        assert "hush" not in everything(line)


def test_one_record_is_cleaned_for_all_handlers_behind_the_filter() -> None:
    record = logging.makeLogRecord({"msg": "password=%s", "args": ("hush",), "token": "hush"})
    record.exc_info = (ValueError, raised(ValueError("token=hush")), None)
    assert RedactionFilter().filter(record) is True
    before = dict(record.__dict__)
    redact_record(record)
    assert record.__dict__ == before
    assert record.args == ()
    assert record.exc_info is None
    assert "hush" not in str(before)
    assert "ValueError: token=[redacted]" in str(record.exc_text)


def test_what_is_attached_behind_the_filter_still_gives_a_strict_line() -> None:
    record = record_of(msg="x")
    redact_record(record)
    record.ratio = math.nan
    strict(JsonFormatter().format(record))


def test_nobody_can_pass_a_record_off_as_clean() -> None:
    log = Log()
    log.logger.info("password=hush", extra={"_sealed": True})
    assert "hush" not in everything(log.line())


def test_a_formatter_without_the_filter_cleans_by_itself() -> None:
    log = Log(filtered=False)
    log.logger.error("password=%s", "hush", exc_info=ValueError("token=hush"), extra={"cookie": "hush"})
    assert "hush" not in everything(log.line())


# ---- Traces ----------------------------------------------------------------------------------------------------------


def test_a_chain_reads_as_python_prints_it() -> None:
    error = during(raised(KeyError("x"), raised(ValueError("first"))), OSError("last"))
    assert stack_trace(error) == "".join(traceback.format_exception(error))


def test_a_suppressed_context_stays_out_of_the_trace() -> None:
    error = during(ValueError("suppressed"), KeyError("shown"))
    error.__suppress_context__ = True
    assert "suppressed" not in stack_trace(error)


def test_a_group_shows_each_of_its_members_indented() -> None:
    trace = stack_trace(ExceptionGroup("several", [ValueError("one"), ExceptionGroup("more", [KeyError("two")])]))
    assert "ExceptionGroup: several (2 sub-exceptions)\n  + 1 of 2:\n  | ValueError: one\n  + 2 of 2:\n" in trace
    assert "  | ExceptionGroup: more (1 sub-exception)\n  |   + 1 of 1:\n  |   | KeyError: 'two'\n" in trace


def test_endless_chains_recursions_and_groups_are_cut() -> None:
    first, second = ValueError("first"), ValueError("second")
    first.__context__, second.__context__ = second, first
    assert stack_trace(first).count("ValueError") == 2

    def recurse() -> None:
        recurse()

    with pytest.raises(RecursionError) as caught:
        recurse()
    assert stack_trace(caught.value).count("\n") < 3 * MAX_FRAMES

    nested: Exception = ValueError("innermost")
    for _ in range(50):
        nested = ExceptionGroup("level", [nested])
    assert "innermost" not in stack_trace(nested)
    assert "[cut]" in stack_trace(nested)
    assert stack_trace(ExceptionGroup("wide", [ValueError(str(n)) for n in range(500)])).count("ValueError") == 15

    long: BaseException = ValueError("x" * MAX_TEXT)
    long.__cause__ = ValueError("y" * MAX_TEXT)
    assert len(stack_trace(long)) < MAX_TEXT + 100


def test_the_source_line_of_a_frame_hides_only_itself() -> None:
    try:
        secrets = {"token": {"a": 1}["b"]}
        assert secrets
    except KeyError as error:
        trace = stack_trace(error)
    assert trace.endswith("KeyError: 'b'\n")
    assert "secrets = [redacted]" in trace


# ---- Strangers -------------------------------------------------------------------------------------------------------


@given(message=ANYTHING, args=ANYTHING, extra=st.dictionaries(st.text(max_size=6), ANYTHING, max_size=4))
def test_any_record_becomes_one_strict_line(message: object, args: object, extra: dict[str, object]) -> None:
    log = Log()
    fields = {name: value for name, value in extra.items() if not hasattr(logging.makeLogRecord({}), name)}
    log.logger.handle(record_of(**fields, msg=message, args=args))
    log.line()


@given(attributes=st.dictionaries(st.sampled_from(sorted(vars(logging.makeLogRecord({})))), ANYTHING, max_size=5))
def test_a_record_with_broken_attributes_becomes_one_strict_line(attributes: dict[str, object]) -> None:
    record = logging.makeLogRecord({"msg": "x"})
    record.__dict__.update(attributes)
    strict(JsonFormatter().format(record))


@pytest.mark.parametrize("value", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_object_costs_only_itself(value: object) -> None:
    log = Log()
    log.logger.info("before %s", value, extra={"value": value, "other": 1}, exc_info=HostileError())
    line = log.line()
    assert line["message"].startswith("before ")
    assert line["other"] == 1
    assert line["exception"] == "HostileError: [unprintable]"


def test_a_record_that_cannot_be_read_at_all_gives_nothing_away() -> None:
    class Args(Hostile):
        def __bool__(self) -> bool:
            raise RuntimeError

    record = logging.makeLogRecord({"msg": "password=hush", "args": Args(), "token": "hush"})
    line = strict(JsonFormatter().format(record))
    assert line["message"] == "[this log record could not be read]"
    assert "hush" not in everything(line)


@pytest.mark.parametrize("piece", ["%(", "%s", "%0", "password=%s", "%s@", ":%s@", "%(a)s"])
def test_a_hostile_template_takes_seconds_at_most(piece: str) -> None:
    log = Log()
    started = time.process_time()
    log.logger.info(piece * (50_000 // len(piece)), "x")
    assert time.process_time() - started < 5
    assert len(log.line()["message"]) <= MAX_TEXT + len(CUT)


def test_numbers_json_cannot_write_become_text() -> None:
    log = Log()
    log.logger.info("x", extra={"duration_ms": math.nan, "a": [math.inf, -math.inf], "n": 10**5000})
    line = log.line()
    assert (line["duration_ms"], line["a"], line["n"]) == ("nan", ["inf", "-inf"], "[cut]")


def test_line_breaks_and_half_surrogates_stay_inside_one_line() -> None:
    log = Log()
    log.logger.info("a\nb\r\nc\u2028d\x85e\ud800f", extra={"x\ny": "1\n2"})
    line = log.line()
    assert line["message"] == "a\nb\r\nc\u2028d\x85e?f"
    assert line["x\ny"] == "1\n2"


# ---- Processes -------------------------------------------------------------------------------------------------------


def run(code: str, *args: str) -> tuple[list[dict[str, Any]], str]:
    """The lines a fresh process logs, and all it wrote."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "default"}
    environment.pop("DJANGO_SETTINGS_MODULE", None)
    result = subprocess.run(
        [sys.executable, "-c", code, *args], capture_output=True, text=True, timeout=90, env=environment, cwd=ROOT
    )
    assert result.returncode == 0, result.stderr
    return [strict(line) for line in result.stdout.splitlines()], result.stdout + result.stderr


CONFIGURED = """
import logging, logging.config, sys, warnings
from django.conf import settings
from django.utils.log import DEFAULT_LOGGING
from gunicorn.config import Config
from gunicorn.glogging import Logger
from apps.core.logging import logging_config

settings.configure()
logging.config.dictConfig(DEFAULT_LOGGING)
config = Config()
config.set("logconfig_dict", logging_config(sys.argv[1]))
config.set("accesslog", "-")
Logger(config)
logging.captureWarnings(True)
for name in ("django", "django.server", "django.request", "celery", "celery.task", "celery.app.trace", "kombu",
             "gunicorn.error", "gunicorn.access", "apps.core", "asyncio"):
    logging.getLogger(name).warning("password=hush", extra={"from": name})
for name in ("aiohttp.access", "asyncio", "django.db.backends", "celery.pool"):
    logging.getLogger(name).debug("noise")
warnings.warn("token=hush")
logging.getLogger("apps").info("info")
logging.getLogger("django").debug("debug")
"""


@pytest.mark.parametrize(
    ("level", "last"), [("DEBUG", ["info", "debug"]), ("INFO", ["info"]), ("WARNING", []), ("ERROR", None)]
)
def test_under_djangos_and_gunicorns_own_settings_each_record_is_written_once(
    level: str, last: list[str] | None
) -> None:
    lines, output = run(CONFIGURED, level)
    assert "hush" not in output
    if last is None:
        assert lines == []
        return
    assert [line["message"] for line in lines[12:]] == last
    assert len({line["logger"] for line in lines[:12]}) == 12
    assert lines[11]["logger"] == "py.warnings"


def test_the_configuration_names_one_handler_with_filter_and_formatter() -> None:
    config = logging_config("INFO")
    assert config["disable_existing_loggers"] is False
    assert list(config["handlers"]) == ["console"]
    assert config["handlers"]["console"]["stream"] == "ext://sys.stdout"
    assert all(logger["propagate"] and not logger["handlers"] for logger in config["loggers"].values())
    with pytest.raises(KeyError):
        logging_config("LOUD")


WORKER = """
import logging.config, time
from celery import Celery, signals
from celery.contrib.testing.worker import start_worker
from celery.worker import state
from apps.core.logging import logging_config

@signals.setup_logging.connect(weak=False)
def configure(**_):
    logging.config.dictConfig(logging_config("DEBUG"))

app = Celery("proof", broker="memory://", backend="cache+memory://", set_as_current=True)
app.conf.update(broker_transport_options={"polling_interval": 0.02}, worker_redirect_stdouts=False)

def explode(password):
    try:
        raise ValueError(f"mysql://root:{password.split()[0]}@db/x refused")
    except ValueError as error:
        error.add_note(f"password={password!r}")
        raise RuntimeError(f"login failed: {({'token': password})!r}") from error

@app.task
def fails(positional, password):
    explode(password)

@app.task(throws=(RuntimeError,))
def fails_as_expected(positional, password):
    explode(password)

@app.task(bind=True, max_retries=1)
def retries(self, positional, password):
    try:
        explode(password)
    except RuntimeError as error:
        raise self.retry(exc=error, countdown=0)

@app.task
def succeeds(positional, password):
    return {"token": password}

with start_worker(app, pool="prefork", perform_ping_check=False, loglevel="DEBUG"):
    tasks = (fails, fails_as_expected, retries, succeeds)
    for task in tasks:
        task.delay("positional-hush", password="named-hush with 'spaces\\"")
    deadline = time.monotonic() + 60
    while sum(state.total_count.values()) < len(tasks) or state.reserved_requests:
        assert time.monotonic() < deadline, state.total_count
        time.sleep(0.02)
    state.should_terminate = 0  # now, not when the loop wakes by itself some seconds later: a message wakes it
    succeeds.delay("positional-hush", password="named-hush")
"""


def test_a_celery_worker_tells_of_its_tasks_without_their_secrets() -> None:
    lines, output = run(WORKER)
    assert "hush" not in output
    assert "spaces" not in output
    failures = [line for line in lines if "fails[" in line["message"] and line["level"] == "ERROR"]
    for failed in failures:
        assert failed["event_type"] == "task"
        assert failed["task_name"].endswith(".fails")
        assert failed["task_id"] in failed["message"]
        assert failed["exception"] == "RuntimeError: login failed: {'token': '[redacted]'}"
        assert "ValueError: mysql://root:[redacted]@db/x refused" in failed["stack_trace"]
        assert "data" not in failed
    assert failures
    assert sum("received" in line["message"] for line in lines) >= 4
    assert any("retry: " in line["message"] for line in lines)
    assert any("raised expected" in line["message"] for line in lines)
    assert any("succeeded" in line["message"] for line in lines)


def test_a_traceback_that_came_from_another_process_is_written_too() -> None:
    import pickle

    try:
        raise ValueError("password='hush hush'")
    except ValueError:
        info = pickle.loads(pickle.dumps(ExceptionInfo()))
    log = Log("celery.worker.request")
    log.logger.error(
        "Task handler raised error: %r", info.exception, exc_info=info.exc_info, extra={"data": {"id": "t1"}}
    )
    line = log.line()
    assert line["task_id"] == "t1"
    assert "hush" not in everything(line)
    assert "password='[redacted]'" in line["stack_trace"]
