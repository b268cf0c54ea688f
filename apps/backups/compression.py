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
# Fed to zstd at once. A block of 128 KiB can come from 4 bytes, so 512 become 16 MiB at the very most.
ZSTD_PIECE_BYTES = 512


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
    """Gives out what was compressed, in parts of at most 16 MiB. Raises Corrupt when data or checksum are wrong."""

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

    @property
    def ended(self) -> bool:
        return self._zstd.eof

    def parts(self, data: bytes) -> Iterator[bytes]:
        view = memoryview(data)
        for begin in range(0, len(view), ZSTD_PIECE_BYTES):
            if self.ended:
                raise _behind_the_end()
            try:
                yield self._zstd.decompress(view[begin : begin + ZSTD_PIECE_BYTES])
            except zstandard.ZstdError as error:
                raise _not_compressed(error) from None
        if self._zstd.unused_data:
            raise _behind_the_end()


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
