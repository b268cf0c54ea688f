"""What holds for every test, and the order of the files."""

import pytest

# Files that take long, mostly because they wait, the longest first. Workers of pytest-xdist take file by file
# (`--dist loadfile`): with these at the front, no worker is left alone with one of them at the end.
LONG_FILES = (
    "pulsewatch/test_make_run.py",
    "pulsewatch/test_launch.py",
    "health/test_probes.py",
    "health/test_schedule.py",
    "backups/storage/test_s3.py",
    "deployments/test_shows.py",
    "health/test_probing_processes.py",
    "tests/test_plugin.py",
    "scaling/test_workers.py",
    "backups/storage/test_contract.py",
    "pulsewatch/test_install.py",
    "backups/pipeline/test_workers.py",
    "backups/pipeline/test_damage.py",
    "backups/test_metrics.py",
    "backups/pipeline/test_interruptions.py",
    "backups/test_restore_over.py",
    "backups/test_recovery.py",
    "tests/test_docker.py",
)


@pytest.hookimpl(trylast=True)  # after pytest-randomly has shuffled them
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The long files go first, in the order above; the others keep the order they have."""

    def rank(item: pytest.Item) -> int:
        found = [number for number, name in enumerate(LONG_FILES) if item.path.as_posix().endswith(f"/{name}")]
        return found[0] if found else len(LONG_FILES)

    items.sort(key=rank)


@pytest.fixture(autouse=True)
def keyset_of_the_test(settings) -> None:
    """A test that sets BACKUP_KEYSET means it: no file stands before it."""
    settings.BACKUP_KEYSET_FILE = None
