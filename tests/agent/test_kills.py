"""The kill matrix: wherever an update is cut off, it ends as if it had not been, and nothing runs that was not verified."""

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tuf.ngclient.updater

from dram_agent.disk import RESERVE
from dram_agent.document import Release
from dram_agent.errors import Cause
from dram_agent.standing import Phase
from dram_agent.state import Why
from dram_agent.update import CRASH_LIMIT, SOAK_SECONDS
from tests.agent.box import Box, Fleet
from tests.agent.power import DyingDisk, FullDisk, PowerLost
from tests.agent.site import Answer

TIMESTAMP = "metadata/timestamp.json"
OLDER = {"model": b"older" * 100, **{f"page{number}": b"of an older release" for number in range(4)}}
FILES = {"older": OLDER, "stable": {"model": b"stable" * 100}, "candidate": {"model": b"candidate" * 100}}


@dataclass
class Scene:
    """A device on stable that had another release before, and what the repository has for it."""

    fleet: Fleet
    box: Box
    releases: dict[str, Release]

    @property
    def good(self) -> dict[str, dict[str, bytes]]:
        return {release.digest: FILES[name] for name, release in self.releases.items()}

    def publish(self, stable: str, candidate: str | None = None, **more: Any) -> None:
        chosen = self.releases[candidate] if candidate else None
        self.fleet.publish(self.releases[stable], chosen, **more)

    def deny(self) -> None:
        self.publish("stable", denied=(self.releases["candidate"].digest,))

    def served(self) -> str | None:
        """The name of what runs."""
        names = {release.digest: name for name, release in self.releases.items()}
        return names[self.box.runtime.serving] if self.box.runtime.serving else None


@pytest.fixture
def scene(fleet: Fleet, box: Box) -> Scene:
    made = Scene(fleet, box, {name: fleet.release(**files) for name, files in FILES.items()})
    box.boot()
    for name in ("older", "stable"):
        made.publish(name)
        box.updater.cycle()
        soak(box)
    box.runtime.log.clear()
    return made


def soak(box: Box) -> None:
    box.fleet.installation.clock.pass_time(seconds=SOAK_SECONDS)
    box.updater.tick()


def onto_candidate(scene: Scene) -> None:
    scene.publish("stable", "candidate")
    scene.box.updater.cycle()


def confirmed(scene: Scene) -> None:
    onto_candidate(scene)
    soak(scene.box)


def confirmed_and_denied(scene: Scene) -> None:
    confirmed(scene)
    scene.deny()


def denied_on_trial(scene: Scene) -> None:
    onto_candidate(scene)
    scene.deny()


def take_up(scene: Scene) -> None:
    scene.box.updater.cycle()
    soak(scene.box)


def crash(scene: Scene) -> None:
    """The model dies again and again, until the device gives it up; then it is polled."""
    updater = scene.box.updater
    scene.box.runtime.sick = scene.releases["candidate"].digest
    for _ in range(CRASH_LIMIT):
        updater.count_start()
        updater.tick()
    updater.cycle()
    soak(scene.box)


def lose_lease(scene: Scene) -> None:
    scene.fleet.site.answers[TIMESTAMP] = Answer(503)
    scene.fleet.installation.clock.pass_time(hours=25)
    scene.box.updater.cycle()
    soak(scene.box)


@dataclass(frozen=True)
class Story:
    """What happens to a device, and how it ends."""

    before: Callable[[Scene], None]
    act: Callable[[Scene], None]
    end: str
    """What runs in the end."""
    why: Why | None = None
    least_moments: int = 8


