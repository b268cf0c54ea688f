"""Backups in an S3 bucket, through s3fs. Its asyncio loop runs in a thread of its own, one in each process."""

import asyncio
import base64
import hashlib
import io
import os
import weakref
from collections.abc import Callable, Coroutine, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any, BinaryIO, ClassVar, TypeVar, cast
from urllib.parse import urlsplit

import aiohttp
import botocore.exceptions
import s3fs
from fsspec.asyn import get_loop

from apps.backups.storage import Missing, StorageError, Unreachable
from apps.core.errors import Invalid

T = TypeVar("T")

PART_BYTES = 16 * 2**20  # of an upload: kept in memory twice, while one is sent and the next one fills
MAX_PARTS = 10_000  # S3's own limit; 160 GB with parts of this size
RANGE_BYTES = 8 * 2**20  # asked for at once when reading
PAGE_KEYS = 1000  # listed at once: the most that S3 gives
CONNECT_SECONDS = 10
READ_SECONDS = 60  # without a byte from the other side
ATTEMPTS = 3  # of each request, within seconds; longer patience is for whoever runs the backup
LOCK_MODE = "GOVERNANCE"  # lifted only by an account with a permission of its own, never by ours

NO_SUCH_KEY = ("NoSuchKey", "NoSuchVersion", "404")
WRONG_KEYS = ("InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken")
NO_ROOM = ("QuotaExceeded", "XMinioStorageFull", "StorageFull", "EntityTooLarge", "507")
LATER = ("SlowDown", "ServiceUnavailable", "InternalError", "RequestTimeout", "OperationAborted", "500", "502", "503")
NO_ANSWER = (
    botocore.exceptions.HTTPClientError,
    botocore.exceptions.ConnectionError,
    botocore.exceptions.IncompleteReadError,
    botocore.parsers.ResponseParserError,
    aiohttp.ClientError,
    ConnectionError,
    TimeoutError,
)


