"""Running client programs, with shell scripts in their place."""

import os
import stat
from pathlib import Path

import pytest

from apps.backups.engines.base import EngineError
from apps.backups.engines.clients import (
    CREDENTIALS,
    DumpClient,
    RestoreClient,
    neutral_environment,
    programs,
    version_text,
)

CREDENTIAL = "password=hunter2-secret"


def script(folder: Path, text: str, name: str = "client") -> str:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def dumped(folder: Path, text: str) -> bytes:
    command = [script(folder, text), CREDENTIALS]
    with DumpClient(
        command, credentials=CREDENTIAL, password="hunter2-secret", explain=lambda said: "Remedy."
    ) as client:
        data = b"".join(iter(lambda: os.read(client.fileno(), 1 << 20), b""))
        client.finish()
    return data


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def restored(folder: Path, text: str, data: bytes) -> None:
    with RestoreClient([script(folder, text), CREDENTIALS], credentials=CREDENTIAL) as client:
        client.write(memoryview(data))
        client.finish()


def test_a_client_reads_its_credentials_from_a_pipe_and_has_them_nowhere_else(tmp_path: Path) -> None:
    data = dumped(tmp_path, 'test -p "$1" && cat "$1"; tr "\\0" " " < /proc/$$/cmdline; env')

    assert data.count(b"hunter2") == 1
    assert data.startswith(CREDENTIAL.encode())


def test_the_credentials_path_goes_into_the_environment_where_a_client_wants_it_there(tmp_path: Path) -> None:
    command = [script(tmp_path, 'cat "$PASSFILE"')]
    with DumpClient(command, credentials=CREDENTIAL, environment={"PASSFILE": CREDENTIALS}) as client:
        assert os.read(client.fileno(), 100) == CREDENTIAL.encode()
        client.finish()


def test_a_client_sees_nothing_of_our_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MYSQL_PWD", "hunter2")
    monkeypatch.setenv("LANG", "tr_TR.UTF-8")
    lines = dumped(tmp_path, "env").decode().splitlines()

    assert "HOME=/nonexistent" in lines
    assert "LC_ALL=C.UTF-8" in lines
    assert not [line for line in lines if line.startswith(("MYSQL_PWD", "LANG", "DATABASE_URL", "SECRET_KEY"))]
    assert set(neutral_environment()) <= {"PATH", "LD_LIBRARY_PATH", "TMPDIR", "HOME", "LC_ALL", "TZ"}


def test_a_status_is_told_with_the_clients_last_words_and_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"^client ended with status 3\. It said: client: Got error: no\. Remedy\.$"):
        dumped(tmp_path, "echo data; echo 'client: Got error: no.' >&2; exit 3")


def test_a_complaint_with_status_0_is_a_failure(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="status 0, yet complained"):
        dumped(tmp_path, "echo data; echo \"client: Error: 'denied' when trying to dump tablespaces\" >&2")


def test_a_warning_with_status_0_is_none(tmp_path: Path) -> None:
    assert dumped(tmp_path, "echo data; echo 'client: [Warning] unknown option --on-error' >&2") == b"data\n"


def test_neither_rows_nor_the_password_are_told(tmp_path: Path) -> None:
    text = "echo '--------------\nINSERT INTO t VALUES\n(1,\"error of bob\");\n--------------\n' >&2"
    with pytest.raises(EngineError, match="ERROR 1062") as raised:
        dumped(tmp_path, f"{text}; echo 'ERROR 1062 at line 3: hunter2-secret' >&2; exit 1")
    assert "bob" not in str(raised.value)
    assert "hunter2" not in str(raised.value)


def test_a_client_that_floods_standard_error_does_not_stall(tmp_path: Path) -> None:
    flood = "i=0; while [ $i -lt 20000 ]; do echo 'client: note: 0123456789' >&2; i=$((i+1)); done"
    with pytest.raises(EngineError, match="client: error: the end") as raised:
        dumped(tmp_path, f"{flood}; echo 'client: error: the end' >&2; exit 1")
    assert len(str(raised.value)) < 500


def test_a_client_that_cannot_be_started_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="nothing cannot be started: No such file"):
        DumpClient([str(tmp_path / "nothing")])


def test_credentials_longer_than_a_pipe_are_refused(tmp_path: Path) -> None:
    before = descriptors()
    with pytest.raises(EngineError, match="too long"):
        RestoreClient([script(tmp_path, "cat")], credentials="x" * 100_000)
    assert descriptors() == before


def test_no_descriptor_is_left_behind(tmp_path: Path) -> None:
    before = descriptors()
    dumped(tmp_path, "echo data")
    restored(tmp_path, "cat > /dev/null", b"data")
    with pytest.raises(EngineError):
        DumpClient([str(tmp_path / "nothing")])
    assert descriptors() == before


def test_a_restore_waits_for_the_clients_verdict(tmp_path: Path) -> None:
    restored(tmp_path, f'cat > "{tmp_path}/out"', b"x" * 3_000_000)
    assert (tmp_path / "out").stat().st_size == 3_000_000
    with pytest.raises(EngineError, match="status 7"):
        restored(tmp_path, "cat > /dev/null; exit 7", b"data")


def test_a_client_whose_restore_is_left_never_sees_an_end(tmp_path: Path) -> None:
    """It would take the part that it has for the whole."""
    command = [script(tmp_path, f'cat > /dev/null; touch "{tmp_path}/finished"')]
    with RestoreClient(command) as client:
        client.write(memoryview(b"x" * 3_000_000))

    assert not Path(f"/proc/{client.pid}").exists()
    assert not (tmp_path / "finished").exists()


@pytest.mark.parametrize(("status", "told"), [(5, "status 5"), (0, "before it had read everything")])
def test_a_client_that_stops_reading_is_a_failure(tmp_path: Path, status: int, told: str) -> None:
    with pytest.raises(EngineError, match=told):
        restored(tmp_path, f"exec <&-; exit {status}", b"x" * 5_000_000)


def test_standard_error_is_on_no_disk(tmp_path: Path) -> None:
    with DumpClient([script(tmp_path, "readlink /proc/$$/fd/2")]) as client:
        name = os.read(client.fileno(), 200)
        client.finish()
    assert name.startswith(b"/memfd:")


def test_programs_are_found_on_the_whole_path_and_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
        script(folder, "echo version", "mysqldump")
    (first / "mariadb-dump").symlink_to("mysqldump")
    script(second, "exit 1", "mysql")
    (second / "mysql").chmod(stat.S_IRUSR)
    monkeypatch.setenv("PATH", f"{first}:{second}:/nowhere")

    assert list(programs("mariadb-dump", "mysqldump")) == [first / "mariadb-dump", second / "mysqldump"]


@pytest.mark.parametrize(("text", "answer"), [("echo ' client 1.2 '", "client 1.2"), ("exit 1", "")])
def test_a_version_is_what_a_program_that_works_says(tmp_path: Path, text: str, answer: str) -> None:
    assert version_text(Path(script(tmp_path, text))) == answer


def test_what_does_not_start_has_no_version(tmp_path: Path) -> None:
    assert version_text(tmp_path / "nothing") == ""
