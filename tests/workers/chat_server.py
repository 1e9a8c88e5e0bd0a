"""A real OpenAI-compatible server: llama.cpp's own over a tiny model, behind a front that can fail as vendors' do."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2

from dram_workers.endpoint_model import EndpointModel

KEY = "sk-test-0123456789"


@dataclass
class Fault:
    """An answer that the front gives instead of the server's."""

    status: int
    body: dict[str, Any] | str = ""
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class ChatServer:
    """Where it is, what it was asked, and what it is to fail with, first things first."""

    url: str
    upstream: str
    faults: list[Fault] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    refuse_from: int | None = None
    """Number of the request from which on every key is refused."""

    def model(self, name: str = "tiny") -> EndpointModel:
        """The teacher that answers here."""
        return EndpointModel(url=f"{self.url}/v1", model=name)


class _Front(BaseHTTPRequestHandler):
    server_state: ChatServer
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        state = self.server_state
        body = self.rfile.read(int(self.headers["Content-Length"]))
        state.requests.append(json.loads(body))
        state.keys.append(self.headers.get("Authorization"))
        if state.refuse_from is not None and len(state.requests) > state.refuse_from:
            return self._send(401, b"{}", {})
        if state.faults:
            fault = state.faults.pop(0)
            text = fault.body if isinstance(fault.body, str) else json.dumps(fault.body)
            return self._send(fault.status, text.encode(), fault.headers)
        headers = {"Authorization": self.headers.get("Authorization", ""), "Content-Type": "application/json"}
        answer = httpx2.post(state.upstream + self.path, content=body, headers=headers, timeout=60)
        return self._send(answer.status_code, answer.content, {})

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- the base's name
        """Tests read `requests`."""

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), "Content-Type": "application/json", **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def serve_chat(gguf: Path) -> Iterator[ChatServer]:
    """Serve a file, with a key, on free ports of the loopback interface."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path, params.port, params.api_keys = str(gguf), 0, [KEY]
    params.n_parallel, params.n_ctx, params.n_threads_http, params.verbosity = 4, 2048, 4, 0
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    upstream = xllamacpp.Server(params)
    front = ThreadingHTTPServer(("127.0.0.1", 0), _Front)
    state = ChatServer(f"http://127.0.0.1:{front.server_address[1]}", upstream.listening_address)
    front.RequestHandlerClass = type("Front", (_Front,), {"server_state": state})
    thread = threading.Thread(target=front.serve_forever, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        front.shutdown()
        front.server_close()
        thread.join()
        del upstream
