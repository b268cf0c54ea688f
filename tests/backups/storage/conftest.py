"""A private S3 for the tests of this folder, and a place of each kind."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from apps.backups.storage import Storage
from tests.backups.storage.places import s3_storage
from tests.servers import SeaweedFS


@pytest.fixture(scope="session")
def seaweedfs() -> Iterator[SeaweedFS]:
    with SeaweedFS() as server:
        yield server


@pytest.fixture(params=["folder", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Storage]:
    if request.param == "folder":
        made = Storage(str(tmp_path / "backups"))
    else:
        made = s3_storage(request.getfixturevalue("seaweedfs"), f"tests/{tmp_path.name}")
    with made:
        yield made
