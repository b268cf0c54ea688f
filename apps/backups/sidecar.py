"""The sidecar of a backup: a small authenticated JSON file beside the object, enough to restore when all else is lost.

    <environment>/<YYYY>/<MM>/<DD>/<id>.sql.zst.enc     the object, never changed
    <environment>/<YYYY>/<MM>/<DD>/<id>.json            its sidecar, written last: from then on the backup exists
    <environment>/<YYYY>/<MM>/<DD>/<id>.<key id>.json   a later sidecar, with the data key sealed by a newer key

<id> is the backup's, and for a repeated attempt the backup's with a suffix.

What a sidecar says can be read by anyone who has it; nobody can alter it unseen.
"""

import base64
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

from apps.backups.engines.base import Content, Objects, TableDigest
from apps.backups.storage import Storage, safe_path
from apps.backups.stream import Encoded, rewrapped
from apps.core.errors import Corrupt, Invalid, KeyUnknown, Tampered
from apps.core.keys import Keyring, sealed_with

FORMAT_VERSION = 1
SEAL_CONTEXT = b"pulsewatch sidecar\n"
MAX_BYTES = 64 * 2**20  # of a sidecar: half a million tables
EXTENSIONS = {"zstd": "zst", "gzip": "gz"}
SUFFIX = ".json"

_STEM = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")
_NAME = re.compile(rf"{_STEM.pattern}(?:\.[0-9]{{1,10}})?\.json")


@dataclass(frozen=True, slots=True)
class Sidecar:
    """What is known of a backup. Times are aware and in UTC."""

    backup_id: str
    service: str
    environment: str
    database: str  # the name it is registered under
    schema: str  # its name on the server, or the path of the file
    engine: str
    server: str  # "MariaDB 10.11.19"
    client: str  # "mariadb-dump 10.11.19"
    source: str  # what the encryption is bound to, with backup_id, format and compression
    format: str  # of the plain dump: "sql", "sqlite3"
    compression: str
    object_path: str
    plain_bytes: int
    stored_bytes: int
    sha256: str  # of the object, hex
    wrapped_key: str  # base64
    key_id: str  # the key that wrapped it
    wrapped_at: datetime  # the newest sidecar of a backup is the one to read
    tables: Mapping[str, TableDigest]
    other: str  # digest of everything outside tables
    objects: Objects
    started_at: datetime
    completed_at: datetime
    pulsewatch: str  # the version that made it
    notes: tuple[str, ...] = ()  # what the dump cannot carry
    plan: str = ""  # empty for a backup made by hand
    slot: datetime | None = None
    monthly_archive: bool = False
    format_version: int = FORMAT_VERSION

    @classmethod
    def of(cls, encoded: Encoded, *, content: Content, job_facts: Mapping[str, Any]) -> "Sidecar":
        """Put together what the stream, the reader and the job know. `job_facts` are the remaining fields by name."""
        facts = dict(job_facts)
        return cls(
            **asdict(encoded),
            key_id=sealed_with(base64.b64decode(encoded.wrapped_key)),
            wrapped_at=facts["completed_at"],
            tables=dict(content.tables),
            other=content.other,
            objects=content.objects,
            notes=tuple(facts.pop("notes", ())),
            **facts,
        )

    @property
    def path(self) -> str:
        """Where the first sidecar of this backup belongs."""
        return sidecar_path(self.object_path)

    @property
    def rotated_path(self) -> str:
        """Where a later sidecar with this key belongs."""
        return f"{self.path.removesuffix(SUFFIX)}.{self.key_id}{SUFFIX}"

    @property
    def encoded(self) -> Encoded:
        """What `stream.decode` needs."""
        return Encoded(**{field.name: getattr(self, field.name) for field in fields(Encoded)})

    @property
    def digests(self) -> dict[str, str]:
        """The digest of each table."""
        return {name: table.digest for name, table in self.tables.items()}

    def rewrapped(self, keyring: Keyring, at: datetime) -> "Sidecar":
        """The same with the data key sealed by the keyring's primary key; it belongs at `rotated_path`."""
        key = rewrapped(self.encoded, keyring).wrapped_key
        return replace(self, wrapped_key=key, key_id=keyring.key_id, wrapped_at=at)

    def to_bytes(self, keyring: Keyring) -> bytes:
        """The file: readable JSON with a seal over all of it."""
        backup = json.loads(json.dumps(asdict(self), default=_as_json))
        seal = keyring.seal(b"", context=SEAL_CONTEXT + _canonical(backup))
        return _file(backup, base64.b64encode(seal).decode())

    @classmethod
    def from_bytes(cls, data: bytes, keyring: Keyring) -> "Sidecar":
        """Read a file that `to_bytes` made.

        Raises Corrupt when a single bit differs, KeyUnknown when another keyset sealed it, Invalid when a newer
        Pulsewatch wrote it.
        """
        try:
            document = json.loads(data)
            backup, seal = document["backup"], document["seal"]
            sealed = base64.b64decode(seal, validate=True)
            same = _file(backup, seal) == data
        except (ValueError, KeyError, TypeError, RecursionError):
            same = False
        if not same:
            raise Corrupt("The sidecar is damaged: it is not as it was written. Use another copy of it.")
        altered = Corrupt("The sidecar was altered: its seal does not fit. Use another copy of it.")
        try:
            keyring.unseal(sealed, context=SEAL_CONTEXT + _canonical(backup))
        except Tampered:
            raise altered from None
        except KeyUnknown:
            if sealed_with(sealed) != backup.get("key_id"):  # the altered bit is one of the key's number
                raise altered from None
            raise
        version = backup.get("format_version")
        if version != FORMAT_VERSION:
            raise Invalid(
                f"The sidecar has format {version}, and this Pulsewatch reads format {FORMAT_VERSION}. "
                "Use the version of Pulsewatch that wrote it, or a newer one."
            )
        return cls(**_from_json(backup))


