import base64
import io
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from apps.backups import sidecar as sidecars
from apps.backups.engines.base import Content, Objects, TableDigest
from apps.backups.sidecar import Sidecar, find, object_path, read, rotate, sidecar_path, write
from apps.backups.storage import Missing, Storage
from apps.backups.stream import decode
from apps.core.errors import Corrupt, Invalid, KeyUnknown
from apps.core.keys import Keyring, new_keyset
from tests.backups.streams import KEYRING, ROWS, encoded

AT = datetime(2025, 10, 20, 2, 0, 5, tzinfo=UTC)
CONTENT = Content(
    tables={"todo": TableDigest("ab" * 32, 5000), "ordér": TableDigest("cd" * 32, 0, ordered=False)},
    other="ef" * 32,
    objects=Objects(tables=2, views=1),
    complete=True,
)


def stored(
    place: Storage, backup_id: str = "backup_20251020_020005", data: bytes = ROWS, compression: str = "zstd", **facts
) -> Sidecar:
    """A backup in the storage, whole."""
    made, blob = encoded(data, backup_id, compression=compression)
    path = object_path("production", AT, backup_id, "sql", compression)
    place.write_bytes(path, blob)
    known = {
        "service": "app",
        "environment": "production",
        "database": "main",
        "schema": "todo",
        "engine": "mysql",
        "server": "MariaDB 10.11.19",
        "client": "mariadb-dump 10.11.19",
        "object_path": path,
        "notes": ["FLOAT columns are rounded by the dump: todo.weight."],
        "started_at": AT,
        "completed_at": AT + timedelta(seconds=61),
        "slot": AT.replace(second=0),
        "monthly_archive": True,
        "pulsewatch": "0.3.0",
    }
    made_sidecar = Sidecar.of(made, content=CONTENT, job_facts={**known, **facts})
    write(place, made_sidecar, KEYRING)
    return made_sidecar


@pytest.fixture
def place(tmp_path: Path) -> Storage:
    return Storage(str(tmp_path / "backups"))


def restored(place: Storage, sidecar: Sidecar, keyring: Keyring = KEYRING) -> bytes:
    out = io.BytesIO()
    with place.open(sidecar.object_path) as source:
        decode(source, sidecar.encoded, keyring=keyring, write=out.write)
    return out.getvalue()


# --- The file ---------------------------------------------------------------------------------------------------------


def test_a_sidecar_comes_back_as_it_was_and_leads_to_its_dump(place: Storage) -> None:
    made = stored(place)
    back = read(place, made.path, KEYRING)
    assert back == made
    assert back.tables["ordér"] == TableDigest("cd" * 32, 0, ordered=False)
    assert back.digests == {"todo": "ab" * 32, "ordér": "cd" * 32}
    assert back.objects == Objects(tables=2, views=1)
    assert back.key_id == KEYRING.key_id
    assert restored(place, back) == ROWS


def test_a_person_can_read_it_and_it_holds_no_secret(place: Storage) -> None:
    made = stored(place)
    text = place.read_bytes(made.path, 10**6).decode("ascii")
    assert '"database": "main"' in text
    assert '"started_at": "2025-10-20T02:00:05+00:00"' in text
    for key in KEYRING._keyset["key"]:
        assert key["keyData"]["value"] not in text


def test_equal_backups_have_equal_sidecars_but_for_their_seals(place: Storage) -> None:
    made = stored(place)
    first, second = (json.loads(made.to_bytes(KEYRING)) for _ in range(2))
    assert first["backup"] == second["backup"]
    assert first["seal"] != second["seal"]


def test_times_are_kept_in_utc_whatever_their_zone(place: Storage) -> None:
    tokyo = timezone(timedelta(hours=9))
    made = stored(place, slot=AT.astimezone(tokyo))
    back = Sidecar.from_bytes(made.to_bytes(KEYRING), KEYRING)
    assert back == made
    assert back.slot
    assert back.slot.utcoffset() == timedelta(0)


