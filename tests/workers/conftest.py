"""What the worker tests share: a tiny teacher, made once."""

from pathlib import Path

import pytest

from tests.models import write_model


@pytest.fixture(scope="session")
def tiny_teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama of four layers with its tokenizer. Read it; copy it to change it."""
    return write_model(tmp_path_factory.mktemp("models") / "teacher")
