import base64
import hashlib
import io
import os
import random
import re
import subprocess
import sys
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path

import pytest
import tink
import zstandard
from tink import secret_key_access, streaming_aead

from apps.backups import stream
from apps.backups.engines.base import Content, Objects
from apps.backups.stream import (
    FIRST_SEGMENT_PLAIN,
    SEGMENT_BYTES,
    SEGMENT_PLAIN,
    Encoded,
    Stopped,
    decode,
    encode,
    rewrapped,
)
from apps.core.errors import Corrupt, Invalid, KeyUnknown
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


# --- What goes in comes out -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compression", ["zstd", "gzip"])
@pytest.mark.parametrize(
    "data",
    [b"", b"x", ROWS * 1000, noise(3 * MIB + 17), bytes(40 * MIB)],
    ids=["empty", "byte", "rows", "noise", "zeros"],
)
def test_a_dump_comes_back_byte_for_byte(data: bytes, compression: str) -> None:
    made, blob = encoded(data, compression=compression)
    assert made.plain_bytes == len(data)
    assert made.stored_bytes == len(blob)
    assert made.sha256 == hashlib.sha256(blob).hexdigest()
    assert decoded(blob, made) == data


@pytest.mark.parametrize("delta", [-1, 0, 1])
@pytest.mark.parametrize("segments", [1, 2, 3])
def test_compressed_data_that_fills_segments_exactly_comes_back(segments: int, delta: int) -> None:
    """Noise does not compress, so its stored size is known: what zstd adds is subtracted."""
    size = FIRST_SEGMENT_PLAIN + (segments - 1) * SEGMENT_PLAIN + delta
    data = noise(size)
    while (excess := len(compressed(data)) - size) > 0:
        data = data[:-excess]
    assert len(compressed(data)) == size
    made, blob = encoded(data)
    assert made.stored_bytes == segments * SEGMENT_BYTES + delta + (16 if delta > 0 else 0)
    assert decoded(blob, made) == data
    with pytest.raises(Corrupt, match="longer"):
        decoded(blob + b"\0", made)
    with pytest.raises(Corrupt, match="cut off"):
        decoded(blob[:-1], made)


def compressed(data: bytes) -> bytes:
    zstd = zstandard.ZstdCompressor(level=3, threads=1, write_checksum=True).compressobj()
    return zstd.compress(data) + zstd.flush()


