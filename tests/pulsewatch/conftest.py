"""The order of the tests."""

import pytest


@pytest.hookimpl(trylast=True)  # after pytest-randomly has shuffled them
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest test goes first, so that at the end no worker waits for another one."""
    items.sort(key=lambda item: item.path.name != "test_make_run.py")
