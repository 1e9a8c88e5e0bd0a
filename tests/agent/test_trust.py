"""What the device believes over time: replays, clocks, rotations, servers in trouble. The attacks stand in test_attacks.py."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta

import pytest
from tuf.api.metadata import Metadata, Timestamp

from dram_agent.errors import Cause, Refused, Unreachable
from dram_agent.trust import Trust
from dram_operator.adapters.releases.roles import sign
from tests.agent.box import Box, Fleet
from tests.agent.site import Answer

TIMESTAMP = "metadata/timestamp.json"


def test_a_replayed_repository_is_refused_even_when_the_cache_was_lost(fleet: Fleet, box: Box) -> None:
    old, new = fleet.release(model=b"old"), fleet.release(model=b"new")
    fleet.publish(stable=old)
    replay = dict(fleet.site.files)
    fleet.publish(stable=new)
    assert box.trust.refresh() is not None
    for lose_cache in (False, True):
        if lose_cache:
            box.disk.remove("metadata")
            box.start()
        fleet.site.files = dict(replay)
        with pytest.raises(Refused) as caught:
            box.trust.refresh()
        assert caught.value.cause is Cause.REPLAYED
    assert box.refused == {Cause.REPLAYED: 2}


def test_a_clock_that_was_turned_back_makes_nothing_valid_again(fleet: Fleet, box: Box) -> None:
    fleet.publish()
    frozen = dict(fleet.site.files)
    fleet.installation.clock.pass_time(days=3)
    fleet.renew()
    box.trust.refresh()
    # the device forgets what it saw, its battery dies, and the first state is replayed
    for name in ("metadata", "seen.json"):
        box.disk.remove(name)
    fleet.site.files = frozen
    fleet.installation.clock.pass_time(days=-3)
    box.start()
    with pytest.raises(Refused) as caught:
        box.trust.refresh()
    assert caught.value.cause is Cause.EXPIRED


def test_the_build_date_is_the_least_that_the_clock_says(fleet: Fleet, box: Box) -> None:
    box.clock.wall = lambda: 0.0
    assert box.clock.now() == box.clock.built_at
    box.clock.prove(box.clock.built_at + 5)
    assert box.clock.now() == box.clock.built_at + 5


def test_a_clock_that_runs_ahead_leaves_no_trace(fleet: Fleet, box: Box) -> None:
    fleet.publish()
    box.trust.refresh()
    fleet.installation.clock.pass_time(days=900)
    with pytest.raises(Refused):
        box.trust.refresh()
    fleet.installation.clock.pass_time(days=-900)
    box.start()
    assert box.trust.refresh() is not None


def test_an_endless_trickle_is_cut_off_by_time(fleet: Fleet, box: Box) -> None:
    fleet.publish()
    seconds = iter(range(0, 10_000, 31))
    box.web.monotonic = lambda: float(next(seconds))
    fleet.site.answers[TIMESTAMP] = Answer(body=lambda: iter([b"x"] * 100))
    with pytest.raises(Refused) as caught:
        box.trust.refresh()
    assert caught.value.cause is Cause.SLOW


def test_a_trickle_is_not_waited_for_until_it_makes_a_whole_piece(fleet: Fleet, box: Box) -> None:
    fleet.publish()
    honest, given_up, sent = fleet.site.files[TIMESTAMP], threading.Event(), list[bytes]()

    def trickle() -> Iterator[bytes]:
        yield honest[:1]
        given_up.wait(5)
        sent.append(honest[1:])
        yield honest[1:]

    seconds = iter(range(0, 10_000, 61))
    box.web.monotonic = lambda: float(next(seconds))
    fleet.site.answers[TIMESTAMP] = Answer(body=trickle, length=len(honest))
    with pytest.raises(Refused) as caught:
        box.trust.refresh()
    assert caught.value.cause is Cause.SLOW
    assert not sent
    given_up.set()


def test_a_poll_without_news_is_one_small_request(fleet: Fleet, box: Box) -> None:
    fleet.publish()
    first = box.trust.poll()
    fleet.site.paths()
    assert box.trust.poll() == first
    assert [(each.path, each.status) for each in fleet.site.seen] == [(TIMESTAMP, 304)]
    fleet.attempt = 2
    fleet.publish()
    document = box.trust.poll()
    assert document is not None
    assert document.attempt == 2


def test_not_modified_does_not_prolong_what_expired(fleet: Fleet, box: Box) -> None:
    fleet.publish()
    box.trust.poll()
    fleet.installation.clock.pass_time(hours=25)
    with pytest.raises(Refused) as caught:
        box.trust.poll()
    assert caught.value.cause is Cause.EXPIRED


@pytest.mark.parametrize(
    ("answer", "want"),
    [
        (Answer(503, headers={"Retry-After": "120"}), 120.0),
        (Answer(429, headers={"Retry-After": "Thu, 01 May 2031 12:02:00 GMT"}), 120.0),
        (Answer(503, headers={"Retry-After": "soon"}), None),
        (Answer(503, headers={"Retry-After": "\N{SUPERSCRIPT TWO}"}), None),
        (Answer(503, headers={"Retry-After": "Thu, 01 May 2031 12:02:00 -0000"}), 120.0),
        (Answer(503, headers={"Retry-After": "999999999"}), 86400.0),
        (Answer(503, headers={"Retry-After": "Fri, 31 Dec 9999 23:59:59 GMT"}), 86400.0),
        (Answer(500), None),
        (Answer(302, headers={"Location": "/elsewhere"}), None),
    ],
)
def test_a_server_in_trouble_is_no_refusal(fleet: Fleet, box: Box, answer: Answer, want: float | None) -> None:
    fleet.publish()
    box.web.wall = lambda: fleet.installation.clock().timestamp()
    fleet.site.files["elsewhere"] = fleet.site.files[TIMESTAMP]
    fleet.site.answers[TIMESTAMP] = answer
    with pytest.raises(Unreachable) as caught:
        box.trust.poll()
    assert caught.value.retry_after == want
    assert not box.refused


def test_no_network_is_no_refusal(fleet: Fleet, box: Box) -> None:
    box.web.settings = replace(box.web.settings, url="http://127.0.0.1:9")
    with pytest.raises(Unreachable):
        box.trust.poll()
    assert not box.refused


@pytest.mark.parametrize("role", ["root", "targets", "release", "operator"])
def test_a_rotation_while_the_device_was_away_is_followed(fleet: Fleet, box: Box, role: str) -> None:
    fleet.publish()
    box.trust.refresh()
    for _ in range(3):
        fleet.installation.clock.pass_time(days=100)
        fleet.installation.ceremony().rotate(role)
    fleet.installation.ceremony().recover()
    fleet.attempt = 7
    fleet.publish()
    document = box.trust.poll()
    assert document is not None
    assert document.attempt == 7
    assert not box.refused


def forge(fleet: Fleet, change: Callable[[Timestamp], None]) -> None:
    """A timestamp that who stole the operator's key has signed."""
    signed = Metadata[Timestamp].from_bytes(fleet.site.files[TIMESTAMP]).signed
    change(signed)
    fleet.site.files[TIMESTAMP] = sign(signed, fleet.installation.folder.key("operator"))


