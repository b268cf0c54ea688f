"""Reads request bodies within bounds: nothing is taken into memory that the bound does not cover."""

from collections.abc import Iterator
from contextlib import suppress
from tempfile import SpooledTemporaryFile
from typing import IO, Any

from django.http import HttpRequest, UnreadablePostError
from gunicorn.http.errors import ParseException

from apps.api.refusals import Refused
from apps.core.errors import Transient

MIB = 2**20
LIMIT = MIB  # of an ordinary body
PIECE = 64 * 1024  # bytes read at once
# Bytes thrown away of a body that is refused: a client sends all before it listens, and would see only a broken
# connection if nobody took them. Beyond this it is no mistake any more.
DRAINED = 32 * MIB
JSON_TYPES = ("application/json",)


def check_type(request: HttpRequest, allowed: tuple[str, ...]) -> None:
    """Raises Refused (415) unless the body is declared as one of these types, in UTF-8 and not compressed."""
    given = request.META.get("CONTENT_TYPE", "")
    name, _, parameters = given.partition(";")
    charset = parameters.strip().lower().removeprefix("charset=").strip('"')
    if name.strip().lower() not in allowed or (parameters.strip() and charset not in ("utf-8", "utf8")):
        raise Refused(415, f"Send the body as {' or '.join(allowed)} in UTF-8.")
    if request.META.get("HTTP_CONTENT_ENCODING", "identity").strip().lower() not in ("", "identity"):
        raise Refused(415, "Send the body without Content-Encoding.")


def read(request: HttpRequest, limit: int) -> bytes:
    """The whole body. Raises Refused (400, 411, 413)."""
    return b"".join(_pieces(request, limit))


def spool(request: HttpRequest, limit: int) -> IO[bytes]:
    """The whole body in a temporary file, rewound; up to one MiB of it stays in memory. Raises as `read` does."""
    file = SpooledTemporaryFile(max_size=MIB)  # noqa: SIM115  (handed to the caller, who closes it)
    try:
        for piece in _pieces(request, limit):
            file.write(piece)
        file.seek(0)
    except BaseException as error:
        with suppress(OSError):  # what a full disk did not take is not taken now either
            file.close()
        if isinstance(error, OSError):  # of the file: what the connection raises has become Refused
            raise Transient("There is no room for temporary files here; make some, and send the body again.") from error
        raise
    return file


def _pieces(request: HttpRequest, limit: int) -> Iterator[bytes]:
    expected = _expected(request)
    # Django reads as many bytes as Content-Length says, and nothing of a body in chunks; the server ends that one.
    source = request if expected is not None else request.META["wsgi.input"]
    received = 0
    try:
        if expected is not None and expected > limit:
            if expected <= DRAINED:
                _drain(source)
            raise _too_large(limit)
        while piece := source.read(PIECE):
            received += len(piece)
            if received > limit:
                _drain(source)
                raise _too_large(limit)
            yield piece
    except UnreadablePostError:
        raise Refused(400, "The connection ended before the body was complete.") from None
    except (OSError, ParseException):  # from the server itself: Django is not in between
        raise Refused(400, "The body in chunks is malformed or ended too early.") from None
    if expected is not None and received < expected:
        raise Refused(400, "The body is shorter than Content-Length says.")


def _drain(source: Any) -> None:
    taken = 0
    while taken < DRAINED and (piece := source.read(PIECE)):
        taken += len(piece)


def _expected(request: HttpRequest) -> int | None:
    """The length the client declares; None for a body in chunks."""
    if request.META.get("HTTP_TRANSFER_ENCODING"):
        if not request.META.get("wsgi.input_terminated"):
            raise Refused(411, "Send Content-Length: this server takes no body in chunks.")
        return None
    declared = request.META.get("CONTENT_LENGTH") or "0"
    if not (declared.isascii() and declared.isdecimal()) or len(declared) > 18:
        raise Refused(400, "Content-Length is no number that could be true.")
    return int(declared)


def _too_large(limit: int) -> Refused:
    return Refused(413, f"The body is larger than {limit // MIB} MiB; send it in parts.", limit=limit)
