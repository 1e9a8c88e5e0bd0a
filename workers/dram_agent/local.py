"""The local model as requests see it: which process answers now, how many it answers, whether it is well.

A switch starts the new process beside the old one; the old one ends when the last request that it answers is done.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from pydantic import ValidationError

from dram_agent.child import Child, RuntimeSettings
from dram_agent.document import Artifact
from dram_agent.errors import NotServing
from dram_agent.slots import Held, Slot, Slots
from dram_agent.smoke import Passed, SmokeResult, SmokeSettings, smoke_test
from dram_agent.state import Why
from dram_agent.telemetry import NONE, Telemetry

log = logging.getLogger(__name__)

LONGEST_PAUSE_SECONDS = 60.0
"""Between two starts of a process that keeps ending."""
HANG_SECONDS = 30.0
"""A process that is up but does not answer for so long is ended, and started again."""
PASSED = "passed-{}.json"
"""What the model in a slot showed; beside the slots, because an artifact's files may have any name."""
DRAIN_SECONDS = 120.0
"""The longest that the old process may finish its requests."""


@dataclass(eq=False)
class Backend:
    """A model's process and what hangs on it."""

    child: Child
    slot: Slot
    held: Held
    in_flight: int = 0
    healthy_from: float | None = None
    """Since when it answers, by the monotonic clock; None when it does not."""
    unwell_since: float | None = None
    """Since when it is up and does not answer; None while it does."""
    golden_ratio: float | None = None
    leaves_at: float | None = None
    """When it is ended even with requests; None while it is the one that serves."""


