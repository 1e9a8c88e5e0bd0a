"""Every test of the seam runs on a folder and on a real S3 server."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from dram_workers.stages import StoreSettings
from dram_workers.store.folder import FolderStore
from dram_workers.store.objects import ObjectStore
from dram_workers.store.s3 import S3Store
from tests.cluster.s3 import S3Server


@pytest.fixture
def s3_settings(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> StoreSettings:
    """Settings of an empty prefix on the S3 server, with the owner's credentials in the environment."""
    for name, value in s3_server.owner.environment().items():
        monkeypatch.setenv(name, value)
    bucket = s3_server.bucket("store-tests")
    return StoreSettings(uri=f"{bucket}/{uuid.uuid4().hex}", endpoint=s3_server.endpoint, path_style=True)


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ObjectStore]:
    """An empty store of either kind."""
    if request.param == "folder":
        yield FolderStore(tmp_path / "store")
    else:
        yield S3Store(request.getfixturevalue("s3_settings"))
