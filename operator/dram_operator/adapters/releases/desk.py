"""The desk where artifacts are taken in: what of one is there, what may be uploaded, and the release key where there is one.

Everything blocks: call it in a thread. Nothing is remembered but metadata files that never change.
"""

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from securesystemslib.signer import Signer

from dram_operator.adapters.releases.bucket import Bucket
from dram_operator.adapters.releases.repository import newest_offline
from dram_operator.adapters.releases.roles import ARTIFACTS, sha256_of, target_key
from dram_operator.adapters.releases.signing import (
    ReleaseSigner,
    grant_uploads,
    manifest_path,
    missing_files,
)
from dram_operator.adapters.releases.state import Reader
from dram_operator.errors import Refused
from dram_workers.release.contract import LARGEST_MANIFEST, MANIFEST, ArtifactFile, Upload


@dataclass(frozen=True)
class Standing:
    """What of an artifact is in the repository's bucket."""

    manifest: bytes | None = None
    """None until it was uploaded."""
    missing: tuple[ArtifactFile, ...] = ()
    """What it names and the bucket lacks."""

    @property
    def is_whole(self) -> bool:
        """Whether it can be signed."""
        return self.manifest is not None and not self.missing


class ReleaseDesk:
    """One installation's repository, as far as artifacts are concerned. Thread-safe."""

    def __init__(
        self, bucket: Bucket, pinned_root: bytes, clock: Callable[[], datetime], release_key: Signer | None = None
    ) -> None:
        self.bucket = bucket
        self._reader = Reader(bucket, pinned_root)
        self._signer = ReleaseSigner(bucket, pinned_root, release_key, clock) if release_key else None
        self._lock = threading.Lock()

    @property
    def can_sign(self) -> bool:
        """Whether the installation holds the release key."""
        return self._signer is not None

    def signed(self) -> frozenset[str]:
        """Digests of all artifacts that are signed: committed, or taken up by the next commit."""
        with self._lock:
            committed = self._reader.committed()
            artifacts = newest_offline(self.bucket, self._reader, committed).get(ARTIFACTS, committed.roles[ARTIFACTS])
        suffix = f"/{MANIFEST}"
        return frozenset(path.split("/")[1] for path in artifacts.targets if path.endswith(suffix))

    def manifest(self, digest: str) -> bytes | None:
        """An artifact's manifest; None until it was uploaded, or when what lies there is something else."""
        stored = self.bucket.get(target_key(manifest_path(digest), digest), most_bytes=LARGEST_MANIFEST)
        return stored.body if stored and sha256_of(stored.body) == digest else None

    def standing(self, digest: str) -> Standing:
        """What is there, by size and by the checksums that the server keeps. Refused when it could never be released."""
        body = self.manifest(digest)
        return Standing(body, tuple(missing_files(self.bucket, digest, body))) if body is not None else Standing()

    def grant(self, digest: str, files: Sequence[ArtifactFile]) -> list[Upload]:
        """Where files go; without any, where the manifest goes, with which everything begins."""
        return grant_uploads(self.bucket, digest, files or [ArtifactFile(path=MANIFEST, sha256=digest, size=0)])

    def sign(self, digest: str) -> None:
        """Sign a whole artifact with the release key; another artifact's signature at the same time is no matter."""
        if self._signer is None:
            raise Refused("this installation holds no release key")
        self._signer.sign([digest])

    def withdraw(self, digests: Iterable[str]) -> None:
        """Take artifacts out of what is signed; where the key is elsewhere nothing happens."""
        gone = sorted(digests)
        if self._signer is not None and gone:
            self._signer.sign((), withdraw=gone)
