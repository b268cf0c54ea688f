"""A dump on its way into storage and back: compressed, encrypted, never whole in memory, never plain on a disk.

    encode   pipe → zstd or gzip → AES-256-GCM → sink
    decode   source → every check there is → a reader, a restore, or nothing: then it is a mere check

Encryption is Google Tink's streaming AEAD AES256_GCM_HKDF_1MB with a fresh data key for every backup. Each segment of
1 MiB is authenticated, with its number and whether it is the last one, and all of them with the backup they belong to.
The data key is kept beside the object, sealed with the keyring. Wire format:
https://developers.google.com/tink/wire-format#streaming_encryption
"""

import base64
import hashlib
import io
import json
import os
import select
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, BinaryIO, Self, cast

import tink
from tink import secret_key_access, streaming_aead

from apps.backups.compression import compressor_for, decompressor_for
from apps.backups.engines.base import Reader
from apps.core.errors import Corrupt, PulsewatchError, Tampered, Transient
from apps.core.keys import Keyring

streaming_aead.register()

BLOCK_BYTES = 2**20  # read and handed on at once: as much as the pipe holds
WAIT_MS = 1000  # a dump that says nothing for longer is asked again whether it should stop
SILENCE_SECONDS = 3600  # a lock may keep a dump waiting for long, a host that is gone for ever
SEGMENT_BYTES = 2**20  # of ciphertext
SEGMENT_PLAIN = SEGMENT_BYTES - 16  # less the tag of AES-GCM
FIRST_SEGMENT_PLAIN = SEGMENT_PLAIN - 40  # less the header: its length, a salt, a nonce
MEGABYTE = 10**6  # as in a transfer rate


class Stopped(PulsewatchError):
    """The caller asked to stop."""


class Silent(Transient):
    """The dump came to a halt."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """An object as it was written: what binds it to its backup, and what is needed to check and read it."""

    backup_id: str
    source: str  # which database, in the words of the caller
    format: str  # of the dump: "sql", "sqlite3"
    compression: str  # "zstd", "gzip"
    plain_bytes: int
    stored_bytes: int
    sha256: str  # of the stored bytes, hex
    wrapped_key: str  # the data key, sealed with the keyring, base64


@dataclass(frozen=True, slots=True)
class Decoded:
    """What was read and found to be sound."""

    plain_bytes: int
    stored_bytes: int
    segments: int


def encode(
    source_fd: int,
    sink: BinaryIO,
    *,
    keyring: Keyring,
    backup_id: str,
    source: str,
    format: str,  # noqa: A002 - the word for it in sidecars
    compression: str = "zstd",
    reader: Reader | None = None,
    on_block: Callable[[int], None] | None = None,
    max_rate_mb: float | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Encoded:
    """Read a pipe to its end, compress and encrypt what comes, and write it to `sink`, which stays open.

    `reader` is fed every block. `on_block` gets the number of plain bytes so far, after every block and at least once a
    second while the pipe is silent. `max_rate_mb` is in megabytes of the dump a second. Raises Stopped soon after
    `should_stop` says so, Silent when nothing comes for SILENCE_SECONDS, and whatever `sink`, `reader` and `on_block`
    raise.
    """
    pace = _Pace(on_block, should_stop, max_rate_mb)
    compressor = compressor_for(compression)
    context = _context(backup_id, source, format, compression)
    data_key = tink.new_keyset_handle(streaming_aead.streaming_aead_key_templates.AES256_GCM_HKDF_1MB)
    wrapped = keyring.seal(tink.proto_keyset_format.serialize(data_key, secret_key_access.TOKEN), context=context)
    with _Encryption(data_key, context, sink) as encryption:
        for block in _blocks(source_fd, pace):
            if reader:
                reader.feed(block)
            encryption.write(compressor.compress(block))
            pace.step(len(block))
        encryption.write(compressor.flush())
    return Encoded(
        backup_id=backup_id,
        source=source,
        format=format,
        compression=compression,
        plain_bytes=pace.total,
        stored_bytes=encryption.sink.bytes,
        sha256=encryption.sink.sha256.hexdigest(),
        wrapped_key=base64.b64encode(wrapped).decode(),
    )


def blocks(
    source_fd: int, *, on_block: Callable[[int], None] | None = None, should_stop: Callable[[], bool] | None = None
) -> Iterator[memoryview]:
    """Read a pipe to its end for its content alone, as `encode` does. A block is good until the next one."""
    pace = _Pace(on_block, should_stop, None)
    for block in _blocks(source_fd, pace):
        yield block
        pace.step(len(block))


def decode(
    source: BinaryIO,
    encoded: Encoded,
    *,
    keyring: Keyring,
    write: Callable[[memoryview], None] | None = None,
    reader: Reader | None = None,
    on_block: Callable[[int], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Decoded:
    """Read an object and check all of it; hand its plain blocks to `reader` and `write`, which must not keep them.

    Raises Corrupt at the first thing that is wrong, after the blocks before it were handed on: whoever may not act on
    half a dump decodes twice. Raises KeyUnknown when the keyring has not the key, and what `source` and others raise.
    """
    pace = _Pace(on_block, should_stop, None)
    decompressor = decompressor_for(encoded.compression)
    decryption = _Decryption(source, encoded, _data_key(encoded, keyring))
    plain = _refilled(part for piece in decryption.pieces() for part in decompressor.parts(piece))
    with closing(_made_ahead(plain)) as ready:
        for block in ready:
            if reader:
                reader.feed(block)
            if write:
                write(block)
            pace.step(len(block))
    if not decompressor.ended:
        raise Corrupt("The compressed data ends before its end marker: it was never complete. Use another backup.")
    if pace.total != encoded.plain_bytes:
        raise Corrupt(f"The dump has {pace.total} bytes, not {encoded.plain_bytes} as recorded. Use another backup.")
    decryption.check()
    return Decoded(pace.total, decryption.source.bytes, -(-decryption.source.bytes // SEGMENT_BYTES))


def rewrapped(encoded: Encoded, keyring: Keyring) -> Encoded:
    """The same object with its data key sealed by the keyring's primary key. The object stays as it is."""
    plain = _unsealed(encoded, keyring)
    sealed = keyring.seal(plain, context=_context_of(encoded))
    return replace(encoded, wrapped_key=base64.b64encode(sealed).decode())


