"""Pruning: what no reader can still need goes. Root files stay for good: a device of any age walks through all of them.

A reader holds a timestamp for as long as it is valid and fetches what it names. So a commit's files are kept until the
commit that followed it is older than the grace, whatever their own age.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from tuf.api.metadata import Metadata, Snapshot, Targets

from dram_operator.adapters.releases.bucket import Bucket, Listed
from dram_operator.adapters.releases.repository import PREVIOUS
from dram_operator.adapters.releases.roles import (
    OFFLINE_ROLES,
    SNAPSHOT,
    TIMESTAMP_LIFETIME,
    metadata_key,
    target_key,
)
from dram_operator.adapters.releases.state import Committed

GRACE = 2 * TIMESTAMP_LIFETIME
"""Twice as long as any timestamp is valid: for slow readers, caches and clocks that differ."""
DOCUMENTS = "targets/channels/"


@dataclass(frozen=True)
class _Kept:
    metadata: set[str]
    targets: set[str]


def prune(bucket: Bucket, committed: Committed, now: datetime, grace: timedelta = GRACE) -> list[str]:
    """Delete old metadata, and the targets that only it named; returns the deleted keys.

    Targets go first: what is left after a crash is still named by metadata, and found the next time.
    """
    listed = {each.key: each for each in bucket.list("metadata/")}
    kept = _kept(bucket, committed, listed, now - grace)
    old = [key for key, each in listed.items() if key not in kept.metadata and _is_old(each, committed, now - grace)]
    targets = {key for body in _bodies(bucket, old) for key in _named_targets(body)}
    targets |= {each.key for each in bucket.list(DOCUMENTS) if each.modified < now - grace}
    gone = sorted(targets - kept.targets)
    bucket.delete(gone)
    bucket.delete(old)
    return [*gone, *old]


def _kept(bucket: Bucket, committed: Committed, listed: dict[str, Listed], before: datetime) -> _Kept:
    """The last commit, and every earlier one whose follower is younger than `before`."""
    kept = _Kept({metadata_key("timestamp")}, set())
    snapshot: Snapshot | None = committed.snapshot
    while snapshot is not None:
        key = metadata_key(SNAPSHOT, snapshot.version)
        kept.metadata.update({key, *_named_metadata(snapshot)})
        superseded = listed[key].modified if key in listed else before
        previous = metadata_key(SNAPSHOT, snapshot.unrecognized_fields.get(PREVIOUS, 0))
        stored = bucket.get(previous) if superseded >= before and previous in listed else None
        snapshot = Metadata[Snapshot].from_bytes(stored.body).signed if stored else None
    kept.metadata.update(key for key in listed if key.endswith(".root.json"))
    # Files that are young may belong to a commit that is being made, or wait for it: an artifact that was just signed.
    kept.metadata.update(key for key, each in listed.items() if each.modified >= before)
    for body in _bodies(bucket, sorted(kept.metadata)):
        kept.targets.update(_named_targets(body))
    return kept


def _is_old(each: Listed, committed: Committed, before: datetime) -> bool:
    """Whether it lies behind the last commit. Offline versions ahead of it wait for the operator, however long."""
    version, _, role = each.key.removeprefix("metadata/").removesuffix(".json").partition(".")
    if role in OFFLINE_ROLES and int(version) >= committed.roles[role].version:
        return False
    return each.modified < before


def _named_metadata(snapshot: Snapshot) -> Iterator[str]:
    for name, meta in snapshot.meta.items():
        yield metadata_key(name.removesuffix(".json"), meta.version)


def _bodies(bucket: Bucket, keys: list[str]) -> Iterator[bytes]:
    for key in keys:
        if not key.endswith((".root.json", ".snapshot.json", "/timestamp.json")) and (stored := bucket.get(key)):
            yield stored.body


def _named_targets(body: bytes) -> Iterator[str]:
    for path, file in Metadata[Targets].from_bytes(body).signed.targets.items():
        yield target_key(path, file.hashes["sha256"])
