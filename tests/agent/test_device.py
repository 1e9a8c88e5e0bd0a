"""The update loop over real files and a real server: every way to a release and back, and a power loss at every moment."""

import hashlib
import json

import pytest

from dram_agent.disk import RESERVE, Disk
from dram_agent.document import Release
from dram_agent.errors import Cause, Unreachable
from dram_agent.standing import Arm, Phase, Standing
from dram_agent.state import Why
from dram_agent.update import CRASH_LIMIT, SOAK_SECONDS, Device
from tests.agent.box import Box, Fleet
from tests.agent.site import Answer

TIMESTAMP = "metadata/timestamp.json"


@pytest.fixture
def stable(fleet: Fleet) -> Release:
    return fleet.release(model=b"stable" * 100)


@pytest.fixture
def candidate(fleet: Fleet) -> Release:
    return fleet.release(model=b"candidate" * 100)


@pytest.fixture
def on_stable(fleet: Fleet, box: Box, stable: Release) -> Box:
    """A device that runs stable, confirmed."""
    fleet.publish(stable=stable)
    box.boot()
    box.updater.cycle()
    fleet.installation.clock.pass_time(seconds=SOAK_SECONDS)
    box.updater.tick()
    box.runtime.log.clear()
    box.phases.clear()
    return box


def soak(box: Box) -> None:
    box.fleet.installation.clock.pass_time(seconds=SOAK_SECONDS)
    box.updater.tick()


def served(box: Box) -> bytes | None:
    """The very bytes that a restart would serve."""
    active = box.updater.state.active
    return None if active is None else box.disk.read(f"slots/{active}/model")


def test_a_candidate_is_downloaded_tested_served_and_confirmed(
    fleet: Fleet, on_stable: Box, stable: Release, candidate: Release
) -> None:
    fleet.publish(stable, candidate)
    on_stable.updater.cycle()
    assert on_stable.runtime.log == [f"test {candidate.digest[:4]}", f"serve {candidate.digest[:4]}"]
    assert on_stable.phases == [Phase.DOWNLOADING, Phase.TESTING, Phase.SOAKING, Phase.SOAKING]
    soak(on_stable)
    assert on_stable.phases[-1] is Phase.CURRENT
    assert served(on_stable) == b"candidate" * 100


def test_metadata_is_read_again_right_before_activation(
    fleet: Fleet, on_stable: Box, stable: Release, candidate: Release
) -> None:
    fleet.publish(stable, candidate)
    fill = type(on_stable.slots).fill

    def aborted_meanwhile(*arguments: object) -> object:
        held = fill(on_stable.slots, *arguments[1:])  # type: ignore[arg-type]
        fleet.publish(stable, None, denied=(candidate.digest,))
        return held

    type(on_stable.slots).fill = aborted_meanwhile  # type: ignore[assignment,method-assign]
    try:
        on_stable.updater.cycle()
    finally:
        type(on_stable.slots).fill = fill  # type: ignore[method-assign]
    assert on_stable.runtime.log == []
    assert served(on_stable) == b"stable" * 100


def test_a_failed_smoke_test_changes_nothing_but_the_record(
    fleet: Fleet, on_stable: Box, stable: Release, candidate: Release
) -> None:
    on_stable.runtime.verdicts[candidate.digest] = Why.SMOKE
    fleet.publish(stable, candidate)
    for _ in range(2):
        on_stable.updater.cycle()
    assert on_stable.runtime.log == [f"test {candidate.digest[:4]}"]
    assert on_stable.phases[-1] is Phase.FELL_BACK
    assert served(on_stable) == b"stable" * 100
    fleet.attempt = 2
    fleet.publish(stable, candidate)
    del on_stable.runtime.verdicts[candidate.digest]
    on_stable.updater.cycle()
    assert on_stable.runtime.serving == candidate.digest


def test_a_crash_loop_brings_the_device_back(fleet: Fleet, on_stable: Box, stable: Release, candidate: Release) -> None:
    fleet.publish(stable, candidate)
    on_stable.updater.cycle()
    on_stable.runtime.healthy = False
    for _ in range(CRASH_LIMIT):
        on_stable.updater.tick()
        assert on_stable.runtime.serving == candidate.digest
        on_stable.updater.count_start()
    on_stable.updater.tick()
    assert on_stable.runtime.serving == stable.digest
    on_stable.runtime.healthy = True
    on_stable.updater.cycle()
    assert on_stable.runtime.serving == stable.digest
    assert on_stable.phases[-1] is Phase.FELL_BACK


def test_reboots_in_the_middle_of_a_trial_count(
    fleet: Fleet, on_stable: Box, stable: Release, candidate: Release
) -> None:
    fleet.publish(stable, candidate)
    on_stable.updater.cycle()
    for _ in range(CRASH_LIMIT):
        on_stable.updater.count_start()
        on_stable.boot()
        assert on_stable.runtime.serving == candidate.digest
    on_stable.runtime.healthy = False
    on_stable.updater.tick()
    assert on_stable.runtime.serving == stable.digest