# ---- The data key ----------------------------------------------------------------------------------------------------


def _context(backup_id: str, source: str, dump_format: str, compression: str) -> bytes:
    """What the data key and every segment are bound to. JSON, so that no two lists of words look alike."""
    words = ["pulsewatch backup 1", backup_id, source, dump_format, compression]
    return json.dumps(words, separators=(",", ":")).encode()


def _context_of(encoded: Encoded) -> bytes:
    return _context(encoded.backup_id, encoded.source, encoded.format, encoded.compression)


def _unsealed(encoded: Encoded, keyring: Keyring) -> bytes:
    try:
        sealed = base64.b64decode(encoded.wrapped_key, validate=True)
        return keyring.unseal(sealed, context=_context_of(encoded))
    except (ValueError, Tampered):
        raise Corrupt(
            f"The data key of backup {encoded.backup_id} is not authentic: "
            "it was altered or belongs to another backup. Use another copy of the sidecar."
        ) from None


def _data_key(encoded: Encoded, keyring: Keyring) -> tink.KeysetHandle:
    return tink.proto_keyset_format.parse(_unsealed(encoded, keyring), secret_key_access.TOKEN)


# ---- Encryption ------------------------------------------------------------------------------------------------------


class _Encryption:
    """Encrypts what is written inside its block. Only a block that ends well writes the last segment."""

    def __init__(self, data_key: tink.KeysetHandle, context: bytes, sink: BinaryIO) -> None:
        self.sink = _Sink(sink)
        primitive = data_key.primitive(streaming_aead.StreamingAead)
        self._stream = cast(io.BufferedWriter, primitive.new_encrypting_stream(cast(BinaryIO, self.sink), context))

    def write(self, data: bytes) -> None:
        with self.sink.own_errors():
            while data:  # mostly nothing: compressors collect before they give
                # `raw` is past a buffer of Python's, which would copy once more.
                data = data[self._stream.raw.write(data) or 0 :]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            with self.sink.own_errors():
                self._stream.close()
            return
        # Closing writes the last segment, which would make half a dump look whole. Unclosed, it would be closed by
        # Python when it clears up.
        self.sink.abandoned = True
        with suppress(tink.TinkError):
            self._stream.close()


class _Decryption:
    """Decrypts an object segment by segment, and says what is wrong with it."""

    def __init__(self, source: BinaryIO, encoded: Encoded, data_key: tink.KeysetHandle) -> None:
        self.source = _Source(source, encoded.stored_bytes)
        self._encoded = encoded
        self._plain_bytes = 0  # of the segments so far, before decompression
        primitive = data_key.primitive(streaming_aead.StreamingAead)
        context = _context_of(encoded)
        self._stream = cast(io.BufferedReader, primitive.new_decrypting_stream(cast(BinaryIO, self.source), context))

    def pieces(self) -> Iterator[bytes]:
        """What each segment holds, still compressed. Raises Corrupt with the number of the first bad one."""
        raw = cast(io.RawIOBase, self._stream.raw)  # past a buffer of Python's, which would copy once more
        while True:
            try:
                with self.source.own_errors():
                    piece = raw.read(SEGMENT_BYTES)
            except tink.TinkError:
                raise self._fault() from None
            if not piece:
                return
            self._plain_bytes += len(piece)
            yield piece

    def check(self) -> None:
        """After the last piece: was it all that was written, and nothing else?"""
        self.source.read(1)  # Tink does not look behind a last segment that is full; the source does, and complains
        if self.source.bytes != self._encoded.stored_bytes or self.source.sha256.hexdigest() != self._encoded.sha256:
            raise Corrupt(
                f"The object is not the one that was written: it has {self.source.bytes} bytes "
                f"with SHA-256 {self.source.sha256.hexdigest()}. Use another copy or another backup."
            )

    def _fault(self) -> Corrupt:
        # Whole segments come out one by one, and the first of them holds less: it begins with the header.
        beyond_first = self._plain_bytes - FIRST_SEGMENT_PLAIN
        number = 0 if beyond_first < 0 else 1 + beyond_first // SEGMENT_PLAIN
        begin, stored = number * SEGMENT_BYTES, self._encoded.stored_bytes
        if self.source.ended and self.source.bytes < stored:
            return Corrupt(
                f"The object is cut off: it has {self.source.bytes} of {stored} bytes and ends in segment {number}. "
                "Use another copy or another backup."
            )
        end = min(begin + SEGMENT_BYTES, stored)
        also = ", or the object belongs to another backup" if number == 0 else ""
        return Corrupt(
            f"Segment {number} of the object (bytes {begin} to {end - 1}) was altered{also}. "
            "Use another copy or another backup."
        )


