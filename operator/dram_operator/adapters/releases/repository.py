"""The one writer: documents in, a signed commit out.

A commit writes channel documents, then the bins and the snapshot that name them, then the timestamp with `If-Match`:
nobody sees anything before that last write, and of two writers it takes the one that came first. All files of commit N
have version N. A crash leaves its files behind, their names cannot be taken again, and so N is skipped.
"""

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from securesystemslib.signer import Signer
from tuf.api.metadata import MetaFile, Root, Snapshot, TargetFile, Targets, Timestamp

from dram_operator.adapters.releases.bucket import Bucket
from dram_operator.adapters.releases.roles import (
    CHANNELS,
    OFFLINE_ROLES,
    SNAPSHOT,
    SNAPSHOT_LIFETIME,
    SNAPSHOT_RENEWAL,
    TARGETS,
    TIMESTAMP,
    TIMESTAMP_LIFETIME,
    TIMESTAMP_RENEWAL,
    bins_of,
    expiry,
    is_due,
    lifetime_of,
    metadata_key,
    sha256_of,
    sign,
    target_key,
)
from dram_operator.adapters.releases.state import Committed, Reader, Versions, parse
from dram_operator.errors import Conflict, KeyRetired, RepositoryInvalid

log = logging.getLogger(__name__)

PREVIOUS = "dramPrevious"
"""Version of the snapshot before, signed with each: it tells committed snapshots from those of a crash."""
BURNT_TRIES = 100
"""Versions that a commit skips before it gives up; each is one crash or one lost race."""


@dataclass(frozen=True)
class Expiries:
    """When devices will stop to take updates, by role; alert on half of a role's life."""

    by_role: Mapping[str, datetime]
    half_lives: Mapping[str, datetime]
    """When half of each role's life is over: by then it should have been signed again."""


class ReleaseRepository:
    """Publishes for one installation. Thread-safe: commits of one process follow each other."""

    def __init__(self, bucket: Bucket, pinned_root: bytes, operator: Signer, clock: Callable[[], datetime]) -> None:
        self._bucket = bucket
        self._reader = Reader(bucket, pinned_root)
        self._operator = operator
        self._clock = clock
        self._lock = threading.Lock()

    def read(self, floor: Versions | None = None) -> Committed:
        """The last commit, verified. See `Reader.committed` for what it refuses."""
        with self._lock:
            return self._reader.committed(floor)

    def document(self, path: str) -> bytes | None:
        """A channel's document as it is published; None when there is none."""
        with self._lock:
            digest = self._reader.committed().digest_of(path)
        return None if digest is None else self.content(path, digest)

    def content(self, path: str, digest: str) -> bytes:
        """The bytes of a document that a commit names. RepositoryInvalid when they are not there or others."""
        stored = self._bucket.get(target_key(path, digest))
        if stored is None or sha256_of(stored.body) != digest:
            raise RepositoryInvalid(f"the document of {path} is not the one that was signed")
        return stored.body

    def publish(
        self,
        documents: Mapping[str, bytes | None],
        floor: Versions | None = None,
        replacing: Mapping[str, str | None] | None = None,
    ) -> Versions:
        """Publish documents by target path; None withdraws one. Nothing is written when nothing changes.

        `replacing` has the digests of the documents that were decided on, None where there was none: a writer that was
        overtaken, however long ago it decided, writes nothing. Returns what to keep as the next `floor`.
        Conflict when another writer committed since the last read, or another document than those of `replacing`.
        """
        with self._lock:
            committed = self._reader.committed(floor)
            self._check_key(committed)
            for path, digest in (replacing or {}).items():
                if committed.digest_of(path) != digest:
                    raise Conflict(f"{self._bucket.uri}: {path} was published by another writer")
            return self._commit(committed, _changed_bins(committed, documents), documents)

    def renew(self, floor: Versions | None = None) -> Versions:
        """Sign again what is due, and take up what was signed offline; nothing is written when nothing is due."""
        return self.publish({}, floor)

    def expiries(self) -> Expiries:
        """When each role expires; bins under the name of the first that does."""
        with self._lock:
            committed = self._reader.committed()
        signed = {"root": committed.root, SNAPSHOT: committed.snapshot, TIMESTAMP: committed.timestamp}
        by_role = {role: each.expires for role, each in {**signed, **committed.roles}.items()}
        return Expiries(by_role, {role: expires - lifetime_of(role) / 2 for role, expires in by_role.items()})

    def _check_key(self, committed: Committed) -> None:
        keyid = self._operator.public_key.keyid
        if keyid not in committed.root.roles[TIMESTAMP].keyids:
            raise KeyRetired("the operator's signing key was rotated out: give it the new one")

    def _commit(
        self, committed: Committed, bins: dict[str, Targets], documents: Mapping[str, bytes | None]
    ) -> Versions:
        now = self._clock()
        offline = newest_offline(self._bucket, self._reader, committed)
        roles = {**committed.roles, **offline}
        bins |= {
            name: roles[name]
            for name in bins_of(roles[CHANNELS]).get_roles()
            if name not in bins and is_due(roles[name], SNAPSHOT_LIFETIME, SNAPSHOT_RENEWAL, now)
        }
        stale = is_due(committed.snapshot, SNAPSHOT_LIFETIME, SNAPSHOT_RENEWAL, now)
        if not (bins or offline or stale):
            if not is_due(committed.timestamp, TIMESTAMP_LIFETIME, TIMESTAMP_RENEWAL, now):
                return committed.versions
            return self._finish(committed, committed.timestamp.version + 1, committed.timestamp.snapshot_meta, roles)
        self._put_targets(documents)
        version, meta = self._write_free(committed, bins, offline, now)
        versions = self._finish(committed, version, meta, roles)
        self._put_targets(documents, only_missing=True)
        return versions

    def _write_free(
        self, committed: Committed, bins: dict[str, Targets], offline: dict[str, Targets], now: datetime
    ) -> tuple[int, MetaFile]:
        """Write bins and snapshot under the first number that nobody took."""
        for version in range(committed.timestamp.version + 1, committed.timestamp.version + BURNT_TRIES):
            meta = dict(committed.snapshot.meta)
            for role, signed in offline.items():
                body = self._reader.file(role, signed.version)
                assert body is not None
                meta[f"{role}.json"] = MetaFile.from_data(signed.version, body, ["sha256"])
            if not all(self._write_bin(name, signed, version, now, meta) for name, signed in sorted(bins.items())):
                continue
            snapshot = Snapshot(version=version, expires=expiry(now, SNAPSHOT_LIFETIME), meta=meta)
            snapshot.unrecognized_fields[PREVIOUS] = committed.snapshot.version
            body = sign(snapshot, self._operator)
            if self._bucket.create(metadata_key(SNAPSHOT, version), body):
                return version, MetaFile.from_data(version, body, ["sha256"])
        raise Conflict(f"{self._bucket.uri}: {BURNT_TRIES} versions in a row are taken")

    def _write_bin(self, name: str, signed: Targets, version: int, now: datetime, meta: dict[str, MetaFile]) -> bool:
        fresh = Targets(version=version, expires=expiry(now, SNAPSHOT_LIFETIME), targets=signed.targets)
        body = sign(fresh, self._operator)
        meta[f"{name}.json"] = MetaFile.from_data(version, body, ["sha256"])
        return self._bucket.create(metadata_key(name, version), body)

    def _finish(self, committed: Committed, version: int, meta: MetaFile, roles: Mapping[str, Targets]) -> Versions:
        """The commit itself. Conflict when the timestamp is no longer the one that was read."""
        expires = expiry(self._clock(), TIMESTAMP_LIFETIME)
        body = sign(Timestamp(version=version, expires=expires, snapshot_meta=meta), self._operator)
        if not self._bucket.replace(metadata_key(TIMESTAMP), body, committed.etag):
            # a retried request may have met its own first attempt
            stored = self._bucket.get(metadata_key(TIMESTAMP))
            if stored is None or stored.body != body:
                raise Conflict(f"{self._bucket.uri}: another writer committed after {committed.timestamp.version}")
        log.info("Committed releases %d", version)
        offline = {role: roles[role].version for role in OFFLINE_ROLES}
        return Versions(root=committed.root.version, sequence=version, **offline)

    def _put_targets(self, documents: Mapping[str, bytes | None], *, only_missing: bool = False) -> None:
        """Write the documents; after the commit once more those that a pruning at the same time took away."""
        for path, body in documents.items():
            if body is not None:
                key = target_key(path, sha256_of(body))
                if not only_missing or self._bucket.size(key) is None:
                    self._bucket.put(key, body)


