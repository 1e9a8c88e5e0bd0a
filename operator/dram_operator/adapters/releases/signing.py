"""Signing an artifact for release: what lies in the bucket is hashed again, then its manifest and files become targets.

The new version of `artifacts` is written, not committed: the operator takes it up with its next commit. So the release
key may be in the operator's Secret, in a KMS behind securesystemslib's Signer, or in a pipeline that the operator waits for.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from pydantic import ValidationError
from securesystemslib.signer import Signer
from tuf.api.metadata import TargetFile, Targets

from dram_operator.adapters.releases.bucket import Bucket, Head
from dram_operator.adapters.releases.repository import newest_offline, offline_versions
from dram_operator.adapters.releases.roles import (
    ARTIFACTS,
    OFFLINE_LIFETIME,
    TARGETS,
    expiry,
    metadata_key,
    sha256_of,
    sign,
    target_key,
)
from dram_operator.adapters.releases.state import Reader
from dram_operator.errors import Conflict, KeyRetired, Refused
from dram_workers.release.contract import MANIFEST, ArtifactFile, ArtifactManifest, Upload, is_beside_manifest

TRIES = 10
GRANT_SECONDS = 3600


def manifest_path(digest: str) -> str:
    """The target path of an artifact's manifest."""
    return f"artifacts/{digest}/{MANIFEST}"


def missing_files(bucket: Bucket, digest: str, manifest: bytes) -> list[ArtifactFile]:
    """What of an artifact is not in the bucket as its manifest names it, the manifest itself last.

    Refused when the manifest is not the one of the digest, or names what cannot be a file beside it.
    """
    files = [*_files_of(digest, manifest), ArtifactFile(path=MANIFEST, sha256=digest, size=len(manifest))]
    return [file for file in files if not bucket.holds(file_key(digest, file), file.size, file.sha256)]


def grant_uploads(
    bucket: Bucket, digest: str, files: Sequence[ArtifactFile], seconds: int = GRANT_SECONDS
) -> list[Upload]:
    """Where files of an artifact go; a URL takes nothing but the bytes of its digest."""
    uploads = []
    for file in files:
        url, headers = bucket.grant_upload(file_key(digest, file), file.sha256, seconds)
        uploads.append(Upload(path=file.path, url=url, headers=headers))
    return uploads


def file_key(digest: str, file: ArtifactFile) -> str:
    """The bucket's key of an artifact's file."""
    return target_key(f"artifacts/{digest}/{file.path}", file.sha256)


@dataclass(frozen=True)
class ReleaseSigner:
    """Signs artifacts with the release key."""

    bucket: Bucket
    pinned_root: bytes
    signer: Signer
    clock: Callable[[], datetime]

    def sign(self, digests: Sequence[str], withdraw: Sequence[str] = ()) -> int:
        """Add artifacts to what may be released, or take some away; returns the version that says so.

        Nothing is written when nothing changes. Refused when an uploaded file is not what the manifest says.
        """
        added = {path: file for digest in digests for path, file in self._verified(digest).items()}
        reader = Reader(self.bucket, self.pinned_root)
        for _ in range(TRIES):
            # Before what it builds upon is read: a version that another signer writes from now on has this very name.
            version = max(offline_versions(self.bucket)[ARTIFACTS], default=0) + 1
            committed = reader.committed()
            newest = {**committed.roles, **newest_offline(self.bucket, reader, committed)}
            self._check_key(newest[TARGETS])
            current = newest[ARTIFACTS]
            gone = tuple(f"artifacts/{digest}/" for digest in withdraw)
            kept = {path: file for path, file in current.targets.items() if not path.startswith(gone)}
            if {**kept, **added} == current.targets:
                return current.version
            signed = Targets(version, expires=expiry(self.clock(), OFFLINE_LIFETIME), targets={**kept, **added})
            if self.bucket.create(metadata_key(ARTIFACTS, version), sign(signed, self.signer)):
                return version
        raise Conflict(f"{self.bucket.uri}: {TRIES} other signers were faster")

    def _check_key(self, targets: Targets) -> None:
        if self.signer.public_key.keyid not in targets.get_delegated_role(ARTIFACTS).keyids:
            raise KeyRetired("this is not the release key, or no longer")

    def _verified(self, digest: str) -> dict[str, TargetFile]:
        """The targets of an artifact, each file hashed as it lies in the bucket."""
        stored = self.bucket.get(target_key(manifest_path(digest), digest))
        if stored is None:
            raise Refused(f"the manifest of {digest} is not in {self.bucket.uri}")
        targets = {}
        for file in _files_of(digest, stored.body):
            path = f"artifacts/{digest}/{file.path}"
            self._check(path, file)
            targets[path] = TargetFile(file.size, {"sha256": file.sha256}, path)
        path = manifest_path(digest)
        return {**targets, path: TargetFile(len(stored.body), {"sha256": digest}, path)}

    def _check(self, path: str, file: ArtifactFile) -> None:
        """The server's own checksum counts; where it keeps none, the file is read."""
        key, digest, size = target_key(path, file.sha256), hashlib.sha256(), 0
        found = self.bucket.head(key)
        if found is None:
            raise Refused(f"{path} is not in {self.bucket.uri}")
        if found.sha256 is None:
            for chunk in self.bucket.chunks(key):
                digest.update(chunk)
                size += len(chunk)
            found = Head(size, digest.hexdigest())
        if (found.sha256, found.size_bytes) != (file.sha256, file.size):
            raise Refused(f"{path} in {self.bucket.uri} is not the file that the manifest names")


def _files_of(digest: str, body: bytes) -> tuple[ArtifactFile, ...]:
    """The files that a manifest names. Refused when it is another manifest, or names what cannot be a file beside it."""
    if sha256_of(body) != digest:
        raise Refused(f"the manifest is not that of {digest}")
    try:
        files = ArtifactManifest.model_validate_json(body).files
    except ValidationError as error:
        raise Refused(f"the manifest of {digest} cannot be read") from error
    for file in files:
        if not is_beside_manifest(file.path):
            raise Refused(f"the manifest of {digest} names {file.path!r}, which is no path of a file beside it")
    return files
