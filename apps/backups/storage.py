"""Where backups are kept: a local folder or an S3 bucket, chosen by URL. Objects appear whole or not at all.

    /var/backups, file:///var/backups    a folder
    s3://bucket/prefix                   AWS, or any S3 with `endpoint`
    spaces://bucket/prefix               S3 with an `endpoint` that must be given

Paths are relative to the URL, with `/` between their parts.
"""

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Protocol, Self
from urllib.parse import unquote, urlsplit

from apps.core.errors import Invalid, PulsewatchError, Transient

S3_SCHEMES = ("s3", "spaces")
PART_SUFFIX = ".partial"  # of a file that is being written; never an object
PROBE_BYTES = 1024
MAX_PATH = 512  # characters; S3 takes 1024 bytes with the prefix


class StorageError(PulsewatchError):
    """The storage refused, or cannot be used as it is set up. The text carries no credential."""


class Missing(StorageError):
    """There is no such object."""


class Unreachable(StorageError, Transient):
    """The storage did not answer; it may well do so later."""


class Storage:
    """One place for backups. It holds no connection until the first call, and each process makes its own.

    `endpoint` is an https:// URL, `object_lock_days` is how long a stored object cannot be deleted (0: no lock; the
    bucket must have been made with object lock). Without keys the usual AWS chain applies. Raises Invalid.
    """

    def __init__(
        self,
        url: str,
        *,
        endpoint: str = "",
        access_key: str = "",
        secret_key: str = "",
        region: str = "",
        object_lock_days: int = 0,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme in S3_SCHEMES:
            from apps.backups.s3 import S3  # a second of imports that a local folder does without

            if parts.username or parts.password or parts.query or not parts.hostname:
                raise Invalid(
                    "The storage URL must be s3://BUCKET/PREFIX and nothing more. "
                    "Give keys in BACKUP_S3_ACCESS_KEY and BACKUP_S3_SECRET_KEY."
                )
            if parts.scheme == "spaces" and not endpoint:
                raise Invalid(
                    "spaces:// needs BACKUP_S3_ENDPOINT, such as https://fra1.digitaloceanspaces.com.", field="endpoint"
                )
            self._backend: Backend = S3(
                bucket=parts.netloc,
                prefix=_prefix(parts.path),
                endpoint=endpoint,
                access_key=access_key,
                secret_key=secret_key,
                region=region,
                object_lock_days=object_lock_days,
            )
        elif parts.scheme in ("", "file") and parts.netloc in ("", "localhost"):
            path = unquote(parts.path) if parts.scheme else url
            if not path.startswith("/"):
                raise Invalid("The storage folder must be an absolute path, such as /var/backups/pulsewatch.")
            self._backend = Folder(Path(path))
        else:
            raise Invalid(
                f"Backups cannot be stored under {parts.scheme}://. Use a folder, s3://BUCKET/PREFIX or spaces://."
            )
        self.url = f"{parts.scheme}://{parts.netloc}{parts.path}" if parts.scheme else url

    def __repr__(self) -> str:
        return f"Storage({self.url!r})"

    def writer(self, path: str) -> AbstractContextManager[BinaryIO]:
        """A file to write in a `with` block. The object appears when the block ends well, else nothing is left.

        An object of the same path is replaced. Raises StorageError.
        """
        return self._backend.writer(safe_path(path))

    def open(self, path: str) -> BinaryIO:
        """An object to read from its beginning, as a stream. Raises Missing or StorageError, also while reading."""
        return self._backend.open(safe_path(path))

    def read_bytes(self, path: str, limit: int) -> bytes:
        """A whole small object. Raises StorageError when it has more than `limit` bytes."""
        with self.open(path) as stream:
            data = stream.read(limit + 1)
        if len(data) > limit:
            raise StorageError(f"{path} has more than {limit} bytes, so it is not what it should be. Look at the file.")
        return data

    def write_bytes(self, path: str, data: bytes) -> None:
        """Store a small object, whole or not at all."""
        with self.writer(path) as stream:
            stream.write(data)

    def exists(self, path: str) -> bool:
        """Whether there is such an object."""
        try:
            self.size(path)
        except Missing:
            return False
        return True

    def size(self, path: str) -> int:
        """Bytes of an object. Raises Missing."""
        return self._backend.size(safe_path(path))

    def delete(self, path: str) -> None:
        """Remove an object, and what a killed writer left of it. No error when there is none."""
        self._backend.delete(safe_path(path))

    def list(self, prefix: str = "", suffix: str = "") -> Iterator[str]:
        """The paths that begin and end like this, in order of their names within each folder."""
        if prefix:
            safe_path(prefix.removesuffix("/"))
        return (path for path in self._backend.list(prefix) if path.startswith(prefix) and path.endswith(suffix))

    def free_bytes(self) -> int | None:
        """Free space for us, or None where nobody can tell."""
        return self._backend.free_bytes()

    def check(self) -> None:
        """Write, read and delete a small object. Raises StorageError with the cause and the remedy."""
        path, data = f"probe-{secrets.token_hex(8)}", secrets.token_bytes(PROBE_BYTES)
        self.write_bytes(path, data)
        try:
            if self.read_bytes(path, PROBE_BYTES) != data:
                raise StorageError(f"{self.url} gives back other bytes than were stored. Use another storage.")
        finally:
            self.delete(path)

    def close(self) -> None:
        """Close connections. Later calls open new ones."""
        self._backend.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def safe_path(path: str) -> str:
    """The path itself. Raises Invalid unless it stays below the storage's root on every kind of storage."""
    parts = path.split("/")
    odd = any(part in ("", ".", "..") or part.startswith(".") for part in parts)
    if odd or len(path) > MAX_PATH or not path.isascii() or not path.isprintable() or "\\" in path or "?" in path:
        raise Invalid(f"{path[:80]!r} is no path of an object. Use names of letters, digits, - and _ with / between.")
    return path


def _prefix(path: str) -> str:
    path = path.strip("/")
    return f"{safe_path(path)}/" if path else ""


class Backend(Protocol):
    """What each kind of storage does. Paths have been checked; errors are StorageError."""

    def writer(self, path: str) -> AbstractContextManager[BinaryIO]: ...
    def open(self, path: str) -> BinaryIO: ...
    def size(self, path: str) -> int: ...
    def delete(self, path: str) -> None: ...
    def list(self, prefix: str) -> Iterator[str]: ...
    def free_bytes(self) -> int | None: ...
    def close(self) -> None: ...


class Folder:
    """Backups in a local folder, for its owner's eyes only."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @contextmanager
    def writer(self, path: str) -> Iterator[BinaryIO]:
        final = self.root / path
        part = final.with_name(f".{final.name}.{secrets.token_hex(4)}{PART_SUFFIX}")
        with self._errors(path):
            _make_folder(final.parent)
            descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb", buffering=0) as file:
                yield _Written(file, self, path)  # type: ignore[misc]  # writes are all it is for
                with self._errors(path):
                    os.fsync(descriptor)
            with self._errors(path):
                part.rename(final)
                _sync_folder(final.parent)
        except BaseException:
            with suppress(OSError):  # the error on its way says more
                part.unlink(missing_ok=True)
            raise

    def open(self, path: str) -> BinaryIO:
        with self._errors(path):
            if not self.root.is_dir():  # a disk that is not mounted has lost no object
                raise Unreachable(f"The folder {self.root} is not there. Mount its disk, or correct BACKUP_STORAGE.")
            return (self.root / path).open("rb", buffering=0)  # readers ask for blocks

    def size(self, path: str) -> int:
        with self._errors(path):
            return (self.root / path).stat().st_size

    def delete(self, path: str) -> None:
        final = self.root / path
        with self._errors(path):
            for left in final.parent.glob(f".{final.name}.*{PART_SUFFIX}"):
                left.unlink(missing_ok=True)
            final.unlink(missing_ok=True)

    def list(self, prefix: str) -> Iterator[str]:
        with self._errors(prefix):
            yield from self._below(self.root / prefix.rpartition("/")[0])

    def _below(self, folder: Path) -> Iterator[str]:
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except (FileNotFoundError, NotADirectoryError):
            return
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from self._below(Path(entry.path))
            elif entry.is_file(follow_symlinks=False):
                yield str(Path(entry.path).relative_to(self.root))

    def free_bytes(self) -> int | None:
        with self._errors(""):
            there = next(folder for folder in (self.root, *self.root.parents) if folder.exists())
            return shutil.disk_usage(there).free

    def close(self) -> None:
        pass

    @contextmanager
    def _errors(self, path: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self.explained(error, path) from None

    def explained(self, error: OSError, path: str) -> StorageError:
        """An error of the system as a sentence with cause and remedy."""
        match error.errno:
            case errno.ENOSPC | errno.EDQUOT:
                return StorageError(f"The disk of {self.root} is full. Free some space or shorten the retention.")
            case errno.EFBIG:
                return StorageError(f"A file in {self.root} may not grow that large. Raise the limit (ulimit -f).")
            case errno.ENOENT:
                return Missing(f"There is no {path} in {self.root}. Look whether it was deleted or moved.")
            case errno.EACCES | errno.EPERM | errno.EROFS:
                return StorageError(
                    f"{self.root} may not be written or read by user {os.geteuid()} ({error.strerror}). "
                    "Give that user the folder, or choose another one."
                )
            case errno.EIO | errno.ESTALE | errno.ETIMEDOUT | errno.EHOSTDOWN | errno.ENOTCONN:
                return Unreachable(
                    f"The disk of {self.root} does not answer ({error.strerror}). Check the disk or its network."
                )
            case _:
                return StorageError(f"{self.root} cannot be used: {error.strerror}. Check the folder and its disk.")


class _Written:
    """A raw file whose writes are whole and whose errors are ours."""

    def __init__(self, file: BinaryIO, folder: Folder, path: str) -> None:
        self._file = file
        self._folder = folder
        self._path = path

    def write(self, data: bytes) -> int:
        view = memoryview(data)
        try:
            while view:
                view = view[self._file.write(view) :]
        except OSError as error:
            raise self._folder.explained(error, self._path) from None
        return len(data)


def _make_folder(folder: Path) -> None:
    """Make it and those above it, so that they survive a power cut."""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    with suppress(FileExistsError):  # another process was faster; if it is no folder, the next step says so
        folder.mkdir(mode=0o700)
    _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
