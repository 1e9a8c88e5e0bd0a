"""Fixtures of the agent's tests."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from dram_operator.adapters.releases.bucket import BucketSettings
from dram_operator.adapters.releases.keys import KeyFolder
from tests.agent.box import CHANNEL, DEVICE, Box, Fleet
from tests.agent.memory import MemoryBucket
from tests.agent.site import Site
from tests.cluster.processes import free_ports
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


@pytest.fixture
def settings(fleet: Fleet, tmp_path: Path) -> dict[str, Any]:
    """A device's settings; its clock is the real one, so the repository is signed for now."""
    fleet.installation.clock.now = datetime.now(UTC)
    fleet.installation.ceremony().recover()
    (tmp_path / "root.json").write_bytes(fleet.installation.first_root)
    (tmp_path / "device-id").write_text(f"{DEVICE}\n")
    api, metrics = free_ports(2)
    return {
        "channel": CHANNEL,
        "repository": fleet.site.url,
        "root": str(tmp_path / "root.json"),
        "state": str(tmp_path / "state"),
        "deviceIdFile": str(tmp_path / "device-id"),
        "listen": f"127.0.0.1:{api}",
        "metricsListen": f"127.0.0.1:{metrics}",
        "contextTokens": 512,
        "threads": 1,
        "vetoFile": str(tmp_path / "veto"),
        "pinFile": str(tmp_path / "pin"),
    }


@pytest.fixture(scope="session")
def tiny_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama of four layers as the export stage makes it: a megabyte, and it talks nonsense."""
    from tests.models import write_model
    from tests.workers.export.exporting import exported

    teacher = write_model(tmp_path_factory.mktemp("models") / "teacher")
    return exported(tmp_path_factory.mktemp("gguf"), teacher, "F16")