def test_a_fast_forward_with_a_stolen_key_is_undone_by_rotation(fleet: Fleet, box: Box) -> None:
    fleet.publish()
    honest = fleet.site.files[TIMESTAMP]
    forge(fleet, lambda signed: setattr(signed, "version", 2**31))
    box.trust.refresh()
    fleet.site.files[TIMESTAMP] = honest
    with pytest.raises(Refused) as caught:
        box.trust.refresh()
    assert caught.value.cause is Cause.REPLAYED
    fleet.installation.ceremony().rotate("operator")
    fleet.publish()
    assert box.trust.refresh() is not None


def test_a_time_that_a_stolen_key_proved_is_undone_by_rotation(fleet: Fleet, box: Box) -> None:
    fleet.publish()
    forge(fleet, lambda signed: setattr(signed, "expires", signed.expires + timedelta(days=3650)))
    box.trust.refresh()
    fleet.installation.clock.pass_time(hours=5)
    fleet.renew()
    box.start()
    with pytest.raises(Refused) as caught:
        box.trust.refresh()
    assert caught.value.cause is Cause.EXPIRED
    fleet.installation.ceremony().rotate("operator")
    fleet.publish()
    assert box.trust.refresh() is not None
    box.start()
    assert box.clock.now() == fleet.installation.clock().timestamp()


def test_a_rotation_that_was_seen_before_gives_no_time_back(fleet: Fleet, box: Box) -> None:
    """A device that lost its cache is shown the days before a rotation, and its battery is dead."""
    fleet.publish()
    replay = dict(fleet.site.files)
    fleet.installation.clock.pass_time(days=30)
    fleet.installation.ceremony().rotate("operator")
    fleet.publish()
    box.trust.refresh()
    box.disk.remove("metadata")
    fleet.installation.clock.pass_time(days=-30)
    fleet.site.files = replay
    box.start()
    with pytest.raises(Refused) as caught:
        box.trust.refresh()
    assert caught.value.cause is Cause.EXPIRED


def test_another_channels_document_under_our_name_is_refused(fleet: Fleet, box: Box) -> None:
    fleet.publish(channel="tv/other")
    with pytest.raises(Refused) as caught:
        box.trust.refresh()
    assert caught.value.cause is Cause.MISMATCH


def test_a_channel_without_document_is_none(fleet: Fleet, box: Box) -> None:
    fleet.copy()
    assert box.trust.refresh() is None


def test_what_nobody_signed_is_no_target(fleet: Fleet, box: Box) -> None:
    fleet.publish()
    box.trust.refresh()
    with pytest.raises(Refused) as caught:
        box.trust.target(f"artifacts/{'0' * 64}/manifest.json")
    assert caught.value.cause is Cause.UNSIGNED


def test_the_clients_clock_is_the_guarded_one(fleet: Fleet, box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """The TUF client has no public way to it; this fails when a new version of it no longer takes it."""
    fleet.publish()
    fleet.installation.clock.pass_time(days=-3650)
    box.clock.prove(fleet.installation.clock().timestamp() + 3660 * 86400)
    with pytest.raises(Refused) as caught:
        Trust(box.disk, box.web, box.clock, box.trust.pinned_root, box.trust.channel, box.count_refusal).refresh()
    assert caught.value.cause is Cause.EXPIRED
