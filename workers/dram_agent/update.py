"""What the device does next: a pure function of what it knows. No clock, no disk, no network in here.

In reading order: get off what must not run, go back when a lease or a trial is lost, respect the owner, then move on.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from dram_agent.cohort import device_hash, is_member, release_for
from dram_agent.document import Artifact, ChannelDocument, Release
from dram_agent.slots import Held, Slot
from dram_agent.state import DeviceState, Why

CRASH_LIMIT = 3
"""Starts of a model on trial that end without it being healthy for the soak; a reboot is one of them."""
SOAK_SECONDS = 300.0
"""A release is no longer on trial after so long in good health."""
JITTER = 0.2
LOWEST_POLL_SECONDS = 1.0


class Step(StrEnum):
    """What to do now."""

    NOTHING = "nothing"
    DOWNLOAD = "download"
    """Fill a slot."""
    TRY = "try"
    """Smoke-test a filled slot; when it passes, serve it, on trial."""
    RETURN = "return"
    """Serve a slot that was served before, without a test."""
    STOP = "stop"
    """Serve no local model: the cloud answers."""
    CONFIRM = "confirm"
    """The trial is over, well."""
    REFUSE = "refuse"
    """Note that this release cannot run here."""


@dataclass(frozen=True)
class Device:
    """What the owner says about this device, and what it can do."""

    id: str
    labels: Mapping[str, str] = field(default_factory=dict)
    device_class: str | None = None
    formats: tuple[str, ...] = ("gguf",)
    memory_bytes: int | None = None
    """Memory that a model may use; None when nobody knows."""
    agent_version: str = "0"
    veto: bool = False
    """The owner wants no other release now. Getting off a denied one, and back from a lost lease, still happens."""
    pin: str | None = None
    """The owner wants this release of those that the channel offers, whatever the cohort."""


@dataclass(frozen=True)
class View:
    """Everything that a decision may look at."""

    device: Device
    state: DeviceState
    held: Mapping[Slot, Held]
    document: ChannelDocument | None
    now: float
    is_fresh: bool = True
    """Whether the last poll brought valid metadata; nothing new is downloaded or activated on older ones."""
    healthy_since: float | None = None
    """Since when the served model answers; None when it does not."""
    is_starting: bool = False
    """Whether the model's process is coming up and may still answer."""

    @property
    def active(self) -> Held | None:
        """What is served."""
        return self.held.get(self.state.active) if self.state.active else None

    def slot_of(self, release: str) -> Slot | None:
        """The slot that holds a release."""
        return next((slot for slot, held in self.held.items() if held.release == release), None)


@dataclass(frozen=True)
class Decision:
    """One step, and what it is about."""

    step: Step
    slot: Slot | None = None
    release: str | None = None
    artifact: Artifact | None = None
    why: Why | None = None


NOTHING = Decision(Step.NOTHING)


def decide(view: View) -> Decision:
    """The next step."""
    document, wanted = view.document, desired(view)
    if document is not None and view.active:
        if view.active.release in document.denied or _is_withdrawn(view.active, document, wanted):
            return _leave(view, _allowed_stable(document), Why.DENIED)
        if _lost_lease(view, document, view.active):
            return _leave(view, _allowed_stable(document), Why.LEASE)
    if (step := _of_trial(view)) is not None:
        return step
    if document is None or not view.is_fresh or has_failed(view, wanted):
        return NOTHING
    if (view.device.veto or document.frozen) and view.active is not None:
        return NOTHING
    if wanted is None:
        return Decision(Step.STOP) if view.state.active else NOTHING
    if view.active and view.active.release == wanted.digest:
        return NOTHING
    return _move_on(view, document, wanted)


def desired(view: View) -> Release | None:
    """What the device should run; none is no local model. A candidate that failed here gives way to stable."""
    document = view.document
    if document is None:
        return None
    if (pinned := _pinned(view.device.pin, document)) is not None:
        return pinned
    hashed = device_hash(bytes.fromhex(document.salt), view.device.id)
    wanted = release_for(document, view.device.labels, hashed)
    if wanted is document.stable or has_failed(view, wanted) or _is_too_late(view, document, wanted):
        return _allowed_stable(document)
    return wanted


def _is_too_late(view: View, document: ChannelDocument, wanted: Release | None) -> bool:
    """Whether the candidate is being withdrawn, and this device does not run it yet."""
    runs = view.active is not None and wanted is not None and view.active.release == wanted.digest
    return document.withdrawing and wanted is document.candidate and not runs


def _is_withdrawn(active: Held, document: ChannelDocument, wanted: Release | None) -> bool:
    """Whether it is this device's turn to leave a candidate that goes back bit by bit: as from a denied one, nothing holds that up."""
    return (
        document.withdrawing
        and document.candidate is not None
        and wanted is not document.candidate
        and active.release == document.candidate.digest
    )


