"""What holds for every test."""

import pytest


@pytest.fixture(autouse=True)
def keyset_of_the_test(settings) -> None:
    """A test that sets BACKUP_KEYSET means it: no file stands before it."""
    settings.BACKUP_KEYSET_FILE = None