def test_a_rollback_is_a_step_without_download(
    fleet: Fleet, on_stable: Box, stable: Release, candidate: Release
) -> None:
    fleet.publish(stable, candidate)
    on_stable.updater.cycle()
    soak(on_stable)
    fleet.publish(stable, None, denied=(candidate.digest,))
    fleet.site.paths()
    on_stable.updater.cycle()
    assert on_stable.runtime.serving == stable.digest
    assert [path for path in fleet.site.paths() if path.startswith("targets/artifacts/")] == []


def test_a_second_candidate_never_overwrites_stable(
    fleet: Fleet, on_stable: Box, stable: Release, candidate: Release
) -> None:
    following = fleet.release(model=b"next" * 100)
    fleet.publish(stable, candidate)
    on_stable.updater.cycle()
    fleet.attempt = 2
    fleet.publish(stable, following)
    on_stable.updater.cycle()
    assert on_stable.runtime.serving == following.digest
    assert {held.release for held in on_stable.slots.held().values()} == {stable.digest, following.digest}


def test_a_lost_lease_brings_the_device_to_stable_and_back(
    fleet: Fleet, on_stable: Box, stable: Release, candidate: Release
) -> None:
    fleet.publish(stable, candidate)
    on_stable.updater.cycle()
    soak(on_stable)
    fleet.site.answers[TIMESTAMP] = Answer(503)
    fleet.installation.clock.pass_time(hours=23)
    on_stable.updater.cycle()
    assert on_stable.runtime.serving == candidate.digest
    fleet.installation.clock.pass_time(hours=2)
    on_stable.boot()
    on_stable.updater.cycle()
    assert on_stable.runtime.serving == stable.digest
    fleet.site.answers.clear()
    fleet.renew()
    on_stable.updater.cycle()
    assert on_stable.runtime.serving == candidate.digest


def test_a_short_lease_is_kept_by_every_poll(fleet: Fleet, on_stable: Box, stable: Release, candidate: Release) -> None:
    fleet.publish(stable, candidate, candidate_lease_seconds=300)
    for _ in range(15):
        on_stable.updater.cycle()
        fleet.installation.clock.pass_time(seconds=60)
        on_stable.updater.tick()
    assert on_stable.runtime.log == [f"test {candidate.digest[:4]}", f"serve {candidate.digest[:4]}"]


