"""Whatever is altered, cut, swapped or forged in an object is found and named."""

import io
import random
import re
import zlib
from dataclasses import replace

import pytest

from apps.backups.stream import (
    FIRST_SEGMENT_PLAIN,
    SEGMENT_BYTES,
    Encoded,
    decode,
)
from apps.core.errors import Corrupt
from tests.backups.streams import KEYRING, MIB, ROWS, decoded, encoded, forged, noise
from tests.backups.test_stream import compressed

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


def test_every_flipped_bit_of_a_small_object_is_found() -> None:
    made, blob = encoded(ROWS)
    for bit in range(8 * len(blob)):
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
