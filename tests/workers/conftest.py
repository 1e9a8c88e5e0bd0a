"""What the worker tests share: a tiny teacher, made once, and the same behind an endpoint."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.models import write_model
from tests.workers.chat_server import KEY, ChatServer, serve_chat


@pytest.fixture(scope="session")
def tiny_teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama of four layers with its tokenizer. Read it; copy it to change it."""
    return write_model(tmp_path_factory.mktemp("models") / "teacher")


@pytest.fixture(scope="session")
def running_server(tmp_path_factory: pytest.TempPathFactory, tiny_teacher: Path) -> Iterator[ChatServer]:
    """The tiny teacher behind llama.cpp's server; ask for `chat_server`, which is clean and has the key."""
    from tests.workers.export.exporting import exported

    with serve_chat(exported(tmp_path_factory.mktemp("served"), tiny_teacher, "F16")) as server:
        yield server


@pytest.fixture
def chat_server(running_server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> ChatServer:
    """The server without faults to come, its key in the environment."""
    running_server.faults.clear()
    running_server.requests.clear()
    running_server.keys.clear()
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    return running_server