def test_a_poll_that_is_kept_waiting_keeps_no_device_on_a_candidate(
    fleet: Fleet, on_stable: Box, stable: Release, candidate: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet.publish(stable, candidate)
    on_stable.updater.cycle()
    soak(on_stable)
    served: list[str | None] = []

    def hang() -> None:
        fleet.installation.clock.pass_time(hours=25)
        on_stable.updater.tick()
        served.append(on_stable.runtime.serving)
        raise Unreachable("it trickled for a day")

    monkeypatch.setattr(on_stable.trust, "poll", hang)
    on_stable.updater.cycle()
    assert served == [stable.digest]


def test_a_device_that_comes_back_after_months_gets_what_is_desired_now(
    fleet: Fleet, on_stable: Box, stable: Release, candidate: Release
) -> None:
    fleet.publish(stable, candidate)
    on_stable.updater.cycle()
    others = [fleet.release(model=f"release {number}".encode()) for number in range(3)]
    for number, release in enumerate(others):
        fleet.attempt = number + 2
        fleet.installation.clock.pass_time(days=60)
        fleet.publish(stable=release, denied=(candidate.digest,))
    fleet.installation.ceremony().rotate("operator")
    fleet.renew()
    fleet.site.paths()
    on_stable.boot()
    on_stable.updater.cycle()
    assert on_stable.runtime.serving == others[-1].digest
    asked = "".join(fleet.site.paths())
    assert [release.digest in asked for release in others] == [False, False, True]


def test_on_stable_a_device_serves_without_any_network_for_ever(fleet: Fleet, on_stable: Box, stable: Release) -> None:
    fleet.site.answers[TIMESTAMP] = Answer(500)
    fleet.installation.clock.pass_time(days=400)
    on_stable.boot()
    on_stable.updater.cycle()
    assert on_stable.runtime.serving == stable.digest


def test_a_veto_and_a_pin_are_asked_for_every_time(
    fleet: Fleet, on_stable: Box, stable: Release, candidate: Release
) -> None:
    on_stable.owner = Device(id="device-1", agent_version="1.0.0", veto=True)
    fleet.publish(stable, candidate)
    on_stable.updater.cycle()
    assert on_stable.runtime.serving == stable.digest
    on_stable.owner = Device(id="device-1", agent_version="1.0.0")
    on_stable.updater.cycle()
    assert on_stable.runtime.serving == candidate.digest
    on_stable.owner = Device(id="device-1", agent_version="1.0.0", pin=stable.digest)
    on_stable.updater.cycle()
    assert on_stable.runtime.serving == stable.digest


def test_a_full_disk_leaves_the_device_serving_and_trying(
    fleet: Fleet, on_stable: Box, stable: Release, candidate: Release
) -> None:
    on_stable.free_bytes = 1000
    fleet.publish(stable, candidate)
    on_stable.updater.cycle()
    assert on_stable.phases[-1] is Phase.WAITING
    assert on_stable.runtime.serving == stable.digest
    on_stable.free_bytes = 1 << 40
    on_stable.updater.cycle()
    assert on_stable.runtime.serving == candidate.digest


def test_a_quota_without_room_for_the_reserve_is_no_failure(on_stable: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk has space, the agent's share of it has none: polls must not become rare, nor what is left be eaten up."""
    fine = Disk.write

    def write(disk: Disk, name: str, body: bytes) -> None:
        if name == RESERVE:
            disk.path(f"{name}.part").write_bytes(body[:1000])
            raise OSError(122, "Disk quota exceeded")
        fine(disk, name, body)

    on_stable.disk.remove(RESERVE)
    monkeypatch.setattr(Disk, "write", write)
    on_stable.updater.cycle()
    assert on_stable.updater.failures == 0
    assert not on_stable.disk.path(f"{RESERVE}.part").exists()


def test_failures_back_off_and_success_resets(fleet: Fleet, on_stable: Box, stable: Release) -> None:
    fleet.site.answers[TIMESTAMP] = Answer(503, headers={"Retry-After": "7200"})
    assert on_stable.updater.cycle() >= 7200
    fleet.site.answers[TIMESTAMP] = Answer(500)
    waits = [on_stable.updater.cycle() for _ in range(5)]
    assert waits[-1] > 2800
    assert on_stable.updater.failures == 6
    fleet.site.answers.clear()
    assert on_stable.updater.cycle() <= 360
    assert on_stable.updater.failures == 0


def test_a_tampered_candidate_is_refused_counted_and_never_served(
    fleet: Fleet, on_stable: Box, stable: Release, candidate: Release
) -> None:
    fleet.publish(stable, candidate)
    name = f"{hashlib.sha256(b'candidate' * 100).hexdigest()}.model"
    path = f"targets/artifacts/{candidate.digest}/{name}"
    fleet.site.files[path] = fleet.site.files[path][:-1] + b"!"
    on_stable.updater.cycle()
    assert on_stable.refused == {Cause.TAMPERED: 1}
    assert on_stable.runtime.log == []
    assert on_stable.runtime.serving == stable.digest


def test_a_state_that_cannot_be_read_is_begun_anew(fleet: Fleet, on_stable: Box, stable: Release) -> None:
    on_stable.disk.write("state.json", b"{")
    on_stable.disk.write("document.json", json.dumps({"schemaVersion": 2}).encode())
    on_stable.boot()
    on_stable.updater.cycle()
    assert on_stable.runtime.serving == stable.digest


def test_a_device_tells_its_part_in_the_rollout(
    fleet: Fleet, on_stable: Box, stable: Release, candidate: Release
) -> None:
    fleet.publish(stable, candidate)
    on_stable.runtime.verdicts[candidate.digest] = Why.SMOKE
    on_stable.updater.cycle()
    told = on_stable.updater.standing()
    assert (told.attempt, told.arm, told.release) == (1, Arm.TREATED, stable.digest)
    assert told.gave_up == {stable.digest: False, candidate.digest: True}
    fleet.attempt = 2
    fleet.publish(stable, candidate, cohorts=())
    on_stable.runtime.verdicts[candidate.digest] = Why.MEMORY
    on_stable.updater.cycle()
    told = on_stable.updater.standing()
    assert (told.attempt, told.arm) == (2, Arm.CONTROL)
    assert told.gave_up == {stable.digest: False, candidate.digest: False}


def test_a_device_that_never_polled_has_no_part() -> None:
    assert (Standing().release, Standing().gave_up, Standing().arm) == (None, {}, Arm.CONTROL)


def test_the_age_of_a_release_is_of_its_activation_and_lives_through_restarts(
    fleet: Fleet, on_stable: Box, stable: Release, candidate: Release
) -> None:
    clock = fleet.installation.clock
    clock.pass_time(seconds=700)
    on_stable.updater.tick()
    assert on_stable.updater.standing().release_seconds == 1000
    fleet.publish(stable, candidate)
    on_stable.updater.cycle()
    assert on_stable.updater.standing().release_seconds == 0
    for _ in range(10):
        clock.pass_time(seconds=100)
        on_stable.updater.tick()
    assert on_stable.updater.standing().release_seconds == 1000
    # 600 s of them were saved; without power no time passes for the model
    clock.pass_time(hours=5)
    on_stable.boot()
    assert on_stable.updater.standing().release_seconds == 600
    clock.pass_time(seconds=50)
    assert on_stable.updater.standing().release_seconds == 650
    fleet.publish(stable, None, denied=(candidate.digest,))
    on_stable.updater.cycle()
    assert (on_stable.updater.standing().release, on_stable.updater.standing().release_seconds) == (stable.digest, 0)


def test_a_clock_that_is_set_changes_no_age(fleet: Fleet, on_stable: Box) -> None:
    before = on_stable.updater.standing().release_seconds
    on_stable.clock.wall = lambda: 4e9
    on_stable.updater.tick()
    assert on_stable.updater.standing().release_seconds == before
