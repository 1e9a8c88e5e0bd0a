"""Getting files by HTTP: bounded in bytes and in time, no redirects, no compression, resumed by range."""

import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC
from email.utils import parsedate_to_datetime

import urllib3
from tuf.api.exceptions import DownloadError, DownloadHTTPError, SlowRetrievalError
from tuf.ngclient import FetcherInterface
from urllib3.exceptions import HTTPError

from dram_agent.errors import Unreachable

CHUNK_BYTES = 1 << 16
OK, PARTIAL, NOT_MODIFIED, NOT_SATISFIABLE = 200, 206, 304, 416
BUSY = (429, 503)
METADATA_SECONDS = 60.0
"""The longest that one metadata file may take. 5 MB in a minute is 700 kbit/s; a file that trickles is cut off here."""
LONGEST_PATIENCE_SECONDS = 86_400.0
"""The most that a server may ask for, as in Omaha 3.0: nobody signed it, and a rollback waits behind it."""
HEADERS = {"Accept-Encoding": "identity"}


@dataclass(frozen=True)
class WebSettings:
    """How to reach the repository."""

    url: str
    """Address of the bucket's root: `metadata/` and `targets/` lie below it."""
    ca_file: str | None = None
    connect_seconds: float = 10.0
    read_seconds: float = 30.0


@dataclass
class Web(FetcherInterface):
    """The fetcher that the TUF client uses, and the agent for artifacts."""

    settings: WebSettings
    monotonic: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
    _pool: urllib3.PoolManager = field(init=False)

    def __post_init__(self) -> None:
        timeout = urllib3.Timeout(connect=self.settings.connect_seconds, read=self.settings.read_seconds)
        # no retries, and with that no redirects: an answer from elsewhere is none
        self._pool = urllib3.PoolManager(ca_certs=self.settings.ca_file, timeout=timeout, retries=False)

    def url(self, path: str) -> str:
        """The full address of a path."""
        return f"{self.settings.url.rstrip('/')}/{path}"

    def etag_changed(self, path: str, etag: str) -> bool:
        """Whether the file is another than the one of this ETag. Unreachable as `open`."""
        with_etag = self.open(path, {"If-None-Match": etag})
        try:
            return with_etag.status != NOT_MODIFIED
        finally:
            with_etag.close()

    def open(self, path: str, headers: Mapping[str, str] | None = None) -> urllib3.BaseHTTPResponse:
        """Ask for a file; the body is not read yet. Unreachable without an answer, and when the server is busy."""
        try:
            answer = self._pool.request(
                "GET", self.url(path), headers={**HEADERS, **(headers or {})}, preload_content=False
            )
        except HTTPError as error:
            raise Unreachable(f"{path}: {type(error).__name__}") from error
        if answer.status in BUSY:
            answer.close()
            raise Unreachable(f"{path}: HTTP {answer.status}", self._patience(answer.headers.get("Retry-After")))
        return answer

    def body(self, answer: urllib3.BaseHTTPResponse, seconds: float) -> Iterator[bytes]:
        """The body piece by piece. SlowRetrievalError after `seconds`, DownloadError when it breaks off."""
        deadline = self.monotonic() + seconds
        try:
            # What is there, not a whole piece: that could be waited for by the byte.
            while chunk := answer.read1(CHUNK_BYTES, decode_content=False):
                yield chunk
                if self.monotonic() > deadline:
                    raise SlowRetrievalError(f"more than {seconds:.0f} s for one file")
        except HTTPError as error:
            raise DownloadError(f"the answer broke off: {type(error).__name__}") from error
        finally:
            answer.close()

    def _fetch(self, url: str) -> Iterator[bytes]:
        answer = self.open(url.removeprefix(self.url("")))
        if answer.status != OK:
            answer.close()
            raise DownloadHTTPError(f"HTTP {answer.status}", answer.status)
        return self.body(answer, METADATA_SECONDS)

    def _patience(self, value: str | None) -> float | None:
        """Seconds of a `Retry-After`, which is a number or a date (RFC 9110, 10.2.3); None for whatever else it is."""
        if value is None:
            return None
        if re.fullmatch("[0-9]{1,9}", value.strip()):
            return min(float(value), LONGEST_PATIENCE_SECONDS)
        try:
            until = parsedate_to_datetime(value)
        except ValueError:
            return None
        seconds = until.replace(tzinfo=until.tzinfo or UTC).timestamp() - self.wall()
        return min(max(0.0, seconds), LONGEST_PATIENCE_SECONDS)
