"""The update loop of one device: poll, decide, do, remember. What it decides stands in update.py."""

import logging
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol, TypeVar

from pydantic import ValidationError

from dram_agent.clock import ClockGuard
from dram_agent.disk import Disk
from dram_agent.document import Artifact, ChannelDocument
from dram_agent.errors import AgentError, DiskFull, Refused, Unreachable
from dram_agent.slots import Held, Slot, Slots
from dram_agent.state import DeviceState, Why
from dram_agent.trust import Trust
from dram_agent.update import Decision, Device, Step, View, decide, is_treated, wait_seconds
from dram_workers.model import Model

log = logging.getLogger(__name__)
ModelT = TypeVar("ModelT", bound=Model)

STATE = "state.json"
DOCUMENT = "document.json"
STEPS = 8
"""The most steps of one cycle: from a superseded candidate over stable to the next one takes five."""
FRESH_GRAIN_SECONDS = 600.0
"""How exactly the disk knows when metadata was fresh: every poll would wear out a flash card."""


class Phase(StrEnum):
    """What the device is at; the values of the label `state` of `dram_device_update_state`."""

    CURRENT = "current"
    """It runs what it should, or what its owner lets it."""
    DOWNLOADING = "downloading"
    TESTING = "testing"
    SOAKING = "soaking"
    """It runs a new release on trial."""
    FELL_BACK = "fell-back"
    """It had to leave a release, and runs another one or none."""
    REFUSED = "refused"
    """The release cannot run on this device."""
    WAITING = "waiting"
    """It cannot go on now: no space, no network, or nothing that it may believe."""


class Runtime(Protocol):
    """What serves a slot."""

    def test(self, slot: Slot, held: Held, artifact: Artifact) -> Why | None:
        """Load the slot's model and try it; None when it passed, and is kept ready for `serve`."""

    def serve(self, slot: Slot, held: Held) -> None:
        """Serve this slot from now on; requests that are being answered are finished by the one before."""

    def stop(self) -> None:
        """Serve no local model."""

    def healthy_since(self) -> float | None:
        """Since when the served model answers, in seconds since the epoch."""

    def is_starting(self) -> bool:
        """Whether it is coming up."""