def newest_offline(bucket: Bucket, reader: Reader, committed: Committed) -> dict[str, Targets]:
    """Versions of the offline roles that are newer than the committed ones and signed by the keys that now count."""
    available = offline_versions(bucket)
    found: dict[str, Targets] = {}
    for role in OFFLINE_ROLES:
        delegator = committed.root if role == TARGETS else found.get(TARGETS, committed.roles[TARGETS])
        for version in sorted(available[role], reverse=True):
            if version <= committed.roles[role].version:
                break
            body = reader.file(role, version)
            if body is not None and (signed := _valid(body, delegator, role, version)) is not None:
                found[role] = signed
                break
    return found


def offline_versions(bucket: Bucket) -> dict[str, set[int]]:
    """Every version of the offline roles in the bucket, committed or not."""
    found: dict[str, set[int]] = {role: set() for role in OFFLINE_ROLES}
    for listed in bucket.list("metadata/"):
        version, _, role = listed.key.removeprefix("metadata/").removesuffix(".json").partition(".")
        if role in found and version.isdigit():
            found[role].add(int(version))
    return found


def _valid(body: bytes, delegator: Root | Targets, role: str, version: int) -> Targets | None:
    """The signed part; None when it is not signed by the right keys or has another version than its name."""
    try:
        signed: Targets = parse(Targets, body, delegator, role)
    except RepositoryInvalid as error:
        log.warning("Ignored version %d of %s: %s", version, role, error)
        return None
    return signed if signed.version == version else None


def _changed_bins(committed: Committed, documents: Mapping[str, bytes | None]) -> dict[str, Targets]:
    """The bins that these documents change, with their new targets."""
    bins: dict[str, Targets] = {}
    for path, body in documents.items():
        name = committed.bin_of(path)
        signed = bins.get(name, committed.roles[name])
        targets = dict(signed.targets)
        if body is None:
            targets.pop(path, None)
        else:
            targets[path] = TargetFile.from_data(path, body, ["sha256"])
        if targets != signed.targets:
            bins[name] = Targets(signed.version, expires=signed.expires, targets=targets)
    return bins
