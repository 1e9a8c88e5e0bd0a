"""What the device tells about itself: `/metrics`, and the same series for a push. Every label set starts at 0.

A counter that appears with its first failure has no increase that a query could see; so each exists before.
"""

from dataclasses import dataclass
from enum import StrEnum

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from dram_agent.buckets import LATENCY_BUCKETS
from dram_agent.device import Phase
from dram_agent.errors import Cause

NONE = "none"
"""The label `release` of a device without a local model."""
RELEASES_KEPT = 2
"""Series of the release before stay, so that a rate over the switch has both; older ones go."""


class ServedBy(StrEnum):
    """Who answered."""

    DEVICE = "device"
    CLOUD = "cloud"


class Outcome(StrEnum):
    """How a request ended."""

    OK = "ok"
    ERROR = "error"
    """Not answered, or broken off."""
    INVALID = "invalid"
    """The caller's fault."""


class FallbackCause(StrEnum):
    """Why the cloud answered instead of the device."""

    OVERLOAD = "overload"
    """As many requests as the model takes at once were being answered."""
    TIMEOUT = "timeout"
    """The model did not answer in time."""
    CRASH = "crash"
    """The model's process went away during the request."""
    UNHEALTHY = "unhealthy"
    """There was no model that answers."""


@dataclass(frozen=True)
class Identity:
    """Labels that say whose series these are."""

    channel: str
    device: str | None = None
    """The device's id; None where the owner does not allow it."""
    device_class: str | None = None
    agent_version: str = ""

    @property
    def labels(self) -> dict[str, str]:
        """On every series."""
        return {"channel": self.channel, **({"device": self.device} if self.device else {})}


class Telemetry:
    """The device's metrics."""

    def __init__(self, identity: Identity) -> None:
        self.registry = CollectorRegistry()
        self._identity = identity
        self._own = identity.labels
        self._releases: list[str] = []
        self.release = NONE
        own, by = list(self._own), [*self._own, "release"]
        self._info = Gauge(
            "dram_device_info",
            "1; whose series these are, and what the device is assigned to.",
            [*by, "attempt", "arm", "device_class", "agent_version"],
            registry=self.registry,
        )
        self._healthy = Gauge("dram_device_healthy", "1 while the local model answers.", by, registry=self.registry)
        self._phase = Gauge(
            "dram_device_update_state", "1 for what the device is at.", [*own, "state"], registry=self.registry
        )
        self._requests = Counter(
            "dram_device_requests", "Requests.", [*by, "outcome", "served_by"], registry=self.registry
        )
        self._seconds = Histogram(
            "dram_device_request_seconds",
            "Seconds to the end of an answer.",
            [*by, "served_by"],
            buckets=LATENCY_BUCKETS,
            registry=self.registry,
        )
        self._fallbacks = Counter(
            "dram_device_fallbacks", "Requests that the cloud had to answer.", [*by, "cause"], registry=self.registry
        )
        self._memory = Gauge(
            "dram_device_memory_bytes", "Resident memory of the model's process.", by, registry=self.registry
        )
        self._golden = Gauge(
            "dram_device_golden_pass_ratio", "Part of the golden subset that passed here.", by, registry=self.registry
        )
        self._refused = Counter(
            "dram_device_refused_metadata", "What was not what was signed.", [*own, "cause"], registry=self.registry
        )
        for cause in Cause:
            self._refused.labels(**self._own, cause=cause)
        self.show_phase(Phase.WAITING)
        self.use(NONE)
        self.assign(0, treated=False)

    def use(self, release: str) -> None:
        """The release that is served from now on; `NONE` is no local model."""
        self.release = release
        self._releases = [*(each for each in self._releases if each != release), release]
        by = self._by(release)
        for served_by in ServedBy:
            self._seconds.labels(**by, served_by=served_by)
            for outcome in Outcome:
                self._requests.labels(**by, outcome=outcome, served_by=served_by)
        for cause in FallbackCause:
            self._fallbacks.labels(**by, cause=cause)
        for gauge in (self._healthy, self._memory, self._golden):
            gauge.clear()
        self._healthy.labels(**by).set(0)
        while len(self._releases) > RELEASES_KEPT:
            gone = self._releases.pop(0)
            for metric in (self._requests, self._seconds, self._fallbacks):
                metric.remove_by_labels({"release": gone})
        self._show_info()

    def assign(self, attempt: int, *, treated: bool) -> None:
        """The attempt that the device takes part in, and its arm: by assignment, also after it fell back."""
        self._assigned = str(attempt), "treated" if treated else "control"
        self._show_info()

    def count_request(self, outcome: Outcome, served_by: ServedBy, seconds: float) -> None:
        """A request has ended."""
        by = self._by(self.release)
        self._requests.labels(**by, outcome=outcome, served_by=served_by).inc()
        if outcome is Outcome.OK:
            self._seconds.labels(**by, served_by=served_by).observe(seconds)

    def count_fallback(self, cause: FallbackCause) -> None:
        """The cloud has to answer."""
        self._fallbacks.labels(**self._by(self.release), cause=cause).inc()

    def count_refusal(self, cause: Cause) -> None:
        """Something was refused."""
        self._refused.labels(**self._own, cause=cause).inc()

    def show_phase(self, phase: Phase) -> None:
        """What the update is at."""
        for each in Phase:
            self._phase.labels(**self._own, state=each).set(each is phase)

    def show_health(self, *, healthy: bool, memory_bytes: int | None) -> None:
        """Whether the local model answers, and what it takes."""
        self._healthy.labels(**self._by(self.release)).set(healthy)
        if memory_bytes is not None:
            self._memory.labels(**self._by(self.release)).set(memory_bytes)

    def show_golden(self, ratio: float) -> None:
        """The golden subset was run on the model that is served."""
        self._golden.labels(**self._by(self.release)).set(ratio)

    def _by(self, release: str) -> dict[str, str]:
        return {**self._own, "release": release}

    def _show_info(self) -> None:
        attempt, arm = getattr(self, "_assigned", ("0", "control"))
        self._info.clear()
        self._info.labels(
            **self._by(self.release),
            attempt=attempt,
            arm=arm,
            device_class=self._identity.device_class or "",
            agent_version=self._identity.agent_version,
        ).set(1)
