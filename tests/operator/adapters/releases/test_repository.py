"""Publishing: what a standard TUF client sees before, during and after, and what crashes and races leave."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from tuf.api.exceptions import ExpiredMetadataError, UnsignedMetadataError

from dram_operator.adapters.releases.bucket import Bucket, BucketSettings
from dram_operator.adapters.releases.repository import ReleaseRepository
from dram_operator.adapters.releases.roles import channel_path, metadata_key
from dram_operator.adapters.releases.state import Versions
from dram_operator.errors import BucketRestored, Conflict, KeyRetired, RepositoryInvalid
from tests.operator.adapters.releases.installation import Device, Installation

BOT = channel_path("tv", "support-bot")
OTHER = channel_path("radio", "jingles")


class PowerLost(Exception):
    """The process dies here."""


class Crashing(Bucket):
    """A bucket whose user dies right after its n-th write."""

    def __init__(self, settings: BucketSettings, after: int) -> None:
        super().__init__(settings)
        self.left = after

    def put(self, key: str, body: bytes) -> None:
        super().put(key, body)
        self._count()

    def create(self, key: str, body: bytes) -> bool:
        won = super().create(key, body)
        if won:
            self._count()
        return won

    def replace(self, key: str, body: bytes, etag: str) -> bool:
        won = super().replace(key, body, etag)
        self._count()
        return won

    def _count(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise PowerLost


def test_a_document_reaches_a_standard_client(installation: Installation) -> None:
    repository = installation.repository()
    versions = repository.publish({BOT: b"one", OTHER: b"two"})
    device = Device(installation)
    assert (device.read(BOT), device.read(OTHER), device.read("channels/tv/none.json")) == (b"one", b"two", None)
    assert versions.sequence == 2
    assert repository.document(BOT) == b"one"
    assert repository.document("channels/tv/none.json") is None


def test_a_withdrawn_document_is_gone(installation: Installation) -> None:
    repository = installation.repository()
    repository.publish({BOT: b"one", OTHER: b"two"})
    repository.publish({BOT: None})
    device = Device(installation)
    assert (device.read(BOT), device.read(OTHER)) == (None, b"two")


def test_nothing_is_written_when_nothing_changes(installation: Installation) -> None:
    first = installation.repository().publish({BOT: b"one"})
    before = {each.key for each in installation.bucket.list("")}
    assert installation.repository().publish({BOT: b"one"}) == first
    assert {each.key for each in installation.bucket.list("")} == before


def test_a_crash_after_any_write_leaves_the_old_or_the_new_state(installation: Installation) -> None:
    installation.repository().publish({BOT: b"0"})
    old, crashes = b"0", 0
    while True:
        new = f"{crashes + 1}".encode()
        try:
            installation.repository(Crashing(installation.settings, crashes + 1)).publish({BOT: new, OTHER: new})
        except PowerLost:
            crashes += 1
        else:
            break
        seen = Device(installation).read(BOT)
        committed = installation.repository().read()
        assert seen in (old, new)
        installation.repository().publish({BOT: new, OTHER: new})
        assert Device(installation).read(BOT) == Device(installation).read(OTHER) == new
        assert installation.repository().read().timestamp.version >= committed.timestamp.version
        old = new
    # two documents, their two bins, the snapshot and the timestamp
    assert crashes == 6


def test_versions_burnt_by_a_crash_are_skipped(installation: Installation) -> None:
    before = installation.repository().publish({BOT: b"0"})
    for _ in range(3):
        with pytest.raises(PowerLost):
            installation.repository(Crashing(installation.settings, 2)).publish({BOT: b"lost"})
    assert installation.repository().publish({BOT: b"1"}).sequence == before.sequence + 4
    assert Device(installation).read(BOT) == b"1"


def test_two_publishers_can_never_both_win(installation: Installation) -> None:
    barrier = Barrier(2)

    def publish(name: str) -> list[bool]:
        repository, won = installation.repository(), []
        for number in range(6):
            barrier.wait()
            try:
                repository.publish({BOT: f"{name} {number}".encode()})
            except Conflict:
                won.append(False)
            else:
                won.append(True)
        return won

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(publish, ["a", "b"])
    # Every commit that reported success stands in the chain, none twice.
    committed = installation.repository().read()
    assert any(first)
    assert any(second) or all(first)
    chain = _chain(installation, committed.snapshot.version)
    assert len(chain) == 1 + sum(first) + sum(second)


def _chain(installation: Installation, version: int) -> list[int]:
    """Versions of the committed snapshots, newest first."""
    from tuf.api.metadata import Metadata, Snapshot

    chain = []
    while version:
        chain.append(version)
        stored = installation.bucket.get(metadata_key("snapshot", version))
        assert stored is not None
        version = Metadata[Snapshot].from_bytes(stored.body).signed.unrecognized_fields["dramPrevious"]
    return chain


def test_a_writer_that_read_before_another_committed_is_refused(installation: Installation) -> None:
    class Late(Bucket):
        """Lets another writer commit right before its own commit."""

        def replace(self, key: str, body: bytes, etag: str) -> bool:
            installation.repository().publish({BOT: b"theirs"})
            return super().replace(key, body, etag)

    with pytest.raises(Conflict):
        installation.repository(Late(installation.settings)).publish({BOT: b"mine"})
    assert Device(installation).read(BOT) == b"theirs"


def test_a_commit_whose_answer_was_lost_is_no_conflict(installation: Installation) -> None:
    class Deaf(Bucket):
        def replace(self, key: str, body: bytes, etag: str) -> bool:
            assert super().replace(key, body, etag)
            return super().replace(key, body, etag)

    installation.repository(Deaf(installation.settings)).publish({BOT: b"one"})
    assert Device(installation).read(BOT) == b"one"


@pytest.mark.parametrize(
    ("hours", "want_timestamp", "want_snapshot", "want_bins"),
    [(3.9, False, False, False), (4, True, False, False), (23.9, True, False, False), (24, True, True, True)],
)
def test_what_is_due_is_signed_again(
    installation: Installation, hours: float, want_timestamp: bool, want_snapshot: bool, want_bins: bool
) -> None:
    repository = installation.repository()
    repository.publish({BOT: b"one"})
    installation.clock.pass_time(hours=0)
    before = repository.read()
    installation.clock.pass_time(hours=hours)
    repository.renew()
    after = repository.read()
    bin_name = after.bin_of(BOT)
    assert (after.timestamp.version > before.timestamp.version) is want_timestamp
    assert (after.snapshot.version > before.snapshot.version) is want_snapshot
    assert (after.roles[bin_name].version > before.roles[bin_name].version) is want_bins
    assert Device(installation).read(BOT) == b"one"


def test_without_renewal_a_device_takes_nothing_after_a_day(installation: Installation) -> None:
    installation.repository().publish({BOT: b"one"})
    installation.clock.pass_time(hours=24, seconds=1)
    with pytest.raises(ExpiredMetadataError):
        Device(installation).read(BOT)


def test_after_an_outage_of_a_month_the_operator_signs_what_expired(installation: Installation) -> None:
    installation.repository().publish({BOT: b"one"})
    installation.clock.pass_time(days=30)
    installation.repository().renew()
    assert Device(installation).read(BOT) == b"one"


def test_expiries_are_those_of_the_design(installation: Installation) -> None:
    expiries = installation.repository().expiries().by_role
    days = {role: (moment - installation.clock()).days for role, moment in expiries.items()}
    assert {days[role] for role in ("root", "targets", "channels", "artifacts")} == {365}
    assert {days[role] for role in ("snapshot", "channels-0", "channels-f")} == {7}
    assert days["timestamp"] == 1


def test_a_restored_bucket_is_noticed(installation: Installation) -> None:
    repository = installation.repository()
    repository.publish({BOT: b"one"})
    old = installation.bucket.get(metadata_key("timestamp"))
    assert old is not None
    floor = repository.publish({BOT: b"two"})
    installation.bucket.put(metadata_key("timestamp"), old.body)
    for act in _uses(installation.repository(), floor):
        with pytest.raises(BucketRestored, match=f"recover --above {floor.sequence}"):
            act()


def test_an_emptied_bucket_is_noticed(installation: Installation) -> None:
    floor = installation.repository().publish({BOT: b"one"})
    installation.bucket.delete([metadata_key("timestamp")])
    for act in _uses(installation.repository(), floor):
        with pytest.raises(BucketRestored, match="no timestamp"):
            act()
    with pytest.raises(RepositoryInvalid, match="keys init"):
        installation.repository().read()


def _uses(repository: ReleaseRepository, floor: Versions) -> list[Callable[[], object]]:
    return [
        lambda: repository.read(floor),
        lambda: repository.publish({BOT: b"three"}, floor),
        lambda: repository.renew(floor),
    ]


def test_what_the_keys_did_not_sign_is_not_built_upon(installation: Installation) -> None:
    installation.repository().publish({BOT: b"one"})
    committed = installation.repository().read()
    for key in (
        metadata_key("timestamp"),
        metadata_key("snapshot", committed.snapshot.version),
        metadata_key(committed.bin_of(BOT), committed.roles[committed.bin_of(BOT)].version),
    ):
        stored = installation.bucket.get(key)
        assert stored is not None
        installation.bucket.put(key, stored.body.replace(b'"version":', b'"version": 1'))
        with pytest.raises(RepositoryInvalid):
            installation.repository().publish({BOT: b"two"})
        installation.bucket.put(key, stored.body)


def test_a_retired_key_signs_nothing(installation: Installation) -> None:
    repository = installation.repository()
    installation.ceremony().rotate("operator")
    with pytest.raises(KeyRetired):
        repository.publish({BOT: b"one"})


def test_the_operators_key_cannot_release_an_artifact(installation: Installation) -> None:
    digest = installation.upload(model=b"weights")
    signer = installation.signer()
    forged = type(signer)(signer.bucket, signer.pinned_root, installation.folder.key("operator"), signer.clock)
    with pytest.raises(KeyRetired):
        forged.sign([digest])
    # nor is it believed when it writes such a file by itself
    committed = installation.repository().read()
    from dram_operator.adapters.releases.roles import sign

    body = sign(committed.roles["artifacts"], installation.folder.key("operator"))
    installation.bucket.create(metadata_key("artifacts", 2), body.replace(b'"version":1', b'"version":2'))
    installation.repository().publish({BOT: b"one"})
    assert installation.repository().read().roles["artifacts"].version == 1


def test_a_device_refuses_a_bin_that_the_release_key_signed(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = installation.repository()
    repository._operator = installation.folder.key("release")
    monkeypatch.setattr(repository, "_check_key", lambda _: None)
    repository.publish({BOT: b"one"})
    with pytest.raises(UnsignedMetadataError):
        Device(installation).read(BOT)