@dataclass(frozen=True, slots=True)
class Found:
    """A backup in a storage: its newest readable sidecar, or why none can be read."""

    backup_id: str  # or, where it cannot be read, the name of the file
    path: str  # of that sidecar, or of one that cannot be read
    sidecar: Sidecar | None
    problem: str = ""


def object_path(environment: str, at: datetime, stem: str, extension: str, compression: str = "zstd") -> str:
    """Where an object belongs. `stem` is the backup's id, or that with a suffix; `at` must be aware. Raises Invalid."""
    if not _STEM.fullmatch(stem):
        raise Invalid(f"{stem[:80]!r} is no backup id: use letters, digits, - and _.")
    if at.tzinfo is None:
        raise ValueError("a time without a zone names no day; pass an aware datetime")
    if compression not in EXTENSIONS:
        raise Invalid(f"There is no compression {compression!r}. Use zstd or gzip.", field="compression")
    return safe_path(f"{environment}/{at.astimezone(UTC):%Y/%m/%d}/{stem}.{extension}.{EXTENSIONS[compression]}.enc")


def sidecar_path(object_path: str) -> str:
    """Where the first sidecar of this object belongs: beside it."""
    folder, stem = _folder_and_stem(object_path)
    return f"{folder}/{stem}{SUFFIX}"


def sidecar_paths(storage: Storage, object_path: str) -> list[str]:
    """Every sidecar of this object, later ones too."""
    first = sidecar_path(object_path)
    return [
        path
        for path in storage.list(first.removesuffix(SUFFIX), SUFFIX)
        if _folder_and_stem(path) == _folder_and_stem(first)
    ]


def read(storage: Storage, path: str, keyring: Keyring) -> Sidecar:
    """One sidecar. Raises what `from_bytes` does, Missing and StorageError, and Corrupt when it is another backup's."""
    sidecar = Sidecar.from_bytes(storage.read_bytes(path, MAX_BYTES), keyring)
    if path not in (sidecar.path, sidecar.rotated_path):
        raise Corrupt(
            f"{path} is the sidecar of backup {sidecar.backup_id} in another place. Put the right one back there."
        )
    return sidecar


def write(storage: Storage, sidecar: Sidecar, keyring: Keyring) -> None:
    """Store the first sidecar of a backup: this commits it."""
    storage.write_bytes(sidecar.path, sidecar.to_bytes(keyring))


def rotate(storage: Storage, sidecar: Sidecar, keyring: Keyring, at: datetime) -> Sidecar:
    """Store a later sidecar, with the data key sealed by the keyring's primary key; return the one that counts now."""
    if sidecar.key_id == keyring.key_id:
        return sidecar
    later = sidecar.rewrapped(keyring, at)
    storage.write_bytes(later.rotated_path, later.to_bytes(keyring))
    return later


def find(storage: Storage, keyring: Keyring, prefix: str = "") -> Iterator[Found]:
    """Every backup with a sidecar, one by one. What cannot be read is reported, not raised; a lost connection is."""
    for (_, stem), paths in groupby(_sidecar_paths(storage, prefix), key=_folder_and_stem):
        newest: Sidecar | None = None
        problem, where = "", ""
        for path in paths:
            try:
                sidecar = read(storage, path, keyring)
            except (Corrupt, KeyUnknown, Invalid) as error:
                problem, where = problem or str(error), where if newest else path
                continue
            if newest is None or sidecar.wrapped_at > newest.wrapped_at:
                newest, where = sidecar, path
        yield Found(newest.backup_id if newest else stem, where, newest, "" if newest else problem)


def _sidecar_paths(storage: Storage, prefix: str) -> Iterator[str]:
    for path in storage.list(prefix, SUFFIX):
        if "/" in path and _NAME.fullmatch(path.rpartition("/")[2]):
            yield path


def _folder_and_stem(path: str) -> tuple[str, str]:
    folder, _, name = path.rpartition("/")
    return folder, name.partition(".")[0]


# ---- JSON ------------------------------------------------------------------------------------------------------------


def _canonical(backup: Any) -> bytes:
    """One spelling for each content: this is what the seal covers."""
    return json.dumps(backup, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


def _file(backup: Any, seal: str) -> bytes:
    document = {"backup": backup, "seal": seal}
    return json.dumps(document, sort_keys=True, indent=1, ensure_ascii=True).encode() + b"\n"


def _as_json(value: object) -> str:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    raise TypeError(f"a sidecar holds no {type(value).__name__}")


def _from_json(backup: Mapping[str, Any]) -> dict[str, Any]:
    times = {name: backup[name] for name in ("wrapped_at", "started_at", "completed_at", "slot")}
    return {
        **backup,
        **{name: time and datetime.fromisoformat(time) for name, time in times.items()},
        "tables": {name: TableDigest(**digest) for name, digest in backup["tables"].items()},
        "objects": Objects(**backup["objects"]),
        "notes": tuple(backup["notes"]),
    }
