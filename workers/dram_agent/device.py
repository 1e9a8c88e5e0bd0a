"""The update loop of one device: poll, decide, do, remember. What it decides stands in update.py."""

import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from pydantic import ValidationError

from dram_agent.clock import ClockGuard
from dram_agent.disk import Disk
from dram_agent.document import Artifact, ChannelDocument
from dram_agent.errors import AgentError, Unreachable
from dram_agent.slots import NO_SPACE, Held, Slot, Slots
from dram_agent.standing import Arm, Phase, Standing
from dram_agent.state import DeviceState, Why
from dram_agent.trust import Trust
from dram_agent.update import Decision, Device, Step, View, decide, has_failed, is_treated, wait_seconds
from dram_workers.model import Model

log = logging.getLogger(__name__)
ModelT = TypeVar("ModelT", bound=Model)

STATE = "state.json"
DOCUMENT = "document.json"
STEPS = 8
"""The most steps of one cycle: from a superseded candidate over stable to the next one takes five."""
FRESH_GRAIN_SECONDS = 600.0
"""How exactly the disk knows when metadata was fresh, and for how long a release has run: every poll would wear out a
flash card."""


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
    monotonic: Callable[[], float] = time.monotonic
    state: DeviceState = field(default_factory=DeviceState)
    document: ChannelDocument | None = None
    _saved_document: ChannelDocument | None = None
    failures: int = 0
    """Cycles in a row that failed."""
    _counted_at: float = 0.0
    """Up to when `state.served_seconds` counts, by the monotonic clock."""
    _is_saved: bool = True
    """Whether the disk holds `state`."""
    _busy: threading.Lock = field(default_factory=threading.Lock)
    _state: threading.Lock = field(default_factory=threading.Lock)

    def boot(self) -> None:
        """Take up what the last run left, and serve it."""
        self.state = _read(DeviceState, self.disk.read(STATE)) or DeviceState()
        self.document = self._saved_document = _read(ChannelDocument, self.disk.read(DOCUMENT))
        self._counted_at = self.monotonic()
        held = self.slots.held()
        if self.state.active is not None and self.state.active in held:
            self.runtime.serve(self.state.active, held[self.state.active])
        self._show(None)

    def cycle(self) -> float:
        """One poll and everything that follows from it; returns the seconds to wait for the next."""
        retry_after = None
        try:
            # The network may keep it waiting for as long as it likes: leases run out meanwhile.
            document = self.trust.poll()
            with self._busy:
                self._learn(document)
                self._follow(is_fresh=True)
                self.failures = 0
                self._show(None)
                self.disk.keep_reserve()
        except (AgentError, OSError) as error:
            retry_after = error.retry_after if isinstance(error, Unreachable) else None
            with self._busy:
                self._wait(error)
        return wait_seconds(self._view(is_fresh=False), self.failures, retry_after, self.dice)

    def _wait(self, error: AgentError | OSError) -> None:
        """What a cycle that failed leaves to do."""
        self.failures += 1
        log.info("Update waits: %s: %s", type(error).__name__, error)
        self._show(error)
        if isinstance(error, OSError) and error.errno in NO_SPACE:
            self._make_room()
        self._follow(is_fresh=False)

    def tick(self) -> None:
        """What needs no poll: the end of a trial, a lost lease. Nothing while a cycle acts: it looks by itself."""
        if self._busy.acquire(blocking=False):
            try:
                self._follow(is_fresh=False)
                self._keep_count()
            finally:
                self._busy.release()

    def count_start(self) -> None:
        """The model's process is about to be started."""
        self._change(DeviceState.started)

    def standing(self) -> Standing:
        """What telemetry says of the device's part in the rollout."""
        view, document = self._view(is_fresh=False), self.document
        offered = (document.stable, document.candidate) if document else ()
        return Standing(
            attempt=self._attempt(),
            arm=Arm.TREATED if is_treated(view) else Arm.CONTROL,
            gave_up={each.digest: has_failed(view, each) for each in offered if each is not None},
            release=view.active.release if view.active else None,
            release_seconds=self.state.served_seconds + self.monotonic() - self._counted_at,
        )

    def _learn(self, document: ChannelDocument | None) -> None:
        """Obey what was verified even where it cannot be saved."""
        now = self.clock.now()
        self.document = document or self.document
        lease = self.document.candidate_lease_seconds if self.document else FRESH_GRAIN_SECONDS
        if now - self.state.fresh_at >= min(FRESH_GRAIN_SECONDS, lease / 4):
            self._change(lambda state: state.fresh(now))
        if self.document is not None and self.document != self._saved_document:
            self.disk.write(DOCUMENT, self.document.encode())
            self._saved_document = self.document

    def _make_room(self) -> None:
        """Give up the reserve, then the idle slot unless it is where to return to: a rollback needs space to be read."""
        if self.disk.give_up_reserve():
            return
        stable = self.document.stable if self.document else None
        held, active = self.slots.held(), self.state.active
        for slot in Slot:
            if slot is not active and (slot not in held or stable is None or held[slot].release != stable.digest):
                self.slots.clear(slot)

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
            self._change(lambda state: state.activated(slot, now), must_last=True)
            self._counted_at = self.monotonic()
            self.runtime.serve(decision.slot, held)
        self._show(None)

    def _leave(self, decision: Decision) -> None:
        """The state first: after a power loss in between the device boots into what it was leaving for."""
        self._change(lambda state: self._left(state, decision))
        self._counted_at = self.monotonic()
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

    def _keep_count(self) -> None:
        """Save now and then for how long the active slot was served, and what could not be saved before."""
        now, seconds = self.clock.now(), self.monotonic() - self._counted_at
        if self.state.fresh_at > now:
            # a clock that ran ahead was set right: the lease must not last until then
            self._change(lambda state: state.fresh(now))
        if seconds >= FRESH_GRAIN_SECONDS:
            self._change(lambda state: state.served(seconds))
            self._counted_at += seconds
        elif not self._is_saved:
            self._change(lambda state: state)

    def _change(self, change: Callable[[DeviceState], DeviceState], *, must_last: bool = False) -> None:
        """Make a change, and bring it to the disk. A disk that is full or broken keeps no device on what it has to leave.

        Only what `must_last` waits for a disk that takes it: OSError, and nothing has changed.
        """
        with self._state:
            state = change(self.state)
            if state == self.state and self._is_saved:
                return
            try:
                self.disk.write(STATE, state.model_dump_json().encode())
                self._is_saved = True
            except OSError as error:
                if error.errno in NO_SPACE:
                    self.disk.give_up_reserve()
                if must_last:
                    raise
                log.warning("State is not saved: %s", error.strerror)
                self._is_saved = False
            self.state = state

    def _show(self, error: Exception | None) -> None:
        if error is not None:
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
