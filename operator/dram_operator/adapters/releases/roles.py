"""The roles of the repository, who signs them, for how long, and where their files lie.

    root (threshold, offline)
    ├── targets (offline)
    │   ├── artifacts         artifacts/<digest>/…             the release key
    │   └── channels          no targets: it only delegates    the targets key, offline
    │       └── channels-0…f  channels/<namespace>/<name>.json the operator, by hash bins (TAP 15)
    ├── snapshot              the operator
    └── timestamp             the operator

One metadata file has either path delegations or hash bins (TUF 1.0.34, 4.5), so that the bins hang below `channels`.
"""

import hashlib
from datetime import datetime, timedelta
from typing import TypeVar

from securesystemslib.signer import Key, Signer
from tuf.api.metadata import (
    TOP_LEVEL_ROLE_NAMES,
    DelegatedRole,
    Delegations,
    Metadata,
    Root,
    Signed,
    Snapshot,
    SuccinctRoles,
    Targets,
    Timestamp,
)
from tuf.api.metadata import Role as RoleKeys

ROOT, TARGETS, SNAPSHOT, TIMESTAMP = Root.type, Targets.type, Snapshot.type, Timestamp.type
ARTIFACTS, CHANNELS = "artifacts", "channels"
OFFLINE_ROLES = (TARGETS, CHANNELS, ARTIFACTS)
"""Roles that the operator may lack the keys of: their newest valid version is taken up by its next commit."""

ARTIFACT_PATHS = ["artifacts/*/*", "artifacts/*/*/*"]
"""An artifact is a file tree with at most one level of folders; `*` does not match a slash."""
CHANNEL_PATHS = ["channels/*/*"]

OFFLINE_LIFETIME = timedelta(days=365)
SNAPSHOT_LIFETIME = timedelta(days=7)
"""Also that of the bins."""
TIMESTAMP_LIFETIME = timedelta(hours=24)
SNAPSHOT_RENEWAL = timedelta(days=1)
TIMESTAMP_RENEWAL = timedelta(hours=4)

BIN_BITS = 4
"""16 bins: at 1,000 channels a device whose neighbour changed fetches 12 kB, and a daily renewal writes 16 files."""

SignedT = TypeVar("SignedT", Root, Timestamp, Snapshot, Targets)


def metadata_key(role: str, version: int | None = None) -> str:
    """The bucket's key of a role's file; only the timestamp has no version."""
    return f"metadata/{role}.json" if version is None else f"metadata/{version}.{role}.json"


def target_key(path: str, sha256: str) -> str:
    """The bucket's key of a target, with its digest in the name, as consistent snapshots want it (TUF 6.2)."""
    folder, _, name = path.rpartition("/")
    return f"targets/{folder}/{sha256}.{name}"


def channel_path(namespace: str, name: str) -> str:
    """The target path of a channel's document."""
    return f"channels/{namespace}/{name}.json"


def sha256_of(body: bytes) -> str:
    """Hex digest."""
    return hashlib.sha256(body).hexdigest()


def expiry(now: datetime, lifetime: timedelta) -> datetime:
    """When something signed now expires; TUF knows no fractions of a second."""
    return (now + lifetime).replace(microsecond=0)


def lifetime_of(role: str) -> timedelta:
    """How long a role is valid."""
    if role == TIMESTAMP:
        return TIMESTAMP_LIFETIME
    return OFFLINE_LIFETIME if role in (ROOT, *OFFLINE_ROLES) else SNAPSHOT_LIFETIME


def is_due(signed: Signed, lifetime: timedelta, renewal: timedelta, now: datetime) -> bool:
    """Whether it was signed a renewal interval ago or longer."""
    return now >= signed.expires - lifetime + renewal


def new_root(keys: dict[str, list[Key]], threshold: int, version: int, expires: datetime) -> Root:
    """A root that names these keys by top-level role; `threshold` is the root's own."""
    root = Root(version=version, expires=expires, consistent_snapshot=True)
    for role in TOP_LEVEL_ROLE_NAMES:
        root.roles[role] = RoleKeys([], threshold if role == ROOT else 1)
        for key in keys[role]:
            root.add_key(key, role)
    return root


def new_targets(release: Key, targets: Key, version: int, expires: datetime) -> Targets:
    """The top-level targets: no files, only who may sign which paths."""
    roles = {
        ARTIFACTS: DelegatedRole(ARTIFACTS, [release.keyid], 1, terminating=True, paths=ARTIFACT_PATHS),
        CHANNELS: DelegatedRole(CHANNELS, [targets.keyid], 1, terminating=True, paths=CHANNEL_PATHS),
    }
    keys = {key.keyid: key for key in (release, targets)}
    return Targets(version=version, expires=expires, delegations=Delegations(keys, roles))


def new_channels(operator: Key, bits: int, version: int, expires: datetime) -> Targets:
    """The delegation to the hash bins."""
    bins = SuccinctRoles([operator.keyid], 1, bits, CHANNELS)
    return Targets(
        version=version, expires=expires, delegations=Delegations({operator.keyid: operator}, succinct_roles=bins)
    )


def bins_of(channels: Targets) -> SuccinctRoles:
    """The hash bins; the delegation always has them, else it would not have verified as ours."""
    assert channels.delegations is not None
    assert channels.delegations.succinct_roles is not None
    return channels.delegations.succinct_roles


def sign(signed: SignedT, *signers: Signer) -> bytes:
    """The signed file's bytes."""
    metadata = Metadata(signed)
    for signer in signers:
        metadata.sign(signer, append=True)
    return metadata.to_bytes()
