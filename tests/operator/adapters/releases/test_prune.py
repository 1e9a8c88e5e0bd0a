"""Pruning: nothing that any reader may still need goes, everything else does."""

from datetime import UTC, datetime, timedelta

from tuf.api.metadata import Metadata, Timestamp

from dram_operator.adapters.releases.prune import prune
from dram_operator.adapters.releases.roles import channel_path, metadata_key
from dram_operator.adapters.releases.signing import manifest_path
from tests.operator.adapters.releases.installation import Device, FromBucket, Installation

BOT = channel_path("tv", "support-bot")
OTHER = channel_path("radio", "jingles")
LATER = datetime.now(UTC) + timedelta(days=400)
"""The server stamps objects with its own clock, so pruning is told a time far behind all of them."""


def keys(installation: Installation) -> set[str]:
    return {each.key for each in installation.bucket.list("")}


def pruned(installation: Installation, now: datetime) -> list[str]:
    return prune(installation.bucket, installation.repository().read(), now)


def test_a_reader_with_a_timestamp_that_is_still_valid_finds_everything(installation: Installation) -> None:
    repository = installation.repository()
    repository.publish({BOT: b"one"})
    slow = Device(installation)
    old = installation.bucket.get(metadata_key("timestamp"))
    assert old is not None
    repository.publish({BOT: b"two"})
    assert pruned(installation, datetime.now(UTC)) == []
    current = installation.bucket.get(metadata_key("timestamp"))
    assert current is not None
    installation.bucket.put(metadata_key("timestamp"), old.body)
    assert slow.read(BOT) == b"one"


def test_what_was_superseded_long_ago_goes(installation: Installation) -> None:
    repository = installation.repository()
    for number in range(4):
        repository.publish({BOT: f"{number}".encode(), OTHER: b"kept"})
    before = keys(installation)
    gone = pruned(installation, LATER)
    left = keys(installation)
    assert set(gone) == before - left
    # the last commit, and the one before it: nothing says how long ago the last one was made
    documents = [key for key in left if key.startswith("targets/channels/tv/")]
    snapshots = [key for key in left if key.endswith(".snapshot.json")]
    assert (len(documents), len(snapshots)) == (1, 1)
    assert (Device(installation).read(BOT), Device(installation).read(OTHER)) == (b"3", b"kept")
    assert pruned(installation, LATER) == []


def test_root_files_are_never_pruned(installation: Installation) -> None:
    newcomer = Device(installation)
    for role in ("root", "operator", "root"):
        installation.ceremony().rotate(role)
    installation.repository().publish({BOT: b"one"})
    pruned(installation, LATER)
    roots = sorted(key for key in keys(installation) if ".root." in key)
    assert roots == [f"metadata/{number}.root.json" for number in (1, 2, 3, 4)]
    assert newcomer.read(BOT) == b"one"


def test_an_artifact_stays_while_it_is_signed_or_waits_for_it(installation: Installation) -> None:
    signed, waiting, gone = (installation.upload(model=name) for name in (b"signed", b"waiting", b"gone"))
    installation.signer().sign([signed, gone])
    installation.repository().renew()
    installation.signer().sign((), withdraw=[gone])
    installation.repository().renew()
    for _ in range(2):
        installation.clock.pass_time(days=1)
        installation.repository().renew()
    pruned(installation, LATER)
    left = {key.split("/")[2] for key in keys(installation) if key.startswith("targets/artifacts/")}
    assert left == {signed, waiting}
    assert Device(installation).read(manifest_path(signed)) is not None


def test_a_signature_that_waits_for_the_operator_stays(installation: Installation) -> None:
    digest = installation.upload(model=b"weights")
    installation.signer().sign([digest])
    pruned(installation, LATER)
    installation.repository().renew()
    assert Device(installation).read(manifest_path(digest)) is not None


def test_what_a_crash_left_goes(installation: Installation) -> None:
    installation.bucket.put("targets/channels/tv/0123.orphan.json", b"x")
    installation.bucket.put(metadata_key("snapshot", 2), b"half")
    installation.bucket.put(metadata_key("channels-3", 2), (installation.bucket.get("metadata/1.channels-3.json")).body)  # type: ignore[union-attr]
    installation.repository().publish({BOT: b"one"})
    gone = pruned(installation, LATER)
    assert {"targets/channels/tv/0123.orphan.json", "metadata/2.snapshot.json", "metadata/2.channels-3.json"} <= {*gone}
    assert Device(installation).read(BOT) == b"one"


def test_a_document_that_is_pruned_while_it_is_published_again_is_put_back(installation: Installation) -> None:
    repository = installation.repository()
    repository.publish({BOT: b"one"})

    class Racing(type(installation.bucket)):  # type: ignore[misc]
        def replace(self, key: str, body: bytes, etag: str) -> bool:
            self.delete([each.key for each in self.list("targets/channels/")])
            return bool(super().replace(key, body, etag))

    installation.repository(Racing(installation.settings)).publish({BOT: b"two"})
    assert Device(installation).read(BOT) == b"two"


def test_the_timestamp_names_only_what_is_there(installation: Installation) -> None:
    repository = installation.repository()
    for number in range(3):
        repository.publish({BOT: f"{number}".encode()})
    pruned(installation, LATER)
    stored = installation.bucket.get(metadata_key("timestamp"))
    assert stored is not None
    snapshot = Metadata[Timestamp].from_bytes(stored.body).signed.snapshot_meta.version
    assert next(FromBucket(installation.bucket)._fetch(metadata_key("snapshot", snapshot)))
