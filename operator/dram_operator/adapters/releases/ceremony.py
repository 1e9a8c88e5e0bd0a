"""What needs offline keys: beginning a repository, rotating a key, and recovering from a loss.

Whatever is signed anew is written first under names that nobody reads yet, then the root, then the timestamp. A crash
before the root changes nothing; one between root and timestamp is finished by `recover`, as is a restored bucket.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

from securesystemslib.signer import Key, Signer
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, Targets, Timestamp

from dram_operator.adapters.releases.bucket import Bucket
from dram_operator.adapters.releases.keys import OPERATOR_KEY, RELEASE_KEY, ROOT_KEY, TARGETS_KEY, KeyFolder, new_key
from dram_operator.adapters.releases.repository import PREVIOUS
from dram_operator.adapters.releases.roles import (
    ARTIFACTS,
    BIN_BITS,
    CHANNELS,
    OFFLINE_LIFETIME,
    ROOT,
    SNAPSHOT,
    SNAPSHOT_LIFETIME,
    TARGETS,
    TIMESTAMP,
    TIMESTAMP_LIFETIME,
    bins_of,
    expiry,
    metadata_key,
    new_channels,
    new_root,
    new_targets,
    sign,
)
from dram_operator.adapters.releases.state import Committed, Reader
from dram_operator.errors import Conflict, Refused, RepositoryInvalid

ROTATABLE = (ROOT_KEY, TARGETS_KEY, RELEASE_KEY, OPERATOR_KEY)


@dataclass(frozen=True)
class Content:
    """What a new commit takes over: the targets of each role, and where the version numbers stand."""

    root: Root | None = None
    etag: str | None = None
    """Of the timestamp that is replaced; absent creates one."""
    version: int = 0
    """Every file of the new commit gets a higher one."""
    snapshot: int = 0
    targets: tuple[tuple[str, Targets], ...] = ()

    def targets_of(self, role: str) -> Targets:
        """A role's targets; empty ones where the role is new."""
        return dict(self.targets).get(role) or Targets()