def test_the_reader_sees_the_same_bytes_in_blocks_of_a_mebibyte_both_ways() -> None:
    data = ROWS * 100_000
    going, coming = Digest(), Digest()
    made, blob = encoded(data, reader=going)
    out = io.BytesIO()
    result = decode(io.BytesIO(blob), made, keyring=KEYRING, reader=coming, write=out.write)
    assert going.close() == coming.close()
    assert max(going.largest, coming.largest) <= MIB
    assert out.getvalue() == data
    assert result == stream.Decoded(len(data), len(blob), -(-len(blob) // SEGMENT_BYTES))


def test_each_backup_has_a_key_of_its_own() -> None:
    first, second = encoded(ROWS), encoded(ROWS)
    assert first[0].wrapped_key != second[0].wrapped_key
    assert first[1] != second[1]
    with pytest.raises(Corrupt, match=r"Segment 0 .* another backup"):
        decoded(second[1], replace(first[0], stored_bytes=len(second[1])))


def test_the_object_shows_nothing_of_the_dump() -> None:
    _, blob = encoded(ROWS)
    assert b"milk" not in blob
    assert zstandard.FRAME_HEADER not in blob


def test_the_written_format_is_what_tink_and_zstd_publish() -> None:
    data = ROWS * 1000
    made, blob = encoded(data)
    context = b'["pulsewatch backup 1","backup_1","mysql:todo","sql","zstd"]'
    key = KEYRING.unseal(base64.b64decode(made.wrapped_key), context=context)
    primitive = tink.proto_keyset_format.parse(key, secret_key_access.TOKEN).primitive(streaming_aead.StreamingAead)
    with primitive.new_decrypting_stream(io.BytesIO(blob), context) as reader:
        frame = reader.read()
    assert zstandard.get_frame_parameters(frame).has_checksum
    assert zstandard.ZstdDecompressor().decompressobj().decompress(frame) == data


# --- What was altered is found ----------------------------------------------------------------------------------------


def test_every_flipped_byte_and_every_truncation_of_a_small_object_is_found() -> None:
    made, blob = encoded(ROWS * 20)
    assert decoded(blob, made) == ROWS * 20
    for at in range(len(blob)):
        altered = bytearray(blob)
        altered[at] ^= 0xFF
        with pytest.raises(Corrupt, match=r"^Segment 0 of the object \(bytes 0 to \d+\) was altered"):
            decoded(bytes(altered), made)
    for length in range(len(blob)):
        with pytest.raises(Corrupt, match=f"cut off: it has {length} of {len(blob)} bytes"):
            decoded(blob[:length], made)


def test_every_flipped_bit_of_a_sample_is_found() -> None:
    made, blob = encoded(ROWS)
    for bit in [*range(50 * 8), *range(8 * len(blob) - 20 * 8, 8 * len(blob))]:
        altered = bytearray(blob)
        altered[bit // 8] ^= 1 << bit % 8
        with pytest.raises(Corrupt):
            decoded(bytes(altered), made)


@pytest.fixture(scope="module")
def large() -> tuple[Encoded, bytes]:
    made, blob = encoded(noise(40 * MIB))
    assert len(blob) > 40 * SEGMENT_BYTES
    return made, blob


EDGES = [0, 39, 40, SEGMENT_BYTES - 1, SEGMENT_BYTES, SEGMENT_BYTES + 1, 2 * SEGMENT_BYTES - 1, 39 * SEGMENT_BYTES]


@pytest.mark.parametrize("at", [*EDGES, *random.Random(3).sample(range(40 * MIB), 12), -1])
def test_the_altered_segment_of_a_large_object_is_named(large: tuple[Encoded, bytes], at: int) -> None:
    made, blob = large
    at %= len(blob)
    altered = bytearray(blob)
    altered[at] ^= 1
    with pytest.raises(Corrupt) as caught:
        decode(io.BytesIO(altered), made, keyring=KEYRING)
    number = at // SEGMENT_BYTES
    begin, end = number * SEGMENT_BYTES, min((number + 1) * SEGMENT_BYTES, len(blob)) - 1
    assert str(caught.value).startswith(f"Segment {number} of the object (bytes {begin} to {end}) was altered")


@pytest.mark.parametrize("length", [*EDGES, *random.Random(4).sample(range(40 * MIB), 8), 40 * SEGMENT_BYTES, -1])
def test_a_truncated_large_object_says_where_it_ends(large: tuple[Encoded, bytes], length: int) -> None:
    made, blob = large
    length %= len(blob)
    with pytest.raises(Corrupt, match=f"it has {length} of {len(blob)} bytes and ends in segment") as caught:
        decode(io.BytesIO(blob[:length]), made, keyring=KEYRING)
    [number] = re.findall(r"segment (\d+)", str(caught.value))
    assert int(number) in (length // SEGMENT_BYTES, max(0, (length - 1) // SEGMENT_BYTES))


def test_swapped_segments_are_found(large: tuple[Encoded, bytes]) -> None:
    made, blob = large
    two, three = blob[2 * MIB : 3 * MIB], blob[3 * MIB : 4 * MIB]
    with pytest.raises(Corrupt, match="Segment 2 "):
        decode(io.BytesIO(blob[: 2 * MIB] + three + two + blob[4 * MIB :]), made, keyring=KEYRING)


def test_a_record_that_does_not_fit_the_object_is_found() -> None:
    made, blob = encoded(ROWS * 20)
    with pytest.raises(Corrupt, match="SHA-256"):
        decoded(blob, replace(made, sha256="0" * 64))
    with pytest.raises(Corrupt, match="longer"):
        decoded(blob, replace(made, stored_bytes=made.stored_bytes - 1))
    with pytest.raises(Corrupt, match=f"{len(blob)} bytes"):
        decoded(blob, replace(made, stored_bytes=made.stored_bytes + 1))
    with pytest.raises(Corrupt, match="as recorded"):
        decoded(blob, replace(made, plain_bytes=made.plain_bytes + 1))
    for name in ("backup_id", "source", "format"):
        with pytest.raises(Corrupt, match="data key"):
            decoded(blob, replace(made, **{name: "another"}))
    with pytest.raises(Corrupt, match="data key"):
        decoded(blob, replace(made, compression="gzip"))
    with pytest.raises(Corrupt, match="data key"):
        decoded(blob, replace(made, wrapped_key="no base64!"))


@pytest.mark.parametrize("compression", ["zstd", "gzip"])
def test_an_incomplete_or_overlong_compressed_dump_is_found_although_its_encryption_is_sound(compression: str) -> None:
    frame = compressed(ROWS * 100) if compression == "zstd" else zlib.compress(ROWS * 100, wbits=31)
    made, blob = forged(frame, len(ROWS * 100), compression)
    assert decoded(blob, made) == ROWS * 100
    cases = {
        frame[:-1]: "end marker",  # the last byte of the checksum
        frame[:-4]: "end marker",
        frame[: len(frame) // 2]: "end marker",
        b"": "end marker",
        frame + b"\0": "behind the end",
        frame + frame: "behind the end",
        frame + bytes(5000): "behind the end",
        frame[:-6] + b"\0\0\0\0" + frame[-2:]: "cannot be decompressed|end marker|behind",
        b"no such data": "cannot be decompressed",
    }
    for broken, message in cases.items():
        made, blob = forged(broken, len(ROWS * 100), compression)
        with pytest.raises(Corrupt, match=message):
            decoded(blob, made)


def test_data_behind_a_full_last_segment_is_found_however_much_it_is() -> None:
    data = noise(FIRST_SEGMENT_PLAIN)
    while (excess := len(compressed(data)) - FIRST_SEGMENT_PLAIN) > 0:
        data = data[:-excess]
    made, blob = encoded(data)
    assert len(blob) == SEGMENT_BYTES
    for more in (b"\0", blob, bytes(100), noise(3 * MIB)):
        with pytest.raises(Corrupt, match="longer"):
            decoded(blob + more, made)


def test_data_behind_the_end_is_found_when_it_begins_a_new_segment() -> None:
    data = noise(FIRST_SEGMENT_PLAIN)
    while (excess := len(compressed(data)) - FIRST_SEGMENT_PLAIN) > 0:
        data = data[:-excess]
    made, blob = forged(compressed(data) + b"more", len(data))
    with pytest.raises(Corrupt, match="behind the end"):
        decoded(blob, made)


# --- Keys -------------------------------------------------------------------------------------------------------------


def test_a_wrong_keyset_is_no_corruption() -> None:
    made, blob = encoded(ROWS)
    with pytest.raises(KeyUnknown, match=KEYRING.key_id):
        decoded(blob, made, keyring=Keyring(new_keyset()))


def test_rotation_changes_the_wrapped_key_and_not_the_object() -> None:
    made, blob = encoded(ROWS)
    later = Keyring(KEYRING.rotated())
    rotated = rewrapped(made, later)
    assert [field.name for field in fields(made) if getattr(made, field.name) != getattr(rotated, field.name)] == [
        "wrapped_key"
    ]
    assert decoded(blob, rotated, keyring=later) == ROWS
    assert decoded(blob, made, keyring=later) == ROWS
    with pytest.raises(KeyUnknown):
        decoded(blob, rotated)


# --- What happens meanwhile -------------------------------------------------------------------------------------------


class Broken(io.RawIOBase):
    """A sink that takes some bytes, then fails as a full disk does."""

    def __init__(self, room: int, error: BaseException) -> None:
        self.room, self.error, self.taken = room, error, 0

    def write(self, data: bytes) -> int:
        self.taken += len(data)
        if self.taken > self.room:
            raise self.error
        return len(data)


@pytest.mark.parametrize("room", [0, 3 * MIB])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt(), Corrupt("x")], ids=repr)
def test_what_a_sink_raises_comes_out_as_it_is(room: int, error: BaseException) -> None:
    sink = Broken(room, error)
    with pipe(noise(6 * MIB)) as source, pytest.raises(type(error)) as caught:
        encode(source, sink, keyring=KEYRING, backup_id="b", source="s", format="sql")  # type: ignore[arg-type]
    assert caught.value is error


def test_what_a_source_raises_comes_out_as_it_is() -> None:
    made, blob = encoded(noise(3 * MIB))
    lost = ConnectionError("lost")

    class Lost(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell() > MIB:
                raise lost
            return super().read(size)

    with pytest.raises(ConnectionError) as caught:
        decode(Lost(blob), made, keyring=KEYRING)
    assert caught.value is lost


def test_an_interrupted_dump_leaves_no_object_that_looks_whole() -> None:
    """The last segment is the end marker: it must not be written when the dump breaks off, even on clearing up."""
    sink = io.BytesIO()
    broken = RuntimeError("the client died")

    def fail(total: int) -> None:
        if total > 2 * MIB:
            raise broken

    with pipe(noise(4 * MIB)) as source, pytest.raises(RuntimeError):
        encode(source, sink, keyring=KEYRING, backup_id="b", source="s", format="sql", on_block=fail)
    assert len(sink.getvalue()) % (MIB // 8) == 0  # Tink's pieces, and no shorter last one


def test_progress_counts_plain_bytes_both_ways() -> None:
    seen: list[int] = []
    made, blob = encoded(noise(3 * MIB), on_block=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == 3 * MIB
    seen.clear()
    decoded(blob, made, on_block=seen.append)
    assert seen == [MIB, 2 * MIB, 3 * MIB]


def test_a_silent_dump_can_be_stopped_and_still_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "WAIT_MS", 5)
    seen: list[int] = []
    reading, writing = os.pipe()
    try:
        with pytest.raises(Stopped):
            encode(
                reading,
                io.BytesIO(),
                keyring=KEYRING,
                backup_id="b",
                source="s",
                format="sql",
                on_block=seen.append,
                should_stop=lambda: len(seen) == 3,
            )
    finally:
        os.close(reading)
        os.close(writing)
    assert seen == [0, 0, 0]


def test_a_check_can_be_stopped() -> None:
    made, blob = encoded(noise(3 * MIB))
    seen: list[int] = []
    with pytest.raises(Stopped):
        decoded(blob, made, on_block=seen.append, should_stop=lambda: bool(seen))
    assert seen == [MIB]


def test_a_rate_is_kept_and_a_pause_is_not_made_up_for(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(stream, "time", clock)
    pace = stream._Pace(None, None, 2.0)  # 2 MB a second
    for _ in range(10):
        pace.step(500_000)
    assert clock.now == pytest.approx(2.5, abs=0.26)  # 5 MB
    clock.now += 100
    before = clock.now
    for _ in range(8):
        pace.step(500_000)
    assert clock.now - before == pytest.approx(2.0, abs=0.26)  # 4 MB


def test_a_long_wait_for_the_rate_asks_whether_to_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(stream, "time", clock)
    pace = stream._Pace(None, lambda: clock.now > 5, 0.01)  # a block takes 100 seconds
    pace.step(1)
    with pytest.raises(Stopped):
        pace.step(MIB)
    assert clock.now < 7


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_without_a_rate_nothing_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream.time, "sleep", lambda seconds: pytest.fail("slept"))
    made, blob = encoded(ROWS * 1000)
    assert decoded(blob, made) == ROWS * 1000


def test_an_unknown_compression_is_refused() -> None:
    with pytest.raises(Invalid, match="zstd or gzip"):
        encoded(b"", compression="rar")
    made, blob = encoded(b"")
    with pytest.raises(Invalid, match="zstd or gzip"):
        decoded(blob, replace(made, compression="rar"))


# --- Speed and memory -------------------------------------------------------------------------------------------------

MEASURE = """
import os, sys
from apps.backups.stream import decode, encode
from apps.core.keys import Keyring, new_keyset

def peak_kib():  # of this program; getrusage would begin with the peak of the one that started it
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))

megabytes, path, compressible = int(sys.argv[1]), sys.argv[2], sys.argv[3] == "zeros"
keyring = Keyring(new_keyset())
reading, writing = os.pipe()
if os.fork() == 0:
    os.close(reading)
    with open(writing, "wb") as pipe:
        for _ in range(megabytes):
            pipe.write(bytes(10**6) if compressible else os.urandom(500_000).hex().encode())
    os._exit(0)
os.close(writing)
before = peak_kib()
with open(path, "wb", buffering=0) as sink:
    made = encode(reading, sink, keyring=keyring, backup_id="b", source="s", format="sql")
os.wait()
with open(path, "rb", buffering=0) as source:
    decode(source, made, keyring=keyring)
assert made.plain_bytes == megabytes * 10**6
print(peak_kib() - before)
"""


@pytest.mark.parametrize("kind", ["hex", "zeros"])
def test_four_hundred_megabytes_take_no_more_than_sixty_of_memory_there_and_back(tmp_path: Path, kind: str) -> None:
    command = [sys.executable, "-W", "ignore", "-c", MEASURE, "400", str(tmp_path / "object"), kind]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert 0 < int(done.stdout) * 1024 <= 60 * 10**6
