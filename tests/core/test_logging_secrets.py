"""No secret of a record reaches its line, whichever way it came."""

import logging
import math
from collections.abc import Iterator

from hypothesis import example, given
from hypothesis import strategies as st

from apps.core import context
from apps.core.logging import (
    JsonFormatter,
    RedactionFilter,
    redact_record,
)
from apps.core.redaction import PLACEHOLDER
from tests.core.logs import ANY_FORMATTER, CHAINS, FORMATTERS, Log, everything, raised, record_of, strict
from tests.core.samples import ANY, QUOTED, UNBROKEN, UNQUOTED, Secret

# ---- Secrets ---------------------------------------------------------------------------------------------------------


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