class _Ours(io.RawIOBase):
    """A file of ours in Tink's hands. Tink turns our errors into its own; `own_errors` brings them back."""

    def __init__(self) -> None:
        self.bytes = 0
        self.sha256 = hashlib.sha256()
        self.error: BaseException | None = None

    @contextmanager
    def own_errors(self) -> Iterator[None]:
        try:
            yield
        except tink.TinkError:
            if self.error is None:
                raise
            raise self.error from None


class _Sink(_Ours):
    """Counts and digests what goes on to the true sink."""

    def __init__(self, sink: BinaryIO) -> None:
        super().__init__()
        self.abandoned = False
        self._sink = sink

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        if self.abandoned:
            return len(data)
        try:
            self._sink.write(data)
        except BaseException as error:  # Tink would swallow it, a stop by signal as well
            self.error = error
            raise
        self.sha256.update(data)
        self.bytes += len(data)
        return len(data)


class _Source(_Ours):
    """Counts and digests what comes from the true source, which should give `expected` bytes."""

    def __init__(self, source: BinaryIO, expected: int) -> None:
        super().__init__()
        self.ended = False
        self._source = source
        self._expected = expected

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        try:
            data = self._source.read(size)
            self.bytes += len(data)
            if self.bytes > self._expected:
                raise Corrupt(
                    f"The object is longer than the {self._expected} bytes that were written. "
                    "Use another copy or another backup."
                )
        except BaseException as error:  # Tink would swallow it, a stop by signal as well
            self.error = error
            raise
        self.ended = not data
        self.sha256.update(data)
        return data


# ---- Blocks ----------------------------------------------------------------------------------------------------------


def _blocks(descriptor: int, pace: "_Pace") -> Iterator[memoryview]:
    """What a pipe gives, as it comes, up to its end. The memory is used again for the next block."""
    block = memoryview(bytearray(BLOCK_BYTES))
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    while True:
        heard = time.monotonic()
        while not poll.poll(WAIT_MS):
            pace.look()
            if time.monotonic() > heard + SILENCE_SECONDS:
                raise Silent(
                    f"The dump gave nothing for {SILENCE_SECONDS // 60} minutes: its server hangs or is out of reach, "
                    "or another session keeps a table locked. Look at the server, then back up again."
                )
        size = os.readv(descriptor, [block])
        if not size:
            return
        yield block[:size]


def _made_ahead(made: Iterator[memoryview]) -> Generator[memoryview, None, None]:
    """The same blocks. The next one is made in a thread while the caller works on the one before.

    Decryption and decompression take about as long as a reader, and neither holds up the other for long.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="decode") as thread:
        coming = thread.submit(next, made, None)
        while (block := coming.result()) is not None:
            coming = thread.submit(next, made, None)
            yield block


def _refilled(parts: Iterator[bytes]) -> Iterator[memoryview]:
    """The same bytes in blocks of BLOCK_BYTES, the last one shorter. The memory is used again for the next but one."""
    block, spare, used = memoryview(bytearray(BLOCK_BYTES)), memoryview(bytearray(BLOCK_BYTES)), 0
    for part in parts:
        rest = memoryview(part)
        while rest:
            size = min(len(rest), BLOCK_BYTES - used)
            block[used : used + size] = rest[:size]
            rest, used = rest[size:], used + size
            if used == BLOCK_BYTES:
                yield block
                block, spare, used = spare, block, 0
    if used:
        yield block[:used]


class _Pace:
    """Counts, reports, stops and slows down."""

    def __init__(
        self, on_block: Callable[[int], None] | None, should_stop: Callable[[], bool] | None, max_rate_mb: float | None
    ) -> None:
        self.total = 0
        self._on_block = on_block
        self._should_stop = should_stop
        self._seconds_per_byte = 1 / (max_rate_mb * MEGABYTE) if max_rate_mb else 0
        self._due = time.monotonic()

    def step(self, size: int) -> None:
        """A block has been dealt with."""
        self.total += size
        self.look()
        now = time.monotonic()
        self._due = max(self._due, now - self._seconds_per_byte * size) + self._seconds_per_byte * size
        while (wait := self._due - time.monotonic()) > 0:
            time.sleep(min(wait, WAIT_MS / 1000))
            self.look()

    def look(self) -> None:
        if self._should_stop and self._should_stop():
            raise Stopped("It was stopped on request.")
        if self._on_block:
            self._on_block(self.total)
