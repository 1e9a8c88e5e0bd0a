"""Downloads: whole or not at all, by range where they broke off, never over what is served."""

import hashlib
from collections.abc import Iterator

import pytest

from dram_agent.document import Release
from dram_agent.errors import Cause, DiskFull, Refused, Unreachable
from dram_agent.slots import SPARE_BYTES, Slot
from tests.agent.box import Box, Fleet
from tests.agent.site import Answer

BODY = bytes(range(256)) * 400


@pytest.fixture
def release(fleet: Fleet, box: Box) -> Release:
    """A signed release that the device has metadata of."""
    made = fleet.release(model=BODY, card=b"# card")
    fleet.publish(stable=made)
    box.trust.refresh()
    fleet.site.paths()
    return made


def model_url(release: Release) -> str:
    return f"targets/artifacts/{release.digest}/{hashlib.sha256(BODY).hexdigest()}.model"


def fill(box: Box, release: Release, slot: Slot = Slot.A) -> None:
    box.slots.fill(slot, release.digest, release.artifacts[0].path)


def test_a_filled_slot_holds_every_byte(box: Box, release: Release) -> None:
    assert box.slots.held() == {}
    fill(box, release)
    held = box.slots.held()[Slot.A]
    assert held.release == release.digest
    assert box.disk.read("slots/a/model") == BODY
    assert box.disk.read("slots/a/card") == b"# card"


def test_a_download_goes_on_where_it_broke_off(fleet: Fleet, box: Box, release: Release) -> None:
    for cut in (1000, 50_000):
        fleet.site.break_after[model_url(release)] = cut
        with pytest.raises(Unreachable):
            fill(box, release)
        assert box.slots.held() == {}
    assert box.disk.read("slots/a/model.part") == BODY[:51_000]
    fill(box, release)
    ranges = [each.headers.get("Range") for each in fleet.site.seen if each.path == model_url(release)]
    assert ranges == [None, "bytes=1000-", "bytes=51000-"]
    assert box.disk.read("slots/a/model") == BODY


def begin(fleet: Fleet, box: Box, release: Release, half: bytes) -> None:
    """A download that broke off early, and what the disk has of it."""
    fleet.site.break_after[model_url(release)] = 10
    with pytest.raises(Unreachable):
        fill(box, release)
    box.disk.write("slots/a/model.part", half)
    fleet.site.seen.clear()


@pytest.mark.parametrize("half", [b"", BODY[:10], BODY, BODY + b"more"])
def test_a_server_without_ranges_begins_anew(fleet: Fleet, box: Box, release: Release, half: bytes) -> None:
    begin(fleet, box, release, half)
    fleet.site.ranges = False
    fill(box, release)
    assert box.disk.read("slots/a/model") == BODY


@pytest.mark.parametrize("status", [403, 404, 500, 502, 503])
def test_a_server_in_trouble_costs_nothing_that_is_here(fleet: Fleet, box: Box, release: Release, status: int) -> None:
    begin(fleet, box, release, BODY[:5000])
    fleet.site.answers[model_url(release)] = Answer(status)
    with pytest.raises(Unreachable):
        fill(box, release)
    fleet.site.answers.clear()
    fill(box, release)
    ranges = [each.headers.get("Range") for each in fleet.site.seen if each.path == model_url(release)]
    assert ranges == ["bytes=5000-", "bytes=5000-"]
    assert box.disk.read("slots/a/model") == BODY


def test_another_range_than_the_one_asked_for_begins_anew(fleet: Fleet, box: Box, release: Release) -> None:
    begin(fleet, box, release, BODY[:5000])
    whole = {"Content-Range": f"bytes 0-{len(BODY) - 1}/{len(BODY)}"}
    fleet.site.answers[model_url(release)] = Answer(206, BODY, whole)
    fill(box, release)
    assert box.disk.read("slots/a/model") == BODY


def test_a_half_that_rotted_is_found_out_and_fetched_again(fleet: Fleet, box: Box, release: Release) -> None:
    begin(fleet, box, release, b"y" * 500)
    with pytest.raises(Refused) as caught:
        fill(box, release)
    assert caught.value.cause is Cause.TAMPERED
    fill(box, release)
    assert box.disk.read("slots/a/model") == BODY


