"""Fixtures of the agent's tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from dram_operator.adapters.releases.bucket import BucketSettings
from dram_operator.adapters.releases.keys import KeyFolder
from tests.agent.box import Box, Fleet
from tests.agent.memory import MemoryBucket
from tests.agent.site import Site
from tests.operator.adapters.releases.installation import Installation


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    """An installation whose signed files are served by HTTP."""
    installation = Installation(BucketSettings("s3://memory"), KeyFolder(tmp_path / "keys"), bucket=MemoryBucket({}))
    installation.ceremony().init(root_keys=3, threshold=2)
    with Site() as site:
        yield Fleet(installation, site)


@pytest.fixture
def box(fleet: Fleet, tmp_path: Path) -> Box:
    """A device that has never seen anything."""
    return Box(fleet, tmp_path / "device")


@pytest.fixture(scope="session")
def tiny_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama of four layers as the export stage makes it: a megabyte, and it talks nonsense."""
    from tests.models import write_model
    from tests.workers.export.exporting import exported

    teacher = write_model(tmp_path_factory.mktemp("models") / "teacher")
    return exported(tmp_path_factory.mktemp("gguf"), teacher, "F16")
