import os
import random
from collections.abc import Iterator

import pytest
import zstandard

from apps.backups.compression import compressor_for, decompressor_for
from apps.core.errors import Corrupt

MIB = 2**20
DUMPS = {
    "empty": b"",
    "a byte": b"x",
    "text": b"INSERT INTO `todo` VALUES (1,'buy milk','2025-10-20');\n" * 60_000,
    "noise": random.Random(1).randbytes(3 * MIB + 5),
    "zeros": bytes(70 * MIB),
    "both": random.Random(2).randbytes(200_000) + bytes(20 * MIB) + random.Random(3).randbytes(200_000),
}


def compressed(data: bytes, name: str = "zstd") -> bytes:
    compressor = compressor_for(name)
    return compressor.compress(memoryview(data)) + compressor.flush()


def split(data: bytes, size: int) -> Iterator[bytes]:
    return (data[begin : begin + size] for begin in range(0, len(data), size))


@pytest.mark.parametrize("name", ["zstd", "gzip"])
@pytest.mark.parametrize("kind", DUMPS)
@pytest.mark.parametrize("size", [997, MIB - 16])
def test_what_comes_out_is_what_went_in_and_never_much_at_once(name: str, kind: str, size: int) -> None:
    decompressor = decompressor_for(name)
    parts = [part for piece in split(compressed(DUMPS[kind], name), size) for part in decompressor.parts(piece)]
    assert b"".join(parts) == DUMPS[kind]
    assert decompressor.ended
    assert max(map(len, parts), default=0) <= MIB + 128 * 1024


@pytest.mark.parametrize("size", [5, 6, 7, 8, 9, 10, 11, 64, 1000])
def test_a_block_may_begin_anywhere_in_what_is_handed_over(size: int) -> None:
    data = os.urandom(3000) + bytes(9 * MIB) + b"todo " * 100_000
    decompressor = decompressor_for("zstd")
    parts = [part for piece in split(compressed(data), size) for part in decompressor.parts(piece)]
    assert b"".join(parts) == data
    assert decompressor.ended


@pytest.mark.parametrize("options", [{}, {"write_checksum": True}, {"write_content_size": False}, {"level": 19}])
def test_frames_with_other_headers_are_cut_as_well(options: dict[str, int]) -> None:
    data = DUMPS["both"]
    decompressor = decompressor_for("zstd")
    parts = list(decompressor.parts(zstandard.ZstdCompressor(**options).compress(data)))
    assert b"".join(parts) == data
    assert decompressor.ended
    assert max(map(len, parts)) <= MIB + 128 * 1024


@pytest.mark.parametrize("cut", [1, 4, 5, 6, 8, 9, 100, -5, -4, -1])
def test_a_frame_that_is_cut_off_has_not_ended(cut: int) -> None:
    decompressor = decompressor_for("zstd")
    b"".join(decompressor.parts(compressed(DUMPS["text"])[:cut]))
    assert not decompressor.ended


@pytest.mark.parametrize("more", [b"\0", compressed(b"another")])
def test_data_behind_a_frame_is_refused(more: bytes) -> None:
    decompressor = decompressor_for("zstd")
    with pytest.raises(Corrupt, match="behind the end"):
        list(decompressor.parts(compressed(DUMPS["text"]) + more))


def test_any_altered_byte_of_a_frame_is_refused_or_leaves_it_without_an_end() -> None:
    whole = compressed(DUMPS["text"][:400_000])
    for at in range(len(whole)):
        decompressor = decompressor_for("zstd")
        try:
            out = b"".join(decompressor.parts(whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :]))
        except Corrupt:
            continue
        assert not decompressor.ended or out == DUMPS["text"][:400_000]
