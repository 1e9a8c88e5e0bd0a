"""Keys: beginning, rotation of every role, and recovery, seen from devices that missed some of it."""

import shutil
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier

import pytest
from tuf.api.exceptions import BadVersionNumberError, UnsignedMetadataError

from dram_operator.adapters.releases.bucket import Bucket
from dram_operator.adapters.releases.keys import KeyFolder
from dram_operator.adapters.releases.roles import channel_path, metadata_key, sign
from dram_operator.adapters.releases.signing import manifest_path
from dram_operator.errors import Conflict, KeyRetired, Refused
from tests.operator.adapters.releases.installation import Device, Installation
from tests.operator.adapters.releases.test_repository import Crashing, PowerLost

BOT = channel_path("tv", "support-bot")
ROLES = ("root", "targets", "release", "operator")
GIVEN = ("root-1", "targets", "release", "operator")


def test_key_files_are_for_their_owner_only(installation: Installation) -> None:
    files = sorted(installation.folder.path.glob("*.pem"))
    assert [file.stem for file in files] == ["operator", "release", "root-1", "root-2", "root-3", "targets"]
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}
    assert all(b"PRIVATE KEY" in file.read_bytes() for file in files)


def test_a_second_init_changes_nothing(installation: Installation) -> None:
    before = {file: file.read_bytes() for file in installation.folder.path.rglob("*.*")}
    with pytest.raises(Refused, match="holds a repository"):
        installation.ceremony().init(3, 2)
    with pytest.raises(Refused, match="threshold"):
        installation.ceremony().init(2, 3)
    assert {file: file.read_bytes() for file in installation.folder.path.rglob("*.*")} == before


def with_given_keys(installation: Installation, folder: Path) -> Installation:
    """Another installation: no repository yet, and a folder with one key a role, as a Secret is mounted."""
    settings = replace(installation.settings, uri=f"{installation.settings.uri}-{uuid.uuid4().hex}")
    given = folder / uuid.uuid4().hex
    given.mkdir()
    for name in GIVEN:
        shutil.copy(installation.folder.file(name), given)
    return replace(installation, settings=settings, folder=KeyFolder(given), bucket=Bucket(settings))


def restarted(installation: Installation, folder: Path) -> Installation:
    """The same after a restart: the bucket and the keys are left, nothing else."""
    fresh = with_given_keys(installation, folder)
    return replace(fresh, settings=installation.settings, bucket=installation.bucket)


def test_a_repository_is_begun_once_with_keys_that_are_there(installation: Installation, tmp_path: Path) -> None:
    begun = with_given_keys(installation, tmp_path)
    root = begun.ceremony().ensure()
    begun.repository().publish({BOT: b"one"})
    listed = {each.key for each in begun.bucket.list("")}
    assert restarted(begun, tmp_path).ceremony().ensure() == root == begun.first_root
    assert {each.key for each in begun.bucket.list("")} == listed
    assert Device(begun).read(BOT) == b"one"