@dataclass
class Updater:
    """Owns the state of the device. One cycle at a time; starts of the model may be counted meanwhile."""

    disk: Disk
    trust: Trust
    slots: Slots
    clock: ClockGuard
    runtime: Runtime
    device: Callable[[], Device]
    """Asked every time: the owner may change labels, veto and pin at any moment."""
    dice: random.Random = field(default_factory=random.Random)
    on_phase: Callable[[Phase], None] = lambda _: None
    state: DeviceState = field(default_factory=DeviceState)
    document: ChannelDocument | None = None
    failures: int = 0
    """Cycles in a row that failed."""
    _busy: threading.Lock = field(default_factory=threading.Lock)
    _state: threading.Lock = field(default_factory=threading.Lock)

    def boot(self) -> None:
        """Take up what the last run left, and serve it."""
        self.state = _read(DeviceState, self.disk.read(STATE)) or DeviceState()
        self.document = _read(ChannelDocument, self.disk.read(DOCUMENT))
        held = self.slots.held()
        if self.state.active is not None and self.state.active in held:
            self.runtime.serve(self.state.active, held[self.state.active])
        self._show(None)

    def cycle(self) -> float:
        """One poll and everything that follows from it; returns the seconds to wait for the next."""
        with self._busy:
            retry_after = None
            try:
                self._learn(self.trust.poll())
                self._follow(is_fresh=True)
                self.failures = 0
                self._show(None)
            except AgentError as error:
                self.failures += 1
                retry_after = error.retry_after if isinstance(error, Unreachable) else None
                log.info("Update waits: %s: %s", type(error).__name__, error)
                self._show(error)
                self._follow(is_fresh=False)
            return wait_seconds(self._view(is_fresh=False), self.failures, retry_after, self.dice)

    def tick(self) -> None:
        """What needs no poll: the end of a trial, a lost lease. Nothing while a cycle is on: it looks by itself."""
        if self._busy.acquire(blocking=False):
            try:
                self._follow(is_fresh=False)
            finally:
                self._busy.release()

    def count_start(self) -> None:
        """The model's process is about to be started."""
        self._change(DeviceState.started)

    def is_treated(self) -> bool:
        """Whether the device is in the treated arm."""
        return is_treated(self._view(is_fresh=False))

    def _learn(self, document: ChannelDocument | None) -> None:
        now = self.clock.now()
        if document is not None and document != self.document:
            self.disk.write(DOCUMENT, document.encode())
        self.document = document or self.document
        if now - self.state.fresh_at >= FRESH_GRAIN_SECONDS:
            self._change(lambda state: state.fresh(now))

    def _follow(self, *, is_fresh: bool) -> None:
        for _ in range(STEPS):
            decision = decide(self._view(is_fresh=is_fresh))
            if decision.step is Step.NOTHING:
                return
            log.info("Update: %s %s %s", decision.step, decision.release or "", decision.why or "")
            self._do(decision)

    def _do(self, decision: Decision) -> None:
        match decision.step:
            case Step.DOWNLOAD:
                assert decision.slot is not None
                assert decision.artifact is not None
                assert decision.release is not None
                self.on_phase(Phase.DOWNLOADING)
                self.slots.fill(decision.slot, decision.release, decision.artifact.path)
            case Step.TRY:
                self._try(decision)
            case Step.RETURN | Step.STOP:
                self._leave(decision)
            case Step.CONFIRM:
                self._change(DeviceState.confirmed)
                self._show(None)
            case Step.REFUSE:
                assert decision.why is not None
                self._note_failure(decision, decision.why)
                self._show(None)
            case Step.NOTHING:
                return

    def _try(self, decision: Decision) -> None:
        """Test and activate, on metadata that was verified a moment ago."""
        self._learn(self.trust.refresh())
        if decide(self._view(is_fresh=True)) != decision:
            return
        assert decision.slot is not None
        assert decision.artifact is not None
        held = self.slots.held()[decision.slot]
        self.on_phase(Phase.TESTING)
        why = self.runtime.test(decision.slot, held, decision.artifact)
        if why is not None:
            self._note_failure(decision, why)
        else:
            slot, now = decision.slot, self.clock.now()
            self._change(lambda state: state.activated(slot, now))
            self.runtime.serve(decision.slot, held)
        self._show(None)

    def _leave(self, decision: Decision) -> None:
        """The state first: after a power loss in between the device boots into what it was leaving for."""
        self._change(lambda state: self._left(state, decision))
        if decision.slot is None:
            self.runtime.stop()
        else:
            self.runtime.serve(decision.slot, self.slots.held()[decision.slot])
        self._show(None)

    def _left(self, state: DeviceState, decision: Decision) -> DeviceState:
        """A release that crashed again and again is also remembered as one that cannot run here."""
        after = state.left(decision.slot, decision.why)
        if decision.why is not Why.CRASH_LOOP or decision.release is None:
            return after
        return after.failing(decision.release, self._attempt(), decision.why)

    def _note_failure(self, decision: Decision, why: Why) -> None:
        release, attempt = decision.release, self._attempt()
        assert release is not None
        self._change(lambda state: state.failing(release, attempt, why))

    def _attempt(self) -> int:
        return self.document.attempt if self.document else 0

    def _view(self, *, is_fresh: bool) -> View:
        return View(
            device=self.device(),
            state=self.state,
            held=self.slots.held(),
            document=self.document,
            now=self.clock.now(),
            is_fresh=is_fresh,
            healthy_since=self.runtime.healthy_since(),
            is_starting=self.runtime.is_starting(),
        )

    def _change(self, change: Callable[[DeviceState], DeviceState]) -> None:
        """Make a change that is on the disk when this returns."""
        with self._state:
            state = change(self.state)
            if state != self.state:
                self.disk.write(STATE, state.model_dump_json().encode())
                self.state = state

    def _show(self, error: AgentError | None) -> None:
        if isinstance(error, (Refused, Unreachable, DiskFull)):
            self.on_phase(Phase.WAITING)
        elif self.state.last_why is not None:
            fell = self.state.last_why in (Why.SMOKE, Why.CRASH_LOOP, Why.DENIED, Why.LEASE)
            self.on_phase(Phase.FELL_BACK if fell else Phase.REFUSED)
        else:
            self.on_phase(Phase.CURRENT if self.state.trial_since is None else Phase.SOAKING)


def _read(kind: type[ModelT], body: bytes | None) -> ModelT | None:
    """What an earlier run saved; None when there is nothing that this version reads."""
    try:
        return kind.model_validate_json(body) if body else None
    except ValidationError:
        log.warning("Ignored a saved %s that cannot be read", kind.__name__)
        return None