def is_treated(view: View) -> bool:
    """Whether the device is in the cohorts of a candidate: the treated arm, also after it fell back."""
    document = view.document
    if document is None or document.candidate is None:
        return False
    return is_member(document, view.device.labels, device_hash(bytes.fromhex(document.salt), view.device.id))


def has_failed(view: View, release: Release | None) -> bool:
    """Whether a release failed here in the present attempt."""
    attempt = view.document.attempt if view.document else None
    return release is not None and any(
        (each.release, each.attempt) == (release.digest, attempt) for each in view.state.failed
    )


def wait_seconds(view: View, failures: int, retry_after: float | None, dice: random.Random) -> float:
    """Seconds to the next poll: the document's interval, doubled by every failure, never below what the server asks.

    Spread by ±20 %, so that devices that were switched on together do not stay together; what the server asked for is
    only ever prolonged.
    """
    document = view.document
    base, longest = (60.0, 3600.0)
    if document is not None:
        base = float(document.active_poll_seconds if is_treated(view) else document.poll_seconds)
        longest = float(max(document.backoff_seconds, base))
    grown = min(longest, base * 2.0 ** min(failures, 30))
    spread = max(LOWEST_POLL_SECONDS, grown * dice.uniform(1 - JITTER, 1 + JITTER))
    return spread if retry_after is None else max(spread, retry_after * dice.uniform(1, 1 + JITTER))


def _allowed_stable(document: ChannelDocument) -> Release | None:
    """Stable, unless nobody may run it."""
    stable = document.stable
    return None if stable is None or stable.digest in document.denied else stable


def _pinned(pin: str | None, document: ChannelDocument) -> Release | None:
    offered = [release for release in (document.stable, document.candidate) if release is not None]
    return next((each for each in offered if each.digest == pin and pin not in document.denied), None)


def _lost_lease(view: View, document: ChannelDocument, active: Held) -> bool:
    is_stable = document.stable is not None and active.release == document.stable.digest
    return not is_stable and view.now - view.state.fresh_at > document.candidate_lease_seconds


def _leave(view: View, to: Release | None, why: Why) -> Decision:
    """Off the active release at once: to stable where a slot has it, else to the cloud alone."""
    slot = view.slot_of(to.digest) if to else None
    active = view.active.release if view.active else None
    if slot is None or slot is view.state.active:
        return Decision(Step.STOP, release=active, why=why)
    return Decision(Step.RETURN, slot, release=active, why=why)


def _of_trial(view: View) -> Decision | None:
    """The end of a trial, when it has come."""
    state, active = view.state, view.active
    if state.trial_since is None or active is None:
        return None
    if view.healthy_since is not None:
        return Decision(Step.CONFIRM) if view.now - view.healthy_since >= SOAK_SECONDS else None
    if state.starts < CRASH_LIMIT or view.is_starting:
        return None
    denied = view.document.denied if view.document else ()
    previous = view.held.get(state.previous) if state.previous else None
    if previous is None or previous.release in denied or state.previous is state.active:
        return Decision(Step.STOP, release=active.release, why=Why.CRASH_LOOP)
    return Decision(Step.RETURN, state.previous, release=active.release, why=Why.CRASH_LOOP)


def _move_on(view: View, document: ChannelDocument, wanted: Release) -> Decision:
    """Towards the wanted release; the slot that holds stable is never filled with something else."""
    artifact = wanted.artifact_for(view.device.device_class)
    if artifact is None or (why := _unfit(view.device, artifact)) is not None:
        return Decision(Step.REFUSE, release=wanted.digest, why=why if artifact else Why.DEVICE_CLASS)
    for slot, held in view.held.items():
        if (held.release, f"artifacts/{held.artifact}") == (wanted.digest, artifact.path.rpartition("/")[0]):
            return Decision(Step.TRY, slot, wanted.digest, artifact)
    allowed = _allowed_stable(document)
    stable = view.slot_of(allowed.digest) if allowed else None
    if view.state.active is None:
        return Decision(Step.DOWNLOAD, stable.other if stable else Slot.A, wanted.digest, artifact)
    if stable is view.state.active.other and stable is not view.slot_of(wanted.digest):
        return Decision(Step.RETURN, stable)
    return Decision(Step.DOWNLOAD, view.state.active.other, wanted.digest, artifact)


def _unfit(device: Device, artifact: Artifact) -> Why | None:
    """The first precondition that this device does not meet."""
    needs = artifact.requires
    if needs.format not in device.formats:
        return Why.FORMAT
    if device.memory_bytes is not None and needs.memory_bytes > device.memory_bytes:
        return Why.MEMORY
    return Why.AGENT_VERSION if _numbers(needs.agent_version) > _numbers(device.agent_version) else None


def _numbers(version: str) -> tuple[int, ...]:
    found = [int(part) if part.isdigit() else 0 for part in version.split(".")]
    return tuple([*found, 0, 0][:3])
