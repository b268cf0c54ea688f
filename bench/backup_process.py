"""Backs up, checks and restores as a worker does, and says what that took: `python -m bench.backup_process`.

Each step has a process of its own, so that its peak of memory is its own. Reads an order as JSON on standard input and
answers with JSON. A worker has been running for long when a backup begins: starting Python and its imports do not
count.
"""

import json
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from apps.backups.engines import engine_for
from apps.backups.engines.address import parse_url
from apps.backups.engines.base import Content, Dump, Engine
from apps.backups.engines.clients import DumpClient
from apps.backups.sidecar import Sidecar, object_path, read, sidecar_path, write
from apps.backups.storage import Storage
from apps.backups.stream import decode, encode
from apps.core.keys import Keyring

KIB = 1024


def main() -> None:
    order = json.load(sys.stdin)
    engine, keyring = engine_for(parse_url(order["url"])), Keyring(order["keyset"])
    with Storage(order["folder"]) as storage:
        if order["step"] == "backup":
            answer = _back_up(engine, storage, keyring, order["backup_id"], order.get("recorded"))
        else:
            answer = _restore(engine, storage, keyring, order["sidecar"])
    json.dump(answer, sys.stdout)


def _back_up(
    engine: Engine, storage: Storage, keyring: Keyring, backup_id: str, recorded: list[str] | None
) -> dict[str, Any]:
    """A whole backup, then its integrity check. `recorded` is a command that stands for the dump client."""
    idle = _memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    with _measured() as backup:
        started = datetime.now(UTC)
        preflight = engine.preflight()
        path = object_path("production", started, backup_id, engine.extension)
        reader = engine.reader()
        with storage.writer(path) as sink, _dump(engine, recorded) as dump:
            encoded = encode(
                dump.fileno(),
                sink,
                keyring=keyring,
                backup_id=backup_id,
                source=f"mysql:{engine.address.database}",
                format=engine.extension,
                reader=reader,
                on_block=_nothing,
                should_stop=_never,
            )
            dump.finish()
            content = reader.close()
        whole = content.complete and content.objects == engine.objects()
        assert whole or recorded, "the dump is not whole"
        facts = {
            "service": "shop",
            "environment": "production",
            "database": "shop",
            "schema": engine.address.database,
            "engine": "mysql",
            "server": preflight.server,
            "client": preflight.client,
            "object_path": path,
            "notes": tuple(engine.notes()),
            "started_at": started,
            "completed_at": datetime.now(UTC),
            "pulsewatch": "bench",
        }
        sidecar = Sidecar.of(encoded, content=content, job_facts=facts)
        write(storage, sidecar, keyring)
    peak = _memory("VmHWM")
    with _measured() as check:
        assert _checked(engine, storage, keyring, sidecar) == content, "the check found something else"
    return {
        "backup": backup,
        "check": check,
        "idle": idle,
        "peak": peak,
        "peak_of_check": _memory("VmHWM"),
        "plain_bytes": encoded.plain_bytes,
        "stored_bytes": encoded.stored_bytes,
        "sidecar": sidecar_path(path),
    }


def _restore(engine: Engine, storage: Storage, keyring: Keyring, sidecar_at: str) -> dict[str, Any]:
    """The pass that verifies the whole backup, then the restore into the engine's schema, which is empty."""
    with _measured() as check:
        sidecar = read(storage, sidecar_at, keyring)
        content = _checked(engine, storage, keyring, sidecar)
        assert content.tables == sidecar.tables, "the check found something else"
    with _measured() as restore, storage.open(sidecar.object_path) as stored, engine.restore() as client:
        decode(stored, sidecar.encoded, keyring=keyring, write=client.write, on_block=_nothing, should_stop=_never)
        client.finish()
    return {"check": check, "restore": restore}


def _checked(engine: Engine, storage: Storage, keyring: Keyring, sidecar: Sidecar) -> Content:
    reader = engine.reader()
    with storage.open(sidecar.object_path) as source:
        decode(source, sidecar.encoded, keyring=keyring, reader=reader, on_block=_nothing, should_stop=_never)
    return reader.close()


def _dump(engine: Engine, recorded: list[str] | None) -> Dump:
    return DumpClient(recorded) if recorded else engine.dump()


def _nothing(done: int) -> None:
    """Where a worker looks at its watch."""


def _never() -> bool:
    return False


@contextmanager
def _measured() -> Iterator[dict[str, float]]:
    """Seconds and CPU seconds of the block, in the shape of `measure.Cost`."""
    cost: dict[str, float] = {}
    started, used = time.perf_counter(), _cpu()
    yield cost
    cost |= {"seconds": time.perf_counter() - started, "cpu": _cpu() - used}


def _cpu() -> float:
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in both)


def _memory(name: str) -> float:
    """A line of /proc/self/status, in megabytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * KIB / 1e6
    raise RuntimeError(f"/proc/self/status has no {name}")


if __name__ == "__main__":
    main()
