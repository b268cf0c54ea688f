"""From a pipe into an object and back."""

import base64
import hashlib
import io
import os
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import pytest
import tink
import zstandard
from tink import secret_key_access, streaming_aead

from apps.backups import stream
from apps.backups.stream import (
    FIRST_SEGMENT_PLAIN,
    SEGMENT_BYTES,
    SEGMENT_PLAIN,
    Stopped,
    decode,
    encode,
    rewrapped,
)
from apps.core.errors import Corrupt, Invalid, KeyUnknown
from apps.core.keys import Keyring, new_keyset
from tests.backups.streams import KEYRING, MIB, ROWS, Digest, decoded, encoded, noise, pipe

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
