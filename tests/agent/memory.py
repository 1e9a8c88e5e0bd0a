"""A bucket in memory, for the side of the repository that agents never see: what they see is real files by real HTTP."""

import hashlib
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from threading import Lock

from dram_operator.adapters.releases.bucket import Bucket, Head, Listed, Stored, TooLarge, Unchanged


class MemoryBucket(Bucket):
    """The conditional writes of `Bucket`, which its own tests prove on a real server."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.uri = "s3://memory"
        self.files = files
        self._lock = Lock()

    def get(self, key: str, *, unless: str | None = None, most_bytes: int | None = None) -> Stored | None:
        body = self.files.get(key)
        if body is None:
            return None
        stored = Stored(body, hashlib.sha256(body).hexdigest())
        if stored.etag == unless:
            raise Unchanged(key)
        if most_bytes is not None and len(body) > most_bytes:
            raise TooLarge(key)
        return stored

    def head(self, key: str) -> Head | None:
        return Head(len(self.files[key])) if key in self.files else None

    def chunks(self, key: str, chunk_bytes: int = 1 << 20) -> Iterator[bytes]:
        yield self.files[key]

    def put(self, key: str, body: bytes) -> None:
        self.files[key] = body

    def create(self, key: str, body: bytes) -> bool:
        with self._lock:
            return self.files.setdefault(key, body) is body

    def replace(self, key: str, body: bytes, etag: str) -> bool:
        with self._lock:
            stored = self.get(key)
            if stored is None or stored.etag != etag:
                return False
            self.files[key] = body
            return True

    def list(self, prefix: str) -> Iterator[Listed]:
        for key, body in sorted(self.files.items()):
            if key.startswith(prefix):
                yield Listed(key, len(body), datetime.now(UTC))

    def delete(self, keys: Sequence[str]) -> None:
        for key in keys:
            self.files.pop(key, None)
