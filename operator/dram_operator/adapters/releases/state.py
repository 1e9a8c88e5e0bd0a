"""Reading the repository as one who signs in it: every signature counts, no expiry does.

A bucket may be written by whoever has its credentials; what the keys did not sign is never built upon. Expired metadata
is read all the same: after an outage of a week it is the operator that has to sign it again.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from tuf.api.exceptions import RepositoryError, UnsignedMetadataError
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, Targets, Timestamp
from tuf.api.serialization import DeserializationError

from dram_operator.adapters.releases.bucket import Bucket
from dram_operator.adapters.releases.roles import (
    ARTIFACTS,
    CHANNELS,
    OFFLINE_ROLES,
    ROOT,
    SNAPSHOT,
    TARGETS,
    TIMESTAMP,
    SignedT,
    bins_of,
    metadata_key,
)
from dram_operator.errors import BucketRestored, RepositoryInvalid

Delegator = Root | Targets


@dataclass(frozen=True)
class Versions:
    """The newest versions that devices may have seen. Kept outside of the bucket, they unmask a bucket that went back."""

    root: int = 0
    targets: int = 0
    channels: int = 0
    artifacts: int = 0
    sequence: int = 0
    """Of the last commit: timestamp, snapshot and bins carry the number of the commit that wrote them."""


@dataclass(frozen=True)
class Committed:
    """What the timestamp names, verified from the root down."""

    root: Root
    timestamp: Timestamp
    snapshot: Snapshot
    roles: Mapping[str, Targets]
    """targets, artifacts, channels and every bin."""
    etag: str
    """Of the timestamp: the condition of the next commit."""

    @property
    def versions(self) -> Versions:
        """What a device that is up to date has seen."""
        offline = {role: self.roles[role].version for role in OFFLINE_ROLES}
        return Versions(root=self.root.version, sequence=self.timestamp.version, **offline)

    def digest_of(self, path: str) -> str | None:
        """SHA-256 of a channel's published document; None when there is none."""
        target = self.roles[self.bin_of(path)].targets.get(path)
        return target.hashes["sha256"] if target else None

    def bin_of(self, path: str) -> str:
        """The name of the bin that a target path belongs to."""
        return bins_of(self.roles[CHANNELS]).get_role_for_target(path)


@dataclass
class Reader:
    """Reads and verifies; what has a version never changes, so it is read once."""

    bucket: Bucket
    pinned_root: bytes
    """The root file that trust begins with."""
    _seen: dict[str, bytes] = field(default_factory=dict)

    def committed(self, floor: Versions | None = None) -> Committed:
        """The last commit. RepositoryInvalid; BucketRestored when it is older than `floor`."""
        floor = floor or Versions()
        root = self.root()
        stored = self.bucket.get(metadata_key(TIMESTAMP))
        if stored is None:
            if floor.sequence:
                raise BucketRestored(f"{self.bucket.uri} has no timestamp, but commit {floor.sequence} was published")
            raise RepositoryInvalid(f"{self.bucket.uri} holds no repository: run `dram keys init`")
        timestamp = parse(Timestamp, stored.body, root, TIMESTAMP)
        _check_floor(self.bucket.uri, root.version, timestamp.version, floor)
        snapshot = parse(Snapshot, self._named(SNAPSHOT, timestamp.snapshot_meta), root, SNAPSHOT)
        roles = dict(self._roles(root, snapshot))
        found = Committed(root, timestamp, snapshot, roles, stored.etag)
        for role in OFFLINE_ROLES:
            if roles[role].version < getattr(floor, role):
                raise BucketRestored(f"{self.bucket.uri} went back to version {roles[role].version} of {role}")
        return found

    def root(self) -> Root:
        """The newest root that the pinned one leads to, each signed by the one before and by itself (TUF 5.3)."""
        try:
            root = Metadata[Root].from_bytes(self.pinned_root).signed
        except DeserializationError as error:
            raise RepositoryInvalid("the pinned root is no root file") from error
        while (body := self.file(ROOT, root.version + 1)) is not None:
            following = parse(Root, body, root, ROOT)
            parse(Root, body, following, ROOT)
            if following.version != root.version + 1:
                raise RepositoryInvalid(f"root {root.version + 1} says that it is version {following.version}")
            root = following
        return root

    def file(self, role: str, version: int) -> bytes | None:
        """A versioned metadata file; None when there is none."""
        key = metadata_key(role, version)
        if key not in self._seen:
            stored = self.bucket.get(key)
            if stored is None:
                return None
            self._seen[key] = stored.body
        return self._seen[key]

    def forget(self, keep: set[str]) -> None:
        """Drop what is not among these keys, so that memory does not grow with the history."""
        self._seen = {key: body for key, body in self._seen.items() if key in keep}

    def _roles(self, root: Root, snapshot: Snapshot) -> Iterator[tuple[str, Targets]]:
        targets = self._targets(TARGETS, root, snapshot)
        channels = self._targets(CHANNELS, targets, snapshot)
        yield from ((TARGETS, targets), (CHANNELS, channels), (ARTIFACTS, self._targets(ARTIFACTS, targets, snapshot)))
        for name in bins_of(channels).get_roles():
            yield name, self._targets(name, channels, snapshot)

    def _targets(self, role: str, delegator: Delegator, snapshot: Snapshot) -> Targets:
        meta = snapshot.meta.get(f"{role}.json")
        if meta is None:
            raise RepositoryInvalid(f"the snapshot does not name {role}")
        return parse(Targets, self._named(role, meta), delegator, role)

    def _named(self, role: str, meta: MetaFile) -> bytes:
        body = self.file(role, meta.version)
        if body is None:
            raise RepositoryInvalid(f"{self.bucket.uri}/{metadata_key(role, meta.version)} is named but not there")
        try:
            meta.verify_length_and_hashes(body)
        except RepositoryError as error:
            raise RepositoryInvalid(f"{metadata_key(role, meta.version)} is not the file that was named") from error
        return body


def parse(kind: type[SignedT], body: bytes, delegator: Delegator, role: str) -> SignedT:
    """The signed part of a file, after its signatures passed. RepositoryInvalid when they do not."""
    try:
        metadata = Metadata[SignedT].from_bytes(body)
        delegator.verify_delegate(role, metadata.signed_bytes, metadata.signatures)
    except DeserializationError as error:
        raise RepositoryInvalid(f"{role} is no TUF metadata") from error
    except (UnsignedMetadataError, ValueError) as error:
        raise RepositoryInvalid(f"{role} is not signed by the keys that version {delegator.version} names") from error
    if not isinstance(metadata.signed, kind):
        raise RepositoryInvalid(f"{role} is a file of type {metadata.signed.type}")
    return metadata.signed


def _check_floor(uri: str, root: int, sequence: int, floor: Versions) -> None:
    if sequence < floor.sequence or root < floor.root:
        raise BucketRestored(
            f"{uri} went back to commit {sequence} and root {root}; devices have seen commit {floor.sequence} and root "
            f"{floor.root} and would refuse it: run `dram keys recover --above {floor.sequence}`"
        )