@dataclass
class LocalRuntime:
    """Implements `Runtime` for the update loop and `acquire`/`release` for requests; safe between threads."""

    slots: Slots
    runtime: RuntimeSettings
    smoke: SmokeSettings
    telemetry: Telemetry
    wall: Callable[[], float]
    monotonic: Callable[[], float] = time.monotonic
    before_start: Callable[[], None] = lambda: None
    """Called before every start of the served model's process, so that it is remembered even if all goes down with it."""
    drain_seconds: float = DRAIN_SECONDS
    _serving: Backend | None = None
    _tested: Backend | None = None
    _leaving: list[Backend] = field(default_factory=list)
    _wanted: tuple[Slot, Held] | None = None
    _ends: int = 0
    """Ends of the process since it was last told to serve, or well for as long as the longest pause."""
    _starts_at: float = 0.0
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def test(self, slot: Slot, held: Held, artifact: Artifact) -> Why | None:
        """Load and try a slot's model beside the one that serves. OSError when what it showed cannot be kept."""
        self._drop_tested()
        folder = self.slots.disk.path(f"slots/{slot}")
        child = Child(folder / held.model, held.release, self.runtime)
        try:
            url = child.wait_ready()
        except NotServing as error:
            log.warning("Smoke test of %s: %s", held.release, error)
            child.end()
            return Why.SMOKE
        golden = folder / held.golden if held.golden else None
        result = smoke_test(url, golden, child.memory_bytes, self.smoke)
        log.info("Smoke test of %s: %s", held.release, result.message)
        if result.why is not None:
            child.end()
            return result.why
        try:
            self._remember(slot, held, result)
        except OSError:
            child.end()
            raise
        self._tested = Backend(child, slot, held, golden_ratio=result.golden_ratio)
        return None

    def _remember(self, slot: Slot, held: Held, result: SmokeResult) -> None:
        """A model that was tested once is served again without a test: after a reboot, and when it is returned to."""
        passed = Passed(artifact=held.artifact, golden_ratio=result.golden_ratio)
        self.slots.disk.write(PASSED.format(slot), passed.model_dump_json().encode())

    def _remembered(self, slot: Slot, held: Held) -> float | None:
        """The golden ratio of what the slot holds, from when it was tested; None when that is not known."""
        try:
            passed = Passed.model_validate_json(self.slots.disk.read(PASSED.format(slot)) or b"")
        except ValidationError:
            return None
        return passed.golden_ratio if passed.artifact == held.artifact else None

    def serve(self, slot: Slot, held: Held) -> None:
        """Serve a slot: at once when it was just tested, else as soon as it is loaded."""
        if self._tested is not None and (self._tested.slot, self._tested.held) != (slot, held):
            self._drop_tested()
        with self._lock:
            self._wanted, self._ends, self._starts_at = (slot, held), 0, 0.0
            self._retire()
            tested, self._tested = self._tested, None
            if tested is None:
                self._start()
            else:
                self.before_start()
                # It answered a moment ago: requests must not find nobody until it is asked again.
                tested.healthy_from = self.monotonic()
                self._take(tested)
        self.watch()

    def stop(self) -> None:
        """No local model any more; requests that are being answered are finished."""
        with self._lock:
            self._wanted = None
            self._retire()
            self.telemetry.use(NONE)

    def close(self) -> None:
        """End every process now."""
        with self._lock:
            self._wanted = None
            self._drop_tested()
            for backend in [*self._leaving, *([self._serving] if self._serving else [])]:
                backend.child.end()
            self._serving, self._leaving = None, []

    def healthy_since(self) -> float | None:
        with self._lock:
            since = self._serving.healthy_from if self._serving else None
            # a clock that is set in between makes nobody healthy for longer
            return None if since is None else self.wall() - (self.monotonic() - since)

    def is_starting(self) -> bool:
        with self._lock:
            serving = self._serving
            return serving is not None and serving.child.is_alive() and not serving.child.is_late()

    def acquire(self) -> Backend | None:
        """The process for one request; None when it is busy to its limit. NotServing when there is none that answers."""
        with self._lock:
            serving = self._serving
            if serving is None or serving.healthy_from is None or not serving.child.is_alive():
                raise NotServing("no local model answers")
            if serving.in_flight >= self.runtime.parallel:
                return None
            serving.in_flight += 1
            return serving

    def release(self, backend: Backend) -> None:
        """The request is over."""
        with self._lock:
            backend.in_flight -= 1

    def watch(self) -> None:
        """Look after the processes; called every second or so."""
        # Ending a process and asking one for its health take seconds: requests do not wait for that.
        for backend in self._drained():
            backend.child.end()
        with self._lock:
            serving = self._serving
            if serving is None and self._wanted is not None and self.monotonic() >= self._starts_at:
                self._start()
        if serving is None:
            return
        if not serving.child.is_alive() or serving.child.is_late():
            self._lost(serving)
            return
        ready = serving.child.is_ready()
        with self._lock:
            is_hung = self._note_health(serving, ready=ready)
        if is_hung:
            self._lost(serving)

    def _note_health(self, serving: Backend, *, ready: bool) -> bool:
        """Note whether a process answers; True when it has not for too long."""
        now = self.monotonic()
        if ready:
            serving.healthy_from, serving.unwell_since = serving.healthy_from or now, None
            if now - serving.healthy_from > LONGEST_PAUSE_SECONDS:
                self._ends = 0
        else:
            serving.healthy_from = None
            if serving.child.url is not None:
                serving.unwell_since = serving.unwell_since or now
        if serving is self._serving:
            healthy = None if serving.healthy_from is None else now - serving.healthy_from
            self.telemetry.show_health(healthy, serving.child.memory_bytes())
        return serving.unwell_since is not None and now - serving.unwell_since > HANG_SECONDS

    def _start(self) -> None:
        assert self._wanted is not None
        slot, held = self._wanted
        self.before_start()
        model = self.slots.disk.path(f"slots/{slot}") / held.model
        try:
            child = Child(model, held.release, self.runtime)
        except OSError as error:
            # No memory, or too many processes: the cloud answers meanwhile.
            self._pause()
            log.warning("The model's process of %s cannot be started: %s", held.release, error.strerror)
            return
        self._take(Backend(child, slot, held, golden_ratio=self._remembered(slot, held)))

    def _take(self, backend: Backend) -> None:
        self._serving = backend
        if self.telemetry.release != backend.held.release:
            self.telemetry.use(backend.held.release)
        if backend.golden_ratio is not None:
            self.telemetry.show_golden(backend.golden_ratio)

    def _lost(self, backend: Backend) -> None:
        backend.child.end()
        with self._lock:
            if self._serving is not backend:
                return
            self._serving = None
            self._pause()
        self.telemetry.show_health(None, None)
        log.warning("The model's process of %s is gone, %d times in a row", backend.held.release, self._ends)

    def _pause(self) -> None:
        """Before the next start, the longer the more often in a row it ended."""
        self._ends += 1
        self._starts_at = self.monotonic() + min(LONGEST_PAUSE_SECONDS, 2.0 ** (self._ends - 1))

    def _retire(self) -> None:
        if self._serving is not None:
            self._serving.leaves_at = self.monotonic() + self.drain_seconds
            self._leaving.append(self._serving)
            self._serving = None

    def _drained(self) -> list[Backend]:
        """Processes that have nothing to do any more, or took too long with it."""
        with self._lock:
            now = self.monotonic()
            done = [each for each in self._leaving if each.in_flight == 0 or now >= (each.leaves_at or 0)]
            self._leaving = [each for each in self._leaving if each not in done]
            return done

    def _drop_tested(self) -> None:
        if self._tested is not None:
            self._tested.child.end()
            self._tested = None