def test_a_begin_that_crashes_anywhere_is_finished_by_the_next(installation: Installation, tmp_path: Path) -> None:
    whole = with_given_keys(installation, tmp_path)
    whole.ceremony().ensure()
    writes = len(list(whole.bucket.list("")))
    for number in (writes // 2, writes - 1):
        begun = with_given_keys(installation, tmp_path)
        with pytest.raises(PowerLost):
            begun.ceremony(Crashing(begun.settings, number)).ensure()
        assert begun.bucket.get(metadata_key("timestamp")) is None
        again = restarted(begun, tmp_path)
        root = again.ceremony().ensure()
        (again.folder.path / "roots" / "1.root.json").write_bytes(root)
        again.repository().publish({BOT: b"one"})
        assert Device(again).read(BOT) == b"one"


def test_of_two_that_begin_at_once_both_find_it_begun_in_the_end(installation: Installation, tmp_path: Path) -> None:
    begun = with_given_keys(installation, tmp_path)
    barrier = Barrier(2)

    def begin(_: int) -> bytes | None:
        own = restarted(begun, tmp_path)
        barrier.wait()
        try:
            return own.ceremony(Bucket(own.settings)).ensure()
        except Conflict:
            return None

    with ThreadPoolExecutor(2) as pool:
        first = set(pool.map(begin, range(2)))
    roots = {restarted(begun, tmp_path).ceremony().ensure() for _ in range(2)}
    assert len(roots) == 1
    assert first <= {None, *roots}


@pytest.mark.parametrize("role", ROLES)
def test_a_rotation_keeps_every_device_and_every_release(installation: Installation, role: str) -> None:
    digest = installation.upload(model=b"weights")
    installation.signer().sign([digest])
    installation.repository().publish({BOT: b"one"})
    known, newcomer = Device(installation), Device(installation)
    assert known.read(BOT) == b"one"
    before = {file.stem: file.read_bytes() for file in installation.folder.path.glob("*.pem")}

    installation.ceremony().rotate(role)

    after = {file.stem: file.read_bytes() for file in installation.folder.path.glob("*.pem")}
    changed = {name for name in before if before[name] != after[name]}
    assert changed == ({"root-1", "root-2", "root-3"} if role == "root" else {role})
    for device in (known, newcomer):
        assert device.read(BOT) == b"one"
        assert device.read(manifest_path(digest)) is not None
    installation.repository().publish({BOT: b"two"})
    assert known.read(BOT) == newcomer.read(BOT) == b"two"
    other = installation.upload(model=b"more")
    installation.signer().sign([other])
    installation.repository().renew()
    assert known.read(manifest_path(other)) is not None


def test_a_device_that_missed_several_rotations_comes_along(installation: Installation) -> None:
    installation.repository().publish({BOT: b"one"})
    asleep = Device(installation)
    assert asleep.read(BOT) == b"one"
    for role in (*ROLES, *ROLES):
        installation.clock.pass_time(days=60)
        installation.ceremony().rotate(role)
    installation.ceremony().recover()
    assert asleep.read(BOT) == b"one"


@pytest.mark.parametrize("role", ["targets", "release", "operator"])
def test_a_rotated_key_is_worth_nothing(installation: Installation, role: str) -> None:
    digest = installation.upload(model=b"weights")
    old_operator, old_signer = installation.repository(), installation.signer()
    installation.ceremony().rotate(role)
    if role == "operator":
        with pytest.raises(KeyRetired):
            old_operator.publish({BOT: b"one"})
    elif role == "release":
        with pytest.raises(KeyRetired):
            old_signer.sign([digest])
    else:
        retired = next(installation.folder.path.glob("targets.retired-*.pem"))
        thief = KeyFolder(retired.parent)
        committed = installation.repository().read()
        forged = sign(committed.roles["targets"], thief.key(retired.stem))
        installation.bucket.create(metadata_key("targets", 99), forged)
        installation.repository().publish({BOT: b"one"})
        assert installation.repository().read().roles["targets"].version != 99


def test_root_keys_below_the_threshold_rotate_nothing(installation: Installation) -> None:
    for name in ("root-2", "root-3"):
        installation.folder.file(name).unlink()
    before = {each.key for each in installation.bucket.list("")}
    for role in ROLES:
        with pytest.raises(Refused, match="needs 2 root keys, here are 1"):
            installation.ceremony().rotate(role)
    assert {each.key for each in installation.bucket.list("")} == before


@pytest.mark.parametrize("role", ["root", "operator"])
def test_a_rotation_that_crashes_anywhere_is_finished_by_recover(installation: Installation, role: str) -> None:
    installation.repository().publish({BOT: b"0"})
    crashes = 0
    known = Device(installation)
    while True:
        try:
            installation.ceremony(Crashing(installation.settings, crashes + 1)).rotate(role)
        except PowerLost:
            crashes += 1 if role == "root" else 7
        else:
            break
        installation.ceremony().recover()
        assert known.read(BOT) == Device(installation).read(BOT) == b"0"
        installation.repository().publish({BOT: b"x"})
        installation.repository().publish({BOT: b"0"})
    assert crashes


def test_a_restored_bucket_is_recovered_above_what_devices_saw(installation: Installation) -> None:
    repository = installation.repository()
    repository.publish({BOT: b"one"})
    saved = {each.key: installation.bucket.get(each.key) for each in installation.bucket.list("")}
    installation.ceremony().rotate("root")
    floor = repository.publish({BOT: b"two"})
    device = Device(installation)
    assert device.read(BOT) == b"two"

    installation.bucket.delete([each.key for each in installation.bucket.list("")])
    for key, stored in saved.items():
        assert stored is not None
        installation.bucket.put(key, stored.body)
    with pytest.raises(BadVersionNumberError):
        device.read(BOT)
    installation.ceremony().recover(above=floor.sequence)
    assert device.read(BOT) == b"one"
    assert installation.repository().publish({BOT: b"three"}, floor).sequence > floor.sequence
    assert device.read(BOT) == b"three"


def test_a_lost_bucket_begins_again_empty_for_the_same_devices(installation: Installation) -> None:
    floor = installation.repository().publish({BOT: b"one"})
    device = Device(installation)
    assert device.read(BOT) == b"one"
    installation.bucket.delete([each.key for each in installation.bucket.list("")])
    installation.ceremony().recover(above=floor.sequence)
    assert device.read(BOT) is None
    installation.repository().publish({BOT: b"two"}, floor)
    assert device.read(BOT) == b"two"


def test_devices_come_back_from_a_fast_forward_after_the_key_is_rotated(installation: Installation) -> None:
    from tuf.api.metadata import Metadata, Timestamp

    installation.repository().publish({BOT: b"one"})
    device = Device(installation)
    stored = installation.bucket.get(metadata_key("timestamp"))
    assert stored is not None
    thief = Metadata[Timestamp].from_bytes(stored.body).signed
    thief.version = 2**31
    installation.bucket.put(metadata_key("timestamp"), sign(thief, installation.folder.key("operator")))
    assert device.read(BOT) == b"one"
    installation.bucket.put(metadata_key("timestamp"), stored.body)
    with pytest.raises(BadVersionNumberError):
        device.read(BOT)
    installation.ceremony().rotate("operator")
    installation.repository().publish({BOT: b"two"})
    assert device.read(BOT) == b"two"


def test_a_root_that_too_few_old_keys_signed_is_refused_by_devices(installation: Installation) -> None:
    from tuf.api.metadata import Metadata, Root

    root = Metadata[Root].from_bytes(installation.first_root).signed
    root.version = 2
    installation.bucket.create(metadata_key("root", 2), sign(root, installation.folder.root_keys()[0]))
    with pytest.raises(UnsignedMetadataError):
        Device(installation).read(BOT)


def test_two_folders_cannot_both_make_the_next_root(installation: Installation) -> None:
    ceremony = installation.ceremony()
    content = ceremony._content()
    assert content.root is not None
    ceremony.rotate("root")
    with pytest.raises(Conflict):
        ceremony._write_root(content.root, 2)