def test_a_half_of_another_artifact_is_not_gone_on_with(fleet: Fleet, box: Box, release: Release) -> None:
    """Models of all releases bear the same name; a candidate that was superseded on its way is no attack."""
    begin(fleet, box, release, BODY[:5000])
    other = fleet.release(model=BODY[::-1])
    fleet.publish(stable=other)
    box.trust.refresh()
    fill(box, other)
    assert box.disk.read("slots/a/model") == BODY[::-1]
    assert not box.refused


@pytest.mark.parametrize(
    ("body", "cause"),
    [(BODY[:-1] + b"\x00", Cause.TAMPERED), (BODY + b"more", Cause.OVERSIZED)],
)
def test_a_tampered_file_never_becomes_a_slot(
    fleet: Fleet, box: Box, release: Release, body: bytes, cause: Cause
) -> None:
    fleet.site.files[model_url(release)] = body
    with pytest.raises(Refused) as caught:
        fill(box, release)
    assert caught.value.cause is cause
    assert box.refused == {cause: 1}
    assert box.slots.held() == {}
    assert box.disk.read("slots/a/model") is None
    assert box.disk.read("slots/a/model.part") is None


def test_an_endless_file_is_cut_off_at_its_signed_length(fleet: Fleet, box: Box, release: Release) -> None:
    sent: list[int] = []

    def endless() -> Iterator[bytes]:
        for number in range(2000):
            sent.append(number)
            yield b"x" * 65536

    fleet.site.answers[model_url(release)] = Answer(body=endless)
    with pytest.raises(Refused) as caught:
        fill(box, release)
    assert caught.value.cause is Cause.OVERSIZED
    assert len(sent) < 1000


def test_a_tampered_manifest_never_becomes_a_slot(fleet: Fleet, box: Box, release: Release) -> None:
    path = f"targets/artifacts/{release.digest}/{release.digest}.manifest.json"
    fleet.site.files[path] = fleet.site.files[path].replace(b"model", b"MODEL")
    with pytest.raises(Refused) as caught:
        fill(box, release)
    assert caught.value.cause is Cause.MISMATCH


def test_a_manifest_under_another_digest_is_refused(
    fleet: Fleet, box: Box, release: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Signed, but not what its path says: the release key signs content, and the path is the content."""
    other = fleet.release(model=b"other")
    fleet.renew()
    box.trust.refresh()
    fine = box.trust.small_target
    monkeypatch.setattr(box.trust, "small_target", lambda _: fine(other.artifacts[0].path))
    with pytest.raises(Refused) as caught:
        fill(box, release)
    assert caught.value.cause is Cause.TAMPERED


def test_a_full_disk_is_noticed_before_the_first_byte(fleet: Fleet, box: Box, release: Release) -> None:
    box.free_bytes = SPARE_BYTES + len(BODY)
    with pytest.raises(DiskFull):
        fill(box, release)
    assert model_url(release) not in fleet.site.paths()
    box.free_bytes += 100
    fill(box, release)


def test_a_disk_that_fills_up_on_the_way_loses_the_idle_slot_only(
    box: Box, release: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(box, release)

    def no_space(_: int) -> None:
        raise OSError(28, "No space left on device")

    object.__setattr__(box.slots, "on_progress", no_space)
    with pytest.raises(DiskFull):
        fill(box, release, Slot.B)
    assert list(box.slots.held()) == [Slot.A]
    assert not box.disk.path("slots/b").exists()


def test_files_of_the_last_tenant_go_and_what_fits_is_kept(fleet: Fleet, box: Box, release: Release) -> None:
    fill(box, release)
    box.disk.write("slots/a/old/file", b"x")
    fleet.site.paths()
    fill(box, release)
    assert model_url(release) not in fleet.site.paths()
    assert box.disk.read("slots/a/old/file") is None


def test_a_file_that_rotted_is_fetched_again(fleet: Fleet, box: Box, release: Release) -> None:
    fill(box, release)
    box.disk.write("slots/a/model", BODY[:-1] + b"\x00")
    fill(box, release)
    assert box.disk.read("slots/a/model") == BODY


def test_a_release_that_is_gone_from_the_server_is_unreachable(fleet: Fleet, box: Box, release: Release) -> None:
    fleet.site.answers[model_url(release)] = Answer(404)
    with pytest.raises(Unreachable):
        fill(box, release)