def test_any_flipped_bit_of_a_sidecar_is_found(place: Storage) -> None:
    data = stored(place).to_bytes(KEYRING)
    for bit in range(8 * len(data)):
        altered = bytearray(data)
        altered[bit // 8] ^= 1 << bit % 8
        with pytest.raises(Corrupt):
            Sidecar.from_bytes(bytes(altered), KEYRING)


def test_every_truncation_of_a_sidecar_and_anything_added_is_found(place: Storage) -> None:
    data = stored(place).to_bytes(KEYRING)
    for length in range(len(data)):
        with pytest.raises(Corrupt, match="damaged"):
            Sidecar.from_bytes(data[:length], KEYRING)
    for added in (data + b"\n", data + b"\0", b" " + data, data[:-1] + b" \n", data + data):
        with pytest.raises(Corrupt, match="damaged"):
            Sidecar.from_bytes(added, KEYRING)


@pytest.mark.parametrize(
    "data",
    [b"", b"null", b"[]", b"{}", b"\xff", b"[" * 100_000, b'{"backup": {}, "seal": 1}', b'{"backup":NaN,"seal":""}'],
)
def test_another_file_is_no_sidecar(data: bytes) -> None:
    with pytest.raises(Corrupt):
        Sidecar.from_bytes(data, KEYRING)


def test_a_changed_fact_is_found_even_when_the_file_is_written_well(place: Storage) -> None:
    document = json.loads(stored(place).to_bytes(KEYRING))
    for name, value in document["backup"].items():
        altered = {**document["backup"], name: None if value else 1}
        with pytest.raises(Corrupt, match="seal does not fit"):
            Sidecar.from_bytes(sidecars._file(altered, document["seal"]), KEYRING)


def test_another_keyset_is_named_as_the_cause(place: Storage) -> None:
    data = stored(place).to_bytes(KEYRING)
    with pytest.raises(KeyUnknown, match=KEYRING.key_id):
        Sidecar.from_bytes(data, Keyring(new_keyset()))


def test_a_newer_format_is_said_so_when_it_is_authentic(place: Storage) -> None:
    document = json.loads(stored(place).to_bytes(KEYRING))
    newer = {"format_version": 2, "something": "else"}
    context = sidecars.SEAL_CONTEXT + sidecars._canonical(newer)
    seal = base64.b64encode(KEYRING.seal(b"", context=context)).decode()
    with pytest.raises(Invalid, match=r"has format 2, and this Pulsewatch reads format 1\. Use the version"):
        Sidecar.from_bytes(sidecars._file(newer, seal), KEYRING)
    with pytest.raises(Corrupt):
        Sidecar.from_bytes(sidecars._file(newer, document["seal"]), KEYRING)


# --- Paths ------------------------------------------------------------------------------------------------------------


def test_paths_follow_the_day_in_utc() -> None:
    late = datetime(2025, 12, 31, 23, 30, tzinfo=timezone(timedelta(hours=-5)))
    path = object_path("production", late, "backup_x-1", "sqlite3", "gzip")
    assert path == "production/2026/01/01/backup_x-1.sqlite3.gz.enc"
    assert sidecar_path(path) == "production/2026/01/01/backup_x-1.json"


@pytest.mark.parametrize("stem", ["", "..", "../x", "a/b", "a.b", ".a", "-a", "a b", "ä", "a" * 200, "a\n"])
def test_an_id_that_is_no_file_name_is_refused(stem: str) -> None:
    with pytest.raises(Invalid, match="no backup id"):
        object_path("production", AT, stem, "sql")


def test_an_environment_cannot_lead_out_of_the_storage() -> None:
    with pytest.raises(Invalid):
        object_path("../production", AT, "backup", "sql")
    with pytest.raises(Invalid, match="zstd or gzip"):
        object_path("production", AT, "backup", "sql", "rar")
    with pytest.raises(ValueError, match="zone"):
        object_path("production", AT.replace(tzinfo=None), "backup", "sql")


# --- Rotation and search ----------------------------------------------------------------------------------------------


def test_rotation_adds_a_sidecar_and_changes_nothing_else(place: Storage) -> None:
    made = stored(place)
    before = {path: place.read_bytes(path, 10**6) for path in place.list()}
    later = Keyring(KEYRING.rotated())
    rotated = rotate(place, made, later, AT + timedelta(days=1))
    after = {path: place.read_bytes(path, 10**6) for path in place.list()}
    assert rotated.rotated_path == made.path.replace(".json", f".{later.key_id}.json")
    assert after.keys() - before.keys() == {rotated.rotated_path}
    assert all(after[path] == data for path, data in before.items())
    assert replace(rotated, wrapped_key=made.wrapped_key, key_id=made.key_id, wrapped_at=made.wrapped_at) == made
    assert restored(place, rotated, later) == ROWS
    assert rotate(place, rotated, later, AT) is rotated

    newest_only = Keyring(json.dumps({**later._keyset, "key": later._keyset["key"][-1:]}))
    [found] = find(place, newest_only)
    assert found.sidecar == rotated
    assert restored(place, rotated, newest_only) == ROWS


@pytest.mark.parametrize(("days", "newest"), [((1, 2), 1), ((2, 1), 0)])
def test_the_newest_sidecar_wins_and_not_the_one_that_is_listed_last(
    place: Storage, days: tuple[int, int], newest: int
) -> None:
    made = stored(place)
    keyrings = [second := Keyring(KEYRING.rotated()), Keyring(second.rotated())]
    later = [
        rotate(place, made, keyring, AT + timedelta(days=day)) for keyring, day in zip(keyrings, days, strict=True)
    ]
    assert [found.sidecar for found in find(place, keyrings[1])] == [later[newest]]


def test_the_newest_readable_sidecar_wins(place: Storage) -> None:
    made = stored(place)
    second = Keyring(KEYRING.rotated())
    third = Keyring(second.rotated())
    one = rotate(place, made, second, AT + timedelta(days=1))
    two = rotate(place, one, third, AT + timedelta(days=2))
    assert [found.sidecar for found in find(place, third)] == [two]
    assert [found.sidecar for found in find(place, second)] == [one]
    assert [found.sidecar for found in find(place, KEYRING)] == [made]
    place.write_bytes(two.rotated_path, place.read_bytes(two.rotated_path, 10**6)[:-9])
    [found] = find(place, third)
    assert (found.sidecar, found.path, found.problem) == (one, one.rotated_path, "")


def test_every_backup_is_found_and_what_cannot_be_read_is_reported(place: Storage) -> None:
    good = stored(place, "backup_1")
    good_too = stored(place, "backup_1-1")
    bad = stored(place, "backup_2")
    place.write_bytes(bad.path, b"{}")
    place.write_bytes("production/2025/10/20/backup_3.sql.zst.enc", b"an object without a sidecar")
    place.write_bytes("production/2025/10/20/notes.txt", b"x")
    place.write_bytes("production/2025/10/20/strange name.json", b"x")
    found = list(find(place, KEYRING, "production/"))
    assert [(one.backup_id, one.sidecar) for one in found] == [
        ("backup_1-1", good_too),
        ("backup_1", good),
        ("backup_2", None),
    ]
    [problem] = [one for one in found if not one.sidecar]
    assert problem.path == bad.path
    assert "damaged" in problem.problem
    assert list(find(place, KEYRING, "staging/")) == []
    [unknown] = {one.problem for one in find(place, Keyring(new_keyset())) if one.backup_id != "backup_2"}
    assert KEYRING.key_id in unknown


def test_swapped_sidecars_are_found(place: Storage) -> None:
    one, two = stored(place, "backup_1", ROWS), stored(place, "backup_2", ROWS * 2)
    first, second = place.read_bytes(one.path, 10**6), place.read_bytes(two.path, 10**6)
    place.write_bytes(one.path, second)
    place.write_bytes(two.path, first)
    for path, other in ((one.path, "backup_2"), (two.path, "backup_1")):
        with pytest.raises(Corrupt, match=f"is the sidecar of backup {other}"):
            read(place, path, KEYRING)
    assert [found.sidecar for found in find(place, KEYRING)] == [None, None]


def test_swapped_objects_are_found(place: Storage) -> None:
    one, two = stored(place, "backup_1", ROWS), stored(place, "backup_2", ROWS)
    first, second = place.read_bytes(one.object_path, 10**6), place.read_bytes(two.object_path, 10**6)
    assert len(first) == len(second)
    place.write_bytes(one.object_path, second)
    place.write_bytes(two.object_path, first)
    for sidecar in (one, two):
        with pytest.raises(Corrupt, match="belongs to another backup"):
            restored(place, sidecar)


def test_a_sidecar_whose_object_is_gone_says_so(place: Storage) -> None:
    made = stored(place)
    place.delete(made.object_path)
    with pytest.raises(Missing):
        restored(place, read(place, made.path, KEYRING))