class S3:
    """One bucket, and in it what begins with `prefix`."""

    def __init__(
        self,
        *,
        bucket: str,
        prefix: str,
        endpoint: str,
        access_key: str,
        secret_key: str,
        region: str,
        object_lock_days: int,
    ) -> None:
        host = urlsplit(endpoint)
        if endpoint and (host.scheme not in ("http", "https") or not host.hostname or host.username or host.password):
            raise Invalid("BACKUP_S3_ENDPOINT must be a URL such as https://s3.example.com.", field="endpoint")
        if bool(access_key) != bool(secret_key):
            raise Invalid("Give both BACKUP_S3_ACCESS_KEY and BACKUP_S3_SECRET_KEY, or neither.", field="access_key")
        self.bucket = bucket
        self.prefix = prefix
        self._place = f"bucket {bucket} at {host.hostname or 'AWS'}"
        self._lock_days = object_lock_days
        self._options = {
            "key": access_key or None,
            "secret": secret_key or None,
            "endpoint_url": endpoint or None,
            "client_kwargs": {"region_name": region} if region else {},
            "config_kwargs": {
                "connect_timeout": CONNECT_SECONDS,
                "read_timeout": READ_SECONDS,
                "retries": {"total_max_attempts": ATTEMPTS},
                # Newer checksums are AWS's own; Content-MD5, which we send, is understood everywhere.
                "request_checksum_calculation": "when_required",
                "response_checksum_validation": "when_required",
            },
        }
        self._connection: _Connection | None = None
        self._close: Callable[[], object] | None = None

    @contextmanager
    def writer(self, path: str) -> Iterator[BinaryIO]:
        upload = _Upload(self, self.prefix + path)
        try:
            yield cast(BinaryIO, upload)
            upload.finish()
        except BaseException:
            with suppress(StorageError):  # the error on its way says more; `delete` clears what is left
                upload.abort()
            raise

    def open(self, path: str) -> BinaryIO:
        return cast(BinaryIO, _Ranges(self, path, self.size(path)))

    def size(self, path: str) -> int:
        return int(self.call("head_object", Key=self.prefix + path)["ContentLength"])

    def delete(self, path: str) -> None:
        key = self.prefix + path
        with suppress(StorageError):  # not every account may list them, and a lifecycle rule can clear them as well
            for left in self.call("list_multipart_uploads", Prefix=key).get("Uploads", ()):
                if left["Key"] == key:
                    self.call("abort_multipart_upload", Key=key, UploadId=left["UploadId"])
        with suppress(Missing):
            self.call("delete_object", Key=key)

    def list(self, prefix: str) -> Iterator[str]:
        token: dict[str, str] = {}
        while True:
            page = self.call("list_objects_v2", Prefix=self.prefix + prefix, MaxKeys=PAGE_KEYS, **token)
            for entry in page.get("Contents", ()):
                yield entry["Key"].removeprefix(self.prefix)
            if not page.get("IsTruncated"):
                return
            token = {"ContinuationToken": page["NextContinuationToken"]}

    def free_bytes(self) -> int | None:
        return None

    def close(self) -> None:
        if self._close:
            self._close()

    def read_range(self, path: str, begin: int, end: int) -> bytes:
        with self.errors(path):
            connection = self._connected()
            place = f"{self.bucket}/{self.prefix}{path}"
            return bytes(connection.begin(connection.s3._cat_file(place, start=begin, end=end)).result())

    def call(self, method: str, **arguments: Any) -> Mapping[str, Any]:
        """One request of botocore's S3 client, answered."""
        with self.errors(arguments.get("Key", "").removeprefix(self.prefix)):
            return self.begin(method, **arguments).result()

    def begin(self, method: str, **arguments: Any) -> "Future[Mapping[str, Any]]":
        """One request, on its way while the caller goes on. Its result is to be taken within `errors`."""
        connection = self._connected()
        return connection.begin(connection.s3._call_s3(method, Bucket=self.bucket, **arguments))

    def lock(self) -> dict[str, Any]:
        """What makes a new object undeletable for a while."""
        if not self._lock_days:
            return {}
        until = datetime.now(UTC) + timedelta(days=self._lock_days)
        return {"ObjectLockMode": LOCK_MODE, "ObjectLockRetainUntilDate": until}

    def _connected(self) -> "_Connection":
        if self._connection is None or self._connection.closed:
            self._connection = _Connection(self._options)
            self._close = weakref.finalize(self, self._connection.close)  # also called when nobody remembers to
        return self._connection

    @contextmanager
    def errors(self, path: str) -> Iterator[None]:
        """Turn what goes wrong inside into a StorageError that carries no credential."""
        try:
            yield
        except (OSError, botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError, *NO_ANSWER) as error:
            raise self._explained(error, path) from None

    def _explained(self, error: Exception, path: str) -> StorageError:
        for cause in (error, error.__cause__):
            if isinstance(cause, botocore.exceptions.ClientError):
                return self._refused(str(cause.response.get("Error", {}).get("Code", "")), path)
            if isinstance(cause, NO_ANSWER):
                return Unreachable(
                    f"The {self._place} does not answer ({type(cause).__name__}). "
                    "Check BACKUP_S3_ENDPOINT and the network."
                )
        if isinstance(error, botocore.exceptions.NoCredentialsError | botocore.exceptions.PartialCredentialsError):
            return StorageError("There are no S3 keys. Set BACKUP_S3_ACCESS_KEY and BACKUP_S3_SECRET_KEY.")
        return StorageError(f"The {self._place} cannot be used ({type(error).__name__}). Check BACKUP_STORAGE.")

    def _refused(self, code: str, path: str) -> StorageError:
        if code in NO_SUCH_KEY:
            return Missing(f"There is no {path} in {self._place}. Look whether it was deleted or moved.")
        if code == "InvalidRequest" and self._lock_days:
            return StorageError(
                f"The {self._place} refuses object lock. Make a bucket with object lock, or set "
                "BACKUP_S3_OBJECT_LOCK_DAYS to 0."
            )
        if code == "NoSuchBucket":
            return StorageError(f"There is no {self._place}. Make it, or correct BACKUP_STORAGE.")
        if code in WRONG_KEYS:
            return StorageError(
                f"The {self._place} does not accept the S3 keys ({code}). "
                "Correct BACKUP_S3_ACCESS_KEY and BACKUP_S3_SECRET_KEY."
            )
        if code in ("AccessDenied", "403"):
            return StorageError(
                f"The {self._place} refuses these S3 keys the right to {path or 'its objects'}. "
                "Allow them to list, read, write and delete there."
            )
        if code == "RequestTimeTooSkewed":
            return StorageError(f"The {self._place} refuses our clock, which is wrong. Set this machine's time by NTP.")
        if code in NO_ROOM:
            return StorageError(
                f"The {self._place} has no room left ({code}). Raise its quota or keep backups for less long."
            )
        if code == "NoSuchUpload":
            return StorageError(f"The upload to {self._place} was ended by someone else. Start the backup again.")
        if code in LATER:
            return Unreachable(f"The {self._place} cannot serve us now ({code}). Try later; look whether it is full.")
        return StorageError(
            f"The {self._place} refused ({code or 'without a reason'}). Check how the bucket is set up."
        )


