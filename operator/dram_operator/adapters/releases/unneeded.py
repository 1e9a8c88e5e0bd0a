"""Artifacts that nobody needs any more: which ones they are, and taking them out of what is signed.

Their files go when the metadata that named them is pruned, as everything does; what was never signed goes at once.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from pydantic import ValidationError
from tuf.api.metadata import Metadata, Targets

from dram_agent.document import ChannelDocument, Release
from dram_operator.adapters.releases.bucket import Bucket
from dram_operator.adapters.releases.desk import ReleaseDesk
from dram_operator.adapters.releases.prune import prune
from dram_operator.adapters.releases.repository import ReleaseRepository, offline_versions
from dram_operator.adapters.releases.roles import ARTIFACTS, metadata_key, target_key
from dram_operator.adapters.releases.state import Committed
from dram_operator.errors import RepositoryInvalid

KEPT = timedelta(days=30)
"""How long an artifact stays that no channel names: a pipeline may sign it days before a rollout asks for it."""
UPLOADS = "targets/artifacts/"


@dataclass(frozen=True)
class Cleared:
    """What a clearing took away."""

    withdrawn: tuple[str, ...]
    """Digests that are no longer signed; their files go when nobody can hold metadata any more that names them."""
    deleted: tuple[str, ...]
    """Keys of the bucket."""


def clear(desk: ReleaseDesk, repository: ReleaseRepository, needed: Collection[str], now: datetime) -> Cleared:
    """Withdraw what is neither needed nor in a signed channel document, then delete what no reader can ask for."""
    committed = repository.read()
    used = {*needed, *_offered(desk.bucket, committed)}
    unused = _uploaded_before(desk.bucket, now - KEPT) - used
    withdrawn = tuple(sorted(unused & desk.signed())) if desk.can_sign else ()
    if withdrawn:
        desk.withdraw(withdrawn)
        repository.renew()
        committed = repository.read()
    deleted = prune(desk.bucket, committed, now)
    left = _never_signed(desk.bucket, unused)
    desk.bucket.delete(left)
    return Cleared(withdrawn, (*deleted, *left))


def digests_of(release: Release) -> Iterator[str]:
    """The artifacts that a release needs: one a class of devices."""
    yield release.digest
    for artifact in release.artifacts:
        yield artifact.path.split("/")[1]


def _offered(bucket: Bucket, committed: Committed) -> Iterator[str]:
    """Digests that signed channel documents name: status may be lost, a document is what devices obey."""
    for role in committed.roles.values():
        for path, file in role.targets.items():
            if path.startswith("channels/"):
                yield from _named(bucket, target_key(path, file.hashes["sha256"]))


def _named(bucket: Bucket, key: str) -> Iterator[str]:
    stored = bucket.get(key)
    try:
        document = ChannelDocument.decode(stored.body) if stored else None
    except ValidationError:
        document = None
    if document is None:
        raise RepositoryInvalid(f"{bucket.uri}/{key} cannot be read, so nobody knows what it needs")
    for release in (document.stable, document.candidate):
        if release:
            yield from digests_of(release)


def _uploaded_before(bucket: Bucket, moment: datetime) -> set[str]:
    """Digests none of whose files is younger."""
    newest: dict[str, datetime] = {}
    for each in bucket.list(UPLOADS):
        digest = each.key.split("/")[2]
        newest[digest] = max(each.modified, newest.get(digest, each.modified))
    return {digest for digest, modified in newest.items() if modified < moment}


def _never_signed(bucket: Bucket, unused: set[str]) -> list[str]:
    """Keys of unused uploads that no version of the signed artifacts names, not even one that awaits its commit."""
    named: set[str] = set()
    for version in offline_versions(bucket)[ARTIFACTS]:
        stored = bucket.get(metadata_key(ARTIFACTS, version))
        if stored:
            named.update(path.split("/")[1] for path in Metadata[Targets].from_bytes(stored.body).signed.targets)
    return [each.key for each in bucket.list(UPLOADS) if each.key.split("/")[2] in unused - named]
