"""What holds for every test, and the order of the files."""

from collections.abc import Iterator
from typing import Any

import pytest
from django.apps import apps
from django.core import serializers
from django.db.models.signals import post_migrate
from hypothesis import settings as hypothesis_settings

# A busy machine is no wrong answer: properties are about results, and what hangs has the time-out of every test.
hypothesis_settings.register_profile("pulsewatch", deadline=None)
hypothesis_settings.load_profile("pulsewatch")

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


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    """What migrations put into tables comes back after a test with real transactions, which empties them at its end.

    So the order of tests does not matter. Django says that tables were emptied as it says that they were migrated.
    """
    ours = [model for model in apps.get_models() if model.__module__.startswith("apps.")]
    with django_db_blocker.unblock():
        seeds = serializers.serialize("json", [row for model in ours for row in model._base_manager.all()])

    def put_back(**_: Any) -> None:
        for seed in serializers.deserialize("json", seeds):
            seed.save()

    post_migrate.connect(put_back, sender=apps.get_app_config("core"))
    yield
    post_migrate.disconnect(put_back, sender=apps.get_app_config("core"))


@pytest.fixture(autouse=True)
def keyset_of_the_test(settings) -> None:
    """A test that sets BACKUP_KEYSET means it: no file stands before it."""
    settings.BACKUP_KEYSET_FILE = None
