"""What the operator's tests share."""

from pathlib import Path

import pytest

from tests.models import write_model
from tests.operator.local.tiny import TinyJob, write_tiny_job


@pytest.fixture(scope="session")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama of four layers. Read it; copy it to change it."""
    return write_model(tmp_path_factory.mktemp("local") / "teacher")


@pytest.fixture
def tiny_job(tmp_path: Path, teacher: Path) -> TinyJob:
    """A fresh folder with a tiny job."""
    return write_tiny_job(tmp_path / "job", teacher)
