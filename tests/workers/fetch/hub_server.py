"""A model hub on this machine: the few routes of the real one that its client uses, over folders."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LARGE_SUFFIX = ".safetensors"


@dataclass
class Hub:
    """Repositories by name; `gated` ones refuse, `broken` makes every answer a server error."""

    endpoint: str
    repositories: dict[str, Path] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    broken: bool = False
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    """Method, path and Range of every request."""

    def environment(self) -> dict[str, str]:
        """What the hub's client reads."""
        return {"HF_ENDPOINT": self.endpoint, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- the base's name
        """Tests read `requests`."""

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path).strip("/")
        self.hub.requests.append((self.command, path, self.headers.get("Range")))
        parts = path.removeprefix("api/models/").split("/")
        if refusal := self._refusal("/".join(parts[:2]), parts[3]):
            return self._send(*refusal)
        folder = self.hub.repositories["/".join(parts[:2])]
        if not path.startswith("api/models/"):
            return self._send(*self._file(folder / "/".join(parts[4:])))
        answer = _tree(folder) if parts[2] == "tree" else _info("/".join(parts[:2]), folder)
        return self._send(200, json.dumps(answer).encode(), {"Content-Type": "application/json"})

    def _refusal(self, repository: str, revision: str) -> tuple[int, bytes, dict[str, str]] | None:
        if self.hub.broken:
            return 500, b"{}", {}
        if repository in self.hub.gated:
            return 403, b"{}", {"X-Error-Code": "GatedRepo"}
        if repository not in self.hub.repositories:
            return 401, b"{}", {}
        return None if revision in ("main", COMMIT) else (404, b"{}", {"X-Error-Code": "RevisionNotFound"})

    def _file(self, path: Path) -> tuple[int, bytes, dict[str, str]]:
        if not path.is_file():
            return 404, b"", {"X-Error-Code": "EntryNotFound"}
        body = path.read_bytes()
        headers = {"ETag": f'"{hashlib.sha256(body).hexdigest()}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        if span := self.headers.get("Range"):
            first, _, last = span.removeprefix("bytes=").partition("-")
            end = int(last) + 1 if last else len(body)
            headers["Content-Range"] = f"bytes {first}-{min(end, len(body)) - 1}/{len(body)}"
            return 206, body[int(first) : end], headers
        return 200, body, headers

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _files(folder: Path) -> Iterator[tuple[str, int, str, bool]]:
    """Path, size, SHA-256 and whether it is stored as a large file."""
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        yield file.relative_to(folder).as_posix(), file.stat().st_size, digest, file.suffix == LARGE_SUFFIX


def _info(repository: str, folder: Path) -> dict[str, object]:
    siblings = [
        {"rfilename": path, "size": size, "blobId": digest[:40]}
        | ({"lfs": {"sha256": digest, "size": size, "pointerSize": 134}} if large else {})
        for path, size, digest, large in _files(folder)
    ]
    return {"id": repository, "sha": COMMIT, "siblings": siblings, "private": False, "tags": []}


def _tree(folder: Path) -> list[dict[str, object]]:
    return [
        {"type": "file", "path": path, "size": size, "oid": digest[:40]}
        | ({"lfs": {"oid": digest, "size": size, "pointerSize": 134}} if large else {})
        for path, size, digest, large in _files(folder)
    ]


@contextmanager
def serve_hub() -> Iterator[Hub]:
    """A hub on a free port of the loopback interface."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    hub = Hub(f"http://127.0.0.1:{server.server_address[1]}")
    server.RequestHandlerClass = type("Handler", (_Handler,), {"hub": hub})
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