STORIES = {
    "update": Story(lambda scene: scene.publish("stable", "candidate"), take_up, "candidate", least_moments=40),
    "rollback": Story(confirmed_and_denied, take_up, "stable", Why.DENIED),
    "rollback on trial": Story(denied_on_trial, take_up, "stable", Why.DENIED),
    "crash loop": Story(onto_candidate, crash, "stable", Why.CRASH_LOOP),
    "lost lease": Story(confirmed, lose_lease, "stable", Why.LEASE, least_moments=3),
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.long if name == "update" else ()) for name in STORIES]
)
def test_a_power_loss_at_any_moment_ends_as_the_undisturbed_story(scene: Scene, tmp_path: Path, name: str) -> None:
    story, box = STORIES[name], scene.box
    story.before(scene)
    prepared, began = box.folder, scene.fleet.installation.clock.now
    undisturbed: dict[str, Any] | None = None
    moments = 0
    while True:
        scene.fleet.installation.clock.now = began
        scene.fleet.site.answers.clear()
        box.folder = tmp_path / f"device-{moments}"
        shutil.copytree(prepared, box.folder)
        disk = DyingDisk(box.folder, dies_at=moments or 10**9)
        box.boot(disk)
        try:
            story.act(scene)
        except PowerLost:
            box.boot()
            what = disk.moments[-1]
            check_slots(scene, what)
            assert scene.served() in ("stable", "candidate"), what
            story.act(scene)
        check_slots(scene, disk.moments[-1])
        ended = end_of(scene)
        undisturbed = undisturbed or ended
        assert ended == undisturbed, disk.moments[-1]
        shutil.rmtree(box.folder)
        if len(disk.moments) < moments:
            break
        moments += 1
    assert scene.served() == story.end
    assert undisturbed["why"] == story.why
    assert moments > story.least_moments


def check_slots(scene: Scene, what: str) -> None:
    """What a slot claims to hold, and what runs, are the very bytes that were signed."""
    box = scene.box
    for slot, held in box.slots.held().items():
        for name, body in scene.good[held.release].items():
            assert box.disk.read(f"slots/{slot}/{name}") == body, what
    active = box.updater.state.active
    assert active is None or box.slots.held()[active].release == box.runtime.serving, what


def end_of(scene: Scene) -> dict[str, Any]:
    """What matters of the state in the end."""
    box = scene.box
    state = box.updater.state
    return {
        "serves": scene.served(),
        "holds": {held.release for held in box.slots.held().values()},
        "on trial": state.trial_since is not None,
        "failed": {(each.release, each.why) for each in state.failed},
        "why": state.last_why,
        "refused": dict(box.refused),
    }


@pytest.fixture
def disk(scene: Scene) -> FullDisk:
    """The device's disk, which fills up when the test says so."""
    made = FullDisk(scene.box.folder)
    scene.box.boot(made)
    scene.box.runtime.log.clear()
    return made


def test_on_a_full_disk_a_device_serves_waits_and_goes_on(scene: Scene, disk: FullDisk) -> None:
    scene.publish("stable", "candidate")
    disk.full.append("")
    for _ in range(2):
        scene.box.updater.cycle()
        scene.box.updater.tick()
    assert (scene.served(), scene.box.phases[-1]) == ("stable", Phase.WAITING)
    disk.full.clear()
    scene.box.updater.cycle()
    assert scene.served() == "candidate"


def test_what_cannot_be_remembered_is_not_activated(scene: Scene, disk: FullDisk) -> None:
    """After a power loss the device would boot into another release than the one that it told of."""
    scene.publish("stable", "candidate")
    disk.broken.append("state.json")
    scene.box.updater.cycle()
    assert (scene.served(), scene.box.updater.state.trial_since) == ("stable", None)
    disk.broken.clear()
    scene.box.updater.cycle()
    assert scene.served() == "candidate"
    scene.box.boot()
    assert scene.served() == "candidate"


@pytest.mark.parametrize("name", ["rollback", "rollback on trial", "crash loop", "lost lease"])
def test_no_full_disk_keeps_a_device_on_what_it_has_to_leave(scene: Scene, disk: FullDisk, name: str) -> None:
    story = STORIES[name]
    story.before(scene)
    disk.full.append("")
    for _ in range(2):
        story.act(scene)
    assert (scene.served(), scene.box.updater.state.last_why) == (story.end, story.why)
    assert not disk.path(RESERVE).exists()
    disk.full.clear()
    scene.box.updater.tick()
    scene.box.boot()
    assert scene.served() == story.end


