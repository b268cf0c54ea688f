"""Small dumps as streams: encoded, decoded, forged."""

import base64
import hashlib
import io
import os
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import tink
from tink import secret_key_access, streaming_aead

from apps.backups import stream
from apps.backups.engines.base import Content, Objects
from apps.backups.stream import (
    Encoded,
    decode,
    encode,
)
from apps.core.keys import Keyring, new_keyset

KEYRING = Keyring(new_keyset())
ROWS = b"INSERT INTO `todo` VALUES (1,'buy milk','2025-10-20');\n"
MIB = 2**20


@contextmanager
def pipe(data: bytes) -> Iterator[int]:
    """The reading end of a pipe that another thread fills, as a dump does."""
    reading, writing = os.pipe()

    def fill() -> None:
        with os.fdopen(writing, "wb") as file:
            try:
                file.write(data)
            except BrokenPipeError:
                return

    thread = threading.Thread(target=fill)
    thread.start()
    try:
        yield reading
    finally:
        os.close(reading)
        thread.join()


def encoded(data: bytes, backup_id: str = "backup_1", **options) -> tuple[Encoded, bytes]:
    sink = io.BytesIO()
    with pipe(data) as source:
        made = encode(source, sink, keyring=KEYRING, backup_id=backup_id, source="mysql:todo", format="sql", **options)
    return made, sink.getvalue()


def decoded(blob: bytes, made: Encoded, **options) -> bytes:
    out = io.BytesIO()
    decode(io.BytesIO(blob), made, keyring=options.pop("keyring", KEYRING), write=out.write, **options)
    return out.getvalue()


def forged(compressed: bytes, plain_bytes: int, compression: str = "zstd") -> tuple[Encoded, bytes]:
    """An object as `encode` writes it, around compressed data that `encode` would never make."""
    context = stream._context("backup_1", "mysql:todo", "sql", compression)
    key = tink.new_keyset_handle(streaming_aead.streaming_aead_key_templates.AES256_GCM_HKDF_1MB)
    wrapped = KEYRING.seal(tink.proto_keyset_format.serialize(key, secret_key_access.TOKEN), context=context)
    sink = io.BytesIO()
    sink.close = lambda: None  # type: ignore[method-assign]  # Tink closes it, and its content would be gone
    writer = key.primitive(streaming_aead.StreamingAead).new_encrypting_stream(sink, context)
    with writer:
        writer.write(compressed)
    blob = sink.getvalue()
    made = Encoded(
        backup_id="backup_1",
        source="mysql:todo",
        format="sql",
        compression=compression,
        plain_bytes=plain_bytes,
        stored_bytes=len(blob),
        sha256=hashlib.sha256(blob).hexdigest(),
        wrapped_key=base64.b64encode(wrapped).decode(),
    )
    return made, blob


class Digest:
    """A reader that digests what it is fed."""

    def __init__(self) -> None:
        self.sha256 = hashlib.sha256()
        self.largest = 0

    def feed(self, block: memoryview) -> None:
        self.sha256.update(block)
        self.largest = max(self.largest, len(block))

    def close(self) -> Content:
        return Content({}, self.sha256.hexdigest(), Objects(), complete=True)


def noise(size: int) -> bytes:
    return random.Random(size).randbytes(size)