class _Connection:
    """An s3fs whose coroutines run in fsspec's loop, in a thread beside us.

    No connection is open while the process forks: clearing up, a child would disturb what it shares with its parent.
    """

    open_ones: ClassVar[set["_Connection"]] = set()

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.closed = False
        self._loop = get_loop()
        self.s3 = s3fs.S3FileSystem(**options, asynchronous=True, skip_instance_cache=True, use_listings_cache=False)
        self.s3.retries = 1  # botocore's own attempts are enough
        self.open_ones.add(self)

    def begin(self, coroutine: Coroutine[Any, Any, T]) -> "Future[T]":
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        self.open_ones.discard(self)
        ending = self.begin(self._end())
        try:
            asyncio.get_running_loop()  # when garbage is collected in the loop's thread, which cannot wait for itself
        except RuntimeError:
            ending.result()

    async def _end(self) -> None:
        session = await self.s3.set_session()
        await session.close()


def _close_all() -> None:
    for connection in list(_Connection.open_ones):
        connection.close()


os.register_at_fork(before=_close_all)


class _Upload:
    """A multipart upload: a part is sent while the next one fills. A small object is stored in one request."""

    def __init__(self, s3: S3, key: str) -> None:
        self._s3 = s3
        self._key = key
        self._path = key.removeprefix(s3.prefix)
        self._buffer = bytearray()
        self._id = ""
        self._parts: list[dict[str, Any]] = []
        self._sending: Future[Mapping[str, Any]] | None = None

    def write(self, data: bytes) -> int:
        self._buffer += data
        if len(self._buffer) >= PART_BYTES:
            self._send()
        return len(data)

    def finish(self) -> None:
        if not self._id:
            body = bytes(self._buffer)
            self._s3.call("put_object", Key=self._key, Body=body, ContentMD5=_md5(body), **self._s3.lock())
            return
        if self._buffer:
            self._send()
        self._wait()
        self._s3.call(
            "complete_multipart_upload", Key=self._key, UploadId=self._id, MultipartUpload={"Parts": self._parts}
        )

    def abort(self) -> None:
        if self._sending:
            self._sending.cancel()
        if self._id:
            self._s3.call("abort_multipart_upload", Key=self._key, UploadId=self._id)

    def _send(self) -> None:
        if not self._id:
            self._id = self._s3.call("create_multipart_upload", Key=self._key, **self._s3.lock())["UploadId"]
        self._wait()
        if len(self._parts) == MAX_PARTS:
            raise StorageError(
                f"The backup is larger than the {MAX_PARTS * PART_BYTES // 10**9} GB that one S3 upload can take. "
                "Store it in a folder."
            )
        body, self._buffer = bytes(self._buffer), bytearray()
        self._parts.append({"PartNumber": len(self._parts) + 1})
        self._sending = self._s3.begin(
            "upload_part",
            Key=self._key,
            UploadId=self._id,
            PartNumber=len(self._parts),
            Body=body,
            ContentMD5=_md5(body),
        )

    def _wait(self) -> None:
        if self._sending:
            with self._s3.errors(self._path):
                self._parts[-1]["ETag"] = self._sending.result()["ETag"]
            self._sending = None


class _Ranges(io.RawIOBase):
    """An object read from front to back, one range after the other."""

    def __init__(self, s3: S3, path: str, size: int) -> None:
        self._s3 = s3
        self._path = path
        self._size = size
        self._asked = 0
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._rest and self._asked < self._size:
            end = min(self._asked + RANGE_BYTES, self._size)
            self._rest = memoryview(self._s3.read_range(self._path, self._asked, end))
            self._asked = end
        size = min(len(buffer), len(self._rest))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size


def _md5(data: bytes) -> str:
    """For Content-MD5, by which S3 notices what the network altered."""
    return base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()