def test_without_space_for_metadata_the_idle_slot_is_given_up_unless_it_is_the_way_back(
    scene: Scene, disk: FullDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(**_: object) -> None:
        raise OSError(28, "No space left on device")

    digests = {name: release.digest for name, release in scene.releases.items()}
    for name, want in (("older", {"stable"}), ("candidate", {"stable", "candidate"})):
        scene.publish("stable", "candidate" if name == "candidate" else None)
        if name == "candidate":
            scene.box.updater.cycle()
        else:
            assert len(scene.box.slots.held()) == 2
        scene.fleet.attempt += 1
        scene.publish("stable", "candidate" if name == "candidate" else None)
        with monkeypatch.context() as patch:
            broken = SimpleNamespace(NamedTemporaryFile=full, TemporaryFile=tempfile.TemporaryFile)
            patch.setattr(tuf.ngclient.updater, "tempfile", broken)
            for _ in range(2):
                scene.box.updater.cycle()
        assert {held.release for held in scene.box.slots.held().values()} == {digests[each] for each in want}
        scene.box.updater.cycle()
        assert scene.served() == name.replace("older", "stable")


def test_a_clock_that_jumps_ahead_costs_the_candidate_and_comes_back_with_the_time(scene: Scene) -> None:
    confirmed(scene)
    clock = scene.fleet.installation.clock
    clock.pass_time(days=40)
    scene.box.updater.cycle()
    assert scene.served() == "stable"
    assert scene.box.refused == {Cause.EXPIRED: 1}
    clock.pass_time(days=-40)
    scene.box.updater.cycle()
    assert scene.served() == "candidate"
    assert scene.box.updater.state.failed == ()


def test_a_clock_that_falls_back_prolongs_no_lease(scene: Scene) -> None:
    """Metadata that seemed fresh in the future must not carry a candidate until then."""
    onto_candidate(scene)
    clock = scene.fleet.installation.clock
    scene.box.clock.wall = lambda: clock().timestamp() + 12 * 3600
    clock.pass_time(seconds=SOAK_SECONDS)
    scene.box.updater.cycle()
    scene.box.clock.wall = lambda: clock().timestamp()
    scene.box.updater.tick()
    scene.fleet.site.answers[TIMESTAMP] = Answer(503)
    clock.pass_time(hours=24)
    scene.box.updater.cycle()
    assert scene.served() == "candidate"
    clock.pass_time(minutes=20)
    scene.box.updater.tick()
    assert scene.served() == "stable"


def test_a_clock_at_the_beginning_of_time_is_as_late_as_what_was_signed(scene: Scene) -> None:
    onto_candidate(scene)
    signed = scene.box.clock.trusted
    scene.box.clock.wall = lambda: 0.0
    assert scene.box.clock.now() == signed
    scene.box.updater.cycle()
    scene.box.updater.tick()
    assert scene.served() == "candidate"


def test_a_veto_holds_a_trial_through_reboots_and_never_a_denied_release(scene: Scene) -> None:
    onto_candidate(scene)
    scene.box.owner = replace(scene.box.owner, veto=True)
    scene.box.boot()
    scene.publish("stable")
    scene.box.updater.cycle()
    assert scene.served() == "candidate"
    scene.deny()
    scene.box.updater.cycle()
    assert scene.served() == "stable"


def test_a_pin_holds_through_reboots_and_falls_with_its_release(scene: Scene) -> None:
    scene.box.owner = replace(scene.box.owner, pin=scene.releases["candidate"].digest)
    scene.publish("stable", "candidate", cohorts=())
    scene.box.updater.cycle()
    scene.box.boot()
    scene.box.updater.cycle()
    assert scene.served() == "candidate"
    scene.deny()
    scene.box.updater.cycle()
    assert scene.served() == "stable"
