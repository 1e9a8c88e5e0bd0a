"""Fixtures of the release repository."""

from pathlib import Path

import pytest

from tests.cluster.s3 import S3Server
from tests.operator.adapters.releases.installation import Installation


@pytest.fixture
def installation(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Installation:
    """A fresh repository with all its keys."""
    for name, value in s3_server.owner.environment().items():
        monkeypatch.setenv(name, value)
    return Installation.begin(s3_server.endpoint, s3_server.bucket("releases"), tmp_path / "keys")
