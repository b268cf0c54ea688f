"""Every record becomes one line of strict JSON with the agreed fields."""

import logging
import math
import os
import re
import subprocess
import sys
import time
import traceback
from typing import Any

import pytest
from billiard.einfo import ExceptionInfo
from hypothesis import given
from hypothesis import strategies as st

from apps.core import context
from apps.core.logging import (
    APPLICABLE,
    EVENT_TYPES,
    MAX_FRAMES,
    JsonFormatter,
    logging_config,
    stack_trace,
)
from apps.core.redaction import CUT, MAX_TEXT, PLACEHOLDER
from tests.core.logs import ALWAYS, ROOT, Log, during, everything, raised, record_of, strict
from tests.core.samples import ANYTHING, HOSTILE, Hostile, HostileError

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