@dataclass(frozen=True)
class Ceremony:
    """One person with a folder of keys, at one repository."""

    bucket: Bucket
    folder: KeyFolder
    clock: Callable[[], datetime]

    def init(self, root_keys: int, threshold: int) -> None:
        """Make all keys and an empty repository. Refused when there is one, or when a key file exists."""
        if not 1 <= threshold <= root_keys:
            raise Refused(f"a threshold of {threshold} cannot be met by {root_keys} root keys")
        if self.bucket.get(metadata_key(TIMESTAMP)) is not None:
            raise Refused(f"{self.bucket.uri} holds a repository already")
        self.folder.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        for name in (*(f"{ROOT_KEY}-{number + 1}" for number in range(root_keys)), *ROTATABLE[1:]):
            new_key(self.folder.file(name))
        self._write_all(Content(), threshold)

    def rotate(self, role: str) -> None:
        """Replace the key (root: all keys) of a role by new ones. The rest of what needs to be signed is signed."""
        content = self._content()
        if content.root is None:
            raise RepositoryInvalid(f"{self.bucket.uri} holds no repository that this folder's root leads to")
        threshold = content.root.roles[ROOT].threshold
        self._check_keys(content.root, role)
        names = [f"{ROOT_KEY}-{number + 1}" for number in range(len(self.folder.root_keys()))]
        for name in names if role == ROOT_KEY else [role]:
            if self.folder.has(name):
                self.folder.retire(name)
            new_key(self.folder.file(name))
        if role == ROOT_KEY:
            self._write_root(content.root, threshold)
        else:
            self._write_all(content, threshold)

    def recover(self, above: int = 0) -> None:
        """Put lost root files back and sign everything anew with this folder's keys, above any version that was seen."""
        for version, body in sorted(self.folder.roots().items()):
            self.bucket.create(metadata_key(ROOT, version), body)
        content = self._content()
        root = content.root
        self._write_all(
            replace(content, version=max(content.version, above)), root.roles[ROOT].threshold if root else 1
        )

    def ensure(self) -> bytes:
        """Begin the repository with this folder's keys unless it is begun; returns its first root, for agents to pin.

        May be tried by several at once, and again after a crash: one commits, the others meet a Conflict and find it
        begun when they try again.
        """
        if self.bucket.get(metadata_key(TIMESTAMP)) is None:
            for listed in sorted(self.bucket.list("metadata/"), key=lambda found: _version_of(found.key)):
                if listed.key.endswith(".root.json") and (left := self.bucket.get(listed.key)):
                    self.folder.keep_root(_version_of(listed.key), left.body)
            self.recover()
        first = self.bucket.get(metadata_key(ROOT, 1))
        if first is None:
            raise RepositoryInvalid(f"{self.bucket.uri} has lost its first root")
        return first.body

    def _check_keys(self, root: Root, role: str) -> None:
        needed = {TARGETS_KEY, OPERATOR_KEY, RELEASE_KEY} - {role} if role != ROOT_KEY else set[str]()
        missing = sorted(name for name in needed if not self.folder.has(name))
        present = len(self.folder.signers_of(root.roles[ROOT].keyids))
        if missing or present < root.roles[ROOT].threshold:
            raise Refused(
                f"rotating {role} needs {root.roles[ROOT].threshold} root keys, here are {present}"
                + (f", and the keys {', '.join(missing)}" if missing else "")
            )

    def _content(self) -> Content:
        """What is committed, by the newest of our roots that it verifies with; every higher number in use is passed."""
        stored = self.bucket.get(metadata_key(TIMESTAMP))
        roots = self.folder.roots()
        committed = self._committed(roots) if stored else None
        root = Metadata[Root].from_bytes(roots[max(roots)]).signed if roots else None
        used = [_version_of(listed.key) for listed in self.bucket.list("metadata/") if ".root." not in listed.key]
        etag = stored.etag if stored else None
        if committed is None:
            return Content(root, etag, max(used, default=0))
        highest = max(committed.timestamp.version, *used)
        return Content(root, etag, highest, committed.snapshot.version, tuple(committed.roles.items()))

    def _committed(self, roots: dict[int, bytes]) -> Committed | None:
        for version in sorted(roots, reverse=True):
            try:
                return _OldRoot(self.bucket, roots[version]).committed()
            except RepositoryInvalid:
                continue
        return None

    def _write_all(self, content: Content, threshold: int) -> None:
        now, version = self.clock(), content.version + 1
        offline = expiry(now, OFFLINE_LIFETIME)
        operator, targets_key, release = (self.folder.key(name) for name in (OPERATOR_KEY, TARGETS_KEY, RELEASE_KEY))
        targets = new_targets(release.public_key, targets_key.public_key, version, offline)
        channels = new_channels(operator.public_key, BIN_BITS, version, offline)
        artifacts = Targets(version, expires=offline, targets=content.targets_of(ARTIFACTS).targets)
        files = {
            TARGETS: sign(targets, targets_key),
            CHANNELS: sign(channels, targets_key),
            ARTIFACTS: sign(artifacts, release),
        }
        for name in bins_of(channels).get_roles():
            kept = content.targets_of(name).targets
            files[name] = sign(Targets(version, expires=expiry(now, SNAPSHOT_LIFETIME), targets=kept), operator)
        meta = {f"{role}.json": MetaFile.from_data(version, body, ["sha256"]) for role, body in files.items()}
        snapshot = Snapshot(version=version, expires=expiry(now, SNAPSHOT_LIFETIME), meta=meta)
        snapshot.unrecognized_fields[PREVIOUS] = content.snapshot
        files[SNAPSHOT] = sign(snapshot, operator)
        for role, body in files.items():
            self._create(metadata_key(role, version), body)
        self._write_root(content.root, threshold)
        self._write_timestamp(version, files[SNAPSHOT], operator, content.etag)

    def _write_timestamp(self, version: int, snapshot: bytes, operator: Signer, etag: str | None) -> None:
        named = MetaFile.from_data(version, snapshot, ["sha256"])
        expires = expiry(self.clock(), TIMESTAMP_LIFETIME)
        body = sign(Timestamp(version=version, expires=expires, snapshot_meta=named), operator)
        key = metadata_key(TIMESTAMP)
        if not (self.bucket.replace(key, body, etag) if etag else self.bucket.create(key, body)):
            raise Conflict("the operator committed at the same time: run `dram keys recover` to finish")

    def _write_root(self, old: Root | None, threshold: int) -> None:
        """The next root, signed by enough keys of the one before and by its own."""
        online = self._public(OPERATOR_KEY) or _keys_of(old, TIMESTAMP)
        keys: dict[str, list[Key]] = {
            ROOT: [signer.public_key for signer in self.folder.root_keys()],
            TARGETS: self._public(TARGETS_KEY) or _keys_of(old, TARGETS),
            SNAPSHOT: online,
            TIMESTAMP: online,
        }
        version = old.version + 1 if old else 1
        root = new_root(keys, threshold, version, expiry(self.clock(), OFFLINE_LIFETIME))
        keyids = {*root.roles[ROOT].keyids, *(old.roles[ROOT].keyids if old else ())}
        body = sign(root, *self.folder.signers_of(keyids))
        metadata = Metadata[Root].from_bytes(body)
        for delegator in filter(None, (old, root)):
            if not delegator.get_verification_result(ROOT, metadata.signed_bytes, metadata.signatures):
                raise Refused(
                    f"a new root needs {delegator.roles[ROOT].threshold} of the keys of version {version - 1}"
                )
        self.folder.keep_root(version, body)
        self._create(metadata_key(ROOT, version), body)

    def _public(self, name: str) -> list[Key]:
        """The public half of a key, where it is here."""
        return [self.folder.key(name).public_key] if self.folder.has(name) else []

    def _create(self, key: str, body: bytes) -> None:
        if not self.bucket.create(key, body):
            raise Conflict(f"{self.bucket.uri}/{key} was written by somebody else at the same time")


class _OldRoot(Reader):
    """Reads what verifies with one root, also where a newer one exists."""

    def root(self) -> Root:
        return Metadata[Root].from_bytes(self.pinned_root).signed


def _keys_of(root: Root | None, role: str) -> list[Key]:
    return [root.keys[keyid] for keyid in root.roles[role].keyids] if root else []


def _version_of(key: str) -> int:
    version = key.removeprefix("metadata/").partition(".")[0]
    return int(version) if version.isdigit() else 0
