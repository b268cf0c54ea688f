"""Compression as dumps need it: a stream with an end marker and a checksum, read in bounded memory."""

import zlib
from collections.abc import Iterator
from typing import Protocol

import zstandard

from apps.core.errors import Corrupt, Invalid

BLOCK_BYTES = 2**20  # given out at once by gzip
ZSTD_LEVEL = 3  # zstd's own default; as fast as mariadb-dump speaks
ZSTD_JOB_BYTES = 4 * 2**20  # handed to zstd's thread at once: half of its own choice takes half of its 40 MiB
GZIP_LEVEL = 6  # gzip's own default
GZIP_WINDOW = 31  # zlib's number for the largest window with a gzip header
ZSTD_BLOCKS = 8  # handed to zstd at once: each becomes 128 KiB at most, be it from 4 bytes


class Compressor(Protocol):
    """Gives out compressed bytes when it has some."""

    def compress(self, data: memoryview, /) -> bytes: ...
    def flush(self) -> bytes: ...


def compressor_for(name: str) -> Compressor:
    """The compressor of this name: zstd or gzip. Raises Invalid for another."""
    if name == "zstd":
        # One thread of zstd's own compresses while this one reads, digests and encrypts.
        parameters = zstandard.ZstdCompressionParameters.from_level(
            ZSTD_LEVEL, threads=1, job_size=ZSTD_JOB_BYTES, write_checksum=True
        )
        return zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    if name == "gzip":
        return zlib.compressobj(GZIP_LEVEL, wbits=GZIP_WINDOW)
    raise _unknown(name)


class Decompressor(Protocol):
    """Gives out what was compressed, about 1 MiB at once. Raises Corrupt when data or checksum are wrong."""

    @property
    def ended(self) -> bool: ...  # the end marker was there and the checksum was right
    def parts(self, data: bytes) -> Iterator[bytes]: ...  # Corrupt when there is data behind the end


def decompressor_for(name: str) -> Decompressor:
    """The decompressor of this name: zstd or gzip. Raises Invalid for another."""
    if name == "zstd":
        return Zstd()
    if name == "gzip":
        return Gzip()
    raise _unknown(name)


class Zstd:
    def __init__(self) -> None:
        self._zstd = zstandard.ZstdDecompressor().decompressobj()
        self._blocks = _Blocks()

    @property
    def ended(self) -> bool:
        return self._zstd.eof

    def parts(self, data: bytes) -> Iterator[bytes]:
        for piece in self._blocks.pieces(data):
            if self.ended:
                raise _behind_the_end()
            try:
                yield self._zstd.decompress(piece)
            except zstandard.ZstdError as error:
                raise _not_compressed(error) from None
        if self._zstd.unused_data:
            raise _behind_the_end()


class _Blocks:
    """Cuts a zstd frame between its blocks, so that no piece can grow without bounds; whether it is sound, zstd says.

    The format is RFC 8878, section 3.1.1: a header, then blocks. Each begins with three bytes, little-endian: one bit
    for the last block, two for the kind, and the size of what follows.
    """

    _HEAD = 3
    _REPEATED = 1  # the kind of block that is one byte, however large its size

    def __init__(self) -> None:
        self._next: int | None = None  # where a block begins, seen from the next data: below zero if it has begun
        self._head = b""  # what is known of its first bytes
        self._last = False

    def pieces(self, data: bytes) -> Iterator[memoryview]:
        view, begin = memoryview(data), 0
        for end in self._ends(data):
            yield view[begin:end]
            begin = end
        if begin < len(view):
            yield view[begin:]

    def _ends(self, data: bytes) -> Iterator[int]:
        """Where to cut: behind every ZSTD_BLOCKS blocks."""
        if self._next is None:
            try:
                self._next = zstandard.frame_header_size(data)
            except zstandard.ZstdError:  # too short; zstd will complain
                self._next, self._last = 0, True
        at, count = self._next, 0
        while not self._last:
            head = self._head + data[: at + self._HEAD] if at < 0 else data[at : at + self._HEAD]
            if len(head) < self._HEAD:
                self._head = head
                break
            bits = int.from_bytes(head, "little")
            at += self._HEAD + (1 if bits >> 1 & 3 == self._REPEATED else bits >> 3)
            self._last = bool(bits & 1)
            count += 1
            if count == ZSTD_BLOCKS and at < len(data):
                yield at
                count = 0
        self._next = at - len(data)


class Gzip:
    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(wbits=GZIP_WINDOW)

    @property
    def ended(self) -> bool:
        return self._zlib.eof

    def parts(self, data: bytes) -> Iterator[bytes]:
        while data:
            if self.ended:
                raise _behind_the_end()
            try:
                yield self._zlib.decompress(data, BLOCK_BYTES)
            except zlib.error as error:
                raise _not_compressed(error) from None
            data = self._zlib.unconsumed_tail
        if self._zlib.unused_data:
            raise _behind_the_end()


def _unknown(name: str) -> Invalid:
    return Invalid(f"There is no compression {name!r}. Use zstd or gzip.", field="compression")


def _behind_the_end() -> Corrupt:
    return Corrupt("There is data behind the end of the compressed dump. Use another backup.")


def _not_compressed(error: Exception) -> Corrupt:
    return Corrupt(f"The dump cannot be decompressed ({error}). Use another backup.")
