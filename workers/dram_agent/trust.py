"""What the device believes: metadata that the pinned root leads to, fresh by a guarded clock, never older than before.

The TUF client of python-tuf does the verification (The Update Framework 1.0.34, section 5). Around it: the clock, a
mark of the highest versions that survives a lost cache, one conditional request for a poll without news, and counting.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TypeVar

import urllib3
from pydantic import ValidationError
from tuf.api.exceptions import (
    BadVersionNumberError,
    DownloadError,
    DownloadHTTPError,
    DownloadLengthMismatchError,
    ExpiredMetadataError,
    LengthOrHashMismatchError,
    RepositoryError,
    SlowRetrievalError,
    UnsignedMetadataError,
)
from tuf.api.metadata import TargetFile
from tuf.api.serialization import DeserializationError
from tuf.ngclient import Updater, UpdaterConfig
from tuf.ngclient._internal.trusted_metadata_set import TrustedMetadataSet

from dram_agent.clock import ClockGuard
from dram_agent.disk import Disk
from dram_agent.document import ChannelDocument
from dram_agent.errors import AgentError, Cause, Refused, Unreachable
from dram_agent.web import OK, Web
from dram_workers.model import Model

T = TypeVar("T")

METADATA = "metadata"
MARK = "seen.json"
TIMESTAMP = "metadata/timestamp.json"
TIMESTAMP_LIFETIME = timedelta(hours=24).total_seconds()
"""The longest that a timestamp is valid: it was signed at most so long before it expires."""
LIMITS = UpdaterConfig(
    max_root_rotations=1024,
    max_delegations=8,
    root_max_length=64_000,
    timestamp_max_length=4_096,
    snapshot_max_length=64_000,
    targets_max_length=4_000_000,
)
"""Bytes and numbers that no honest repository comes near; 1024 rotations are a century of monthly ones."""
LARGEST_DOCUMENT = 256_000
LARGEST_TARGET = 64 * 2**30

CAUSES: tuple[tuple[type[Exception], Cause], ...] = (
    (UnsignedMetadataError, Cause.UNSIGNED),
    (ExpiredMetadataError, Cause.EXPIRED),
    (BadVersionNumberError, Cause.REPLAYED),
    (LengthOrHashMismatchError, Cause.MISMATCH),
    (DownloadLengthMismatchError, Cause.OVERSIZED),
    (SlowRetrievalError, Cause.SLOW),
    (DeserializationError, Cause.MALFORMED),
    (RepositoryError, Cause.MISMATCH),
)
"""In this order: the last is the base of most."""


@dataclass
class Trust:
    """The device's view of its channel."""

    disk: Disk
    web: Web
    clock: ClockGuard
    pinned_root: bytes
    channel: str
    """`namespace/name`."""
    on_refusal: Callable[[Cause], None]
    """Called once for everything that was refused."""
    _updater: Updater | None = None
    _document: ChannelDocument | None = None
    _etag: str | None = None
    _expires: float = field(default=0.0)

    def poll(self) -> ChannelDocument | None:
        """The channel's document now; None when the repository has none for it. Refused, Unreachable.

        Costs one small request while nothing has changed (`If-None-Match` on the timestamp).
        """
        if self._etag and self.clock.now() < self._expires and not self.web.etag_changed(TIMESTAMP, self._etag):
            return self._document
        return self.refresh()

    def refresh(self) -> ChannelDocument | None:
        """The same, with everything verified again from the root down."""
        self._etag = None
        return self._guarded(self._refresh)

    def target(self, path: str) -> TargetFile:
        """Length and digest of a target as of the last refresh. Refused when nobody signed it."""
        return self._guarded(lambda: self._target(path))

    def small_target(self, path: str) -> bytes:
        """A target that fits in memory, verified."""
        return self._guarded(lambda: self._small(path))

    def transfer(self, answer: urllib3.BaseHTTPResponse, seconds: float) -> Iterator[bytes]:
        """A body piece by piece. Unreachable when it breaks off or takes too long: what came may be gone on with."""
        try:
            yield from self.web.body(answer, seconds)
        except DownloadError as error:
            raise Unreachable(str(error)) from error

    def refuse(self, cause: Cause, message: str) -> Refused:
        """Count something that was found wrong outside of metadata; the error is for the caller to raise."""
        self.on_refusal(cause)
        return Refused(cause, message)

    def _refresh(self) -> ChannelDocument | None:
        etag = self._current_etag()
        self.disk.make_folder(METADATA)
        updater = self._new_updater()
        try:
            updater.refresh()
        except ExpiredMetadataError:
            if not self._begins_anew(_trusted(updater)):
                raise
            self.clock.forget()
            updater = self._new_updater()
            updater.refresh()
        trusted = _trusted(updater)
        self._check_mark(trusted)
        self.clock.prove(trusted.timestamp.expires.timestamp() - TIMESTAMP_LIFETIME)
        self._updater = updater
        self._document = self._read_document()
        self._etag, self._expires = etag, trusted.timestamp.expires.timestamp()
        return self._document

    def _new_updater(self) -> Updater:
        """The TUF client, by the guarded clock."""
        updater = Updater(
            str(self.disk.path(METADATA)),
            self.web.url("metadata/"),
            fetcher=self.web,
            config=LIMITS,
            bootstrap=self.pinned_root,
        )
        _trusted(updater).reference_time = self.clock.moment()
        return updater

    def _begins_anew(self, trusted: TrustedMetadataSet) -> bool:
        """Whether a newer root names other online keys: what the retired ones proved of the time counts no more.

        A stolen key, or an operator whose clock ran ahead, would otherwise have proven a time that no rotation undoes.
        """
        saved = _Mark.read(self.disk.read(MARK))
        return saved is not None and trusted.root.version > saved.root and _online_keys(trusted) != saved.keys

    def _current_etag(self) -> str | None:
        """ETag of the timestamp before it is read: when it changes between the two requests, the next poll is full."""
        answer = self.web.open(TIMESTAMP)
        answer.close()
        return answer.headers.get("ETag") if answer.status == OK else None

    def _check_mark(self, trusted: TrustedMetadataSet) -> None:
        """Refuse versions below the highest ones seen, even when the cache with them was lost.

        Other online keys begin anew: that is how a repository comes back from stolen ones (TUF 5.3.11).
        """
        seen = _Mark(
            keys=_online_keys(trusted),
            root=trusted.root.version,
            timestamp=trusted.timestamp.version,
            snapshot=trusted.snapshot.version,
        )
        saved = _Mark.read(self.disk.read(MARK))
        if saved is not None and seen.is_behind(saved):
            raise BadVersionNumberError(f"version {seen.timestamp}, but {saved.timestamp} was seen")
        if seen != saved:
            self.disk.write(MARK, seen.model_dump_json().encode())

    def _read_document(self) -> ChannelDocument | None:
        assert self._updater is not None
        path = f"channels/{self.channel}.json"
        if self._updater.get_targetinfo(path) is None:
            return None
        body = self._small(path)
        try:
            document = ChannelDocument.decode(body)
        except ValidationError as error:
            raise self.refuse(Cause.MALFORMED, f"{path} is not a document that this agent reads") from error
        if document.channel != self.channel:
            raise self.refuse(Cause.MISMATCH, f"{path} is the document of {document.channel}")
        return document

    def _target(self, path: str) -> TargetFile:
        if self._updater is None:
            raise Unreachable("no metadata was read since the start")
        info = self._updater.get_targetinfo(path)
        if info is None or info.length > LARGEST_TARGET:
            raise self.refuse(Cause.UNSIGNED, f"nobody signed {path}")
        return info

    def _small(self, path: str) -> bytes:
        info = self._target(path)
        if info.length > LARGEST_DOCUMENT:
            raise self.refuse(Cause.OVERSIZED, f"{path} has {info.length} bytes")
        body = self.web.download_bytes(self.web.url(f"targets/{hashed_path(info)}"), info.length)
        info.verify_length_and_hashes(body)
        return body

    def _guarded(self, act: Callable[[], T]) -> T:
        """Turn the TUF client's errors into ours, and count what was refused."""
        try:
            return act()
        except (DownloadLengthMismatchError, SlowRetrievalError, RepositoryError, DeserializationError) as error:
            cause = next(cause for kind, cause in CAUSES if isinstance(error, kind))
            raise self.refuse(cause, f"{type(error).__name__}: {str(error)[:200]}") from error
        except DownloadError as error:
            if isinstance(error.__cause__, AgentError):
                raise error.__cause__ from error
            status = f" (HTTP {error.status_code})" if isinstance(error, DownloadHTTPError) else ""
            raise Unreachable(f"{str(error)[:200]}{status}") from error


def hashed_path(info: TargetFile) -> str:
    """Where a target lies: with its digest in the name, as consistent snapshots want it."""
    folder, _, name = info.path.rpartition("/")
    return f"{folder}/{info.hashes['sha256']}.{name}"


def _trusted(updater: Updater) -> TrustedMetadataSet:
    """The client's own set of metadata: it offers no other way to another clock (pinned below the next major version)."""
    return updater._trusted_set  # noqa: SLF001


def _online_keys(trusted: TrustedMetadataSet) -> tuple[str, ...]:
    return tuple(sorted(trusted.root.roles["timestamp"].keyids))


class _Mark(Model):
    """The highest versions seen, under the online keys of that time."""

    keys: tuple[str, ...]
    root: int = 0
    timestamp: int
    snapshot: int

    def is_behind(self, saved: "_Mark") -> bool:
        """Whether it is older than what was saved under the same keys."""
        return self.keys == saved.keys and (self.timestamp < saved.timestamp or self.snapshot < saved.snapshot)

    @classmethod
    def read(cls, body: bytes | None) -> "_Mark | None":
        """The saved one; None when there is none that can be read."""
        try:
            return cls.model_validate_json(body) if body else None
        except ValidationError:
            return None
