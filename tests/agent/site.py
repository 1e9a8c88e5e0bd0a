"""A plain HTTP server over the files of a release repository: ETag, ranges, and scripted faults. No test doubles behind it."""

import hashlib
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from types import TracebackType
from typing import Self

from tests.http_server import HttpServer

NOT_MODIFIED = 304
Body = bytes | Callable[[], Iterator[bytes]]


@dataclass(frozen=True)
class Answer:
    """What a scripted path says instead of its file."""

    status: int = 200
    body: Body = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    length: int | None = None
    """Of a body that comes in pieces; None sends them as chunks."""


@dataclass(frozen=True)
class Seen:
    """One request."""

    path: str
    headers: Mapping[str, str]
    status: int


class Site:
    """`with Site() as site:` serves `site.files` at `site.url`."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.answers: dict[str, Answer] = {}
        self.ranges = True
        self.seen: list[Seen] = []
        self.break_after: dict[str, int] = {}

    def __enter__(self) -> Self:
        self._server = HttpServer(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def paths(self) -> list[str]:
        """What was asked for since the last call."""
        paths = [each.path for each in self.seen]
        self.seen.clear()
        return paths


def _handler(its: Site) -> type[BaseHTTPRequestHandler]:
    return type("Handler", (_Handler,), {"site": its})


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    site: Site

    def do_GET(self) -> None:
        path = self.path.removeprefix("/")
        answer = self.site.answers.get(path) or self._file(path)
        self.site.seen.append(Seen(path, dict(self.headers), answer.status))
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if answer.length is not None:
            self.send_header("Content-Length", str(answer.length))
        elif not isinstance(answer.body, bytes):
            self.send_header("Transfer-Encoding", "chunked")
        elif answer.status != NOT_MODIFIED:
            self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        try:
            self._send(path, answer)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _send(self, path: str, answer: Answer) -> None:
        body = answer.body
        if isinstance(body, bytes):
            cut = self.site.break_after.pop(path, None)
            self.wfile.write(body if cut is None else body[:cut])
            self.close_connection = self.close_connection or cut is not None
            return
        if answer.length is not None:
            for piece in body():
                self.wfile.write(piece)
            return
        for chunk in body():
            self.wfile.write(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n")
        self.wfile.write(b"0\r\n\r\n")

    def _file(self, path: str) -> Answer:
        body = self.site.files.get(path)
        if body is None:
            return Answer(404)
        etag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
        if self.headers.get("If-None-Match") == etag:
            return Answer(NOT_MODIFIED, headers={"ETag": etag})
        span = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if not span or not self.site.ranges:
            return Answer(200, body, {"ETag": etag})
        start = int(span[1])
        if start >= len(body):
            return Answer(416, headers={"Content-Range": f"bytes */{len(body)}"})
        return Answer(206, body[start:], {"ETag": etag, "Content-Range": f"bytes {start}-{len(body) - 1}/{len(body)}"})

    def log_message(self, *args: object) -> None:
        """Nothing: requests are in `seen`."""
