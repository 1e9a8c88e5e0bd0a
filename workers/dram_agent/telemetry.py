"""What the device tells about itself: `/metrics`, and the same series for a push. Every label set starts at 0.

A counter that appears with its first failure has no increase that a query could see; so each exists before.
"""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric
from prometheus_client.registry import Collector

from dram_agent.buckets import LATENCY_BUCKETS
from dram_agent.errors import Cause
from dram_agent.standing import Phase, Standing

NONE = "none"
"""The label `release` of a device without a local model."""
RELEASES_KEPT = 2
"""Series of the release before stay, so that a rate over the switch has both; older ones go."""
LABEL_PREFIX = "label_"
"""`dram_device_info` carries the owner's labels under this prefix."""


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
    owner_labels: Mapping[str, str] = field(default_factory=dict)
    """Labels that cohorts may select by."""

    @property
    def labels(self) -> dict[str, str]:
        """On every series."""
        return {"channel": self.channel, **({"device": self.device} if self.device else {})}

    @property
    def info(self) -> dict[str, str]:
        """On `dram_device_info` beside them."""
        prefixed = {f"{LABEL_PREFIX}{name}": value for name, value in self.owner_labels.items()}
        return {"device_class": self.device_class or "", "agent_version": self.agent_version, **prefixed}


class Telemetry(Collector):
    """The device's metrics. A collection sees every change whole: a series that blinked would count as gone."""

    def __init__(self, identity: Identity) -> None:
        self.registry = CollectorRegistry()
        self._lock = threading.RLock()
        self._identity = identity
        self._standing = Standing()
        self._own = identity.labels
        self._releases: list[str] = []
        self.release = NONE
        own, by = list(self._own), [*self._own, "release"]
        self._info = Gauge(
            "dram_device_info",
            "1; whose series these are, and what the device is assigned to.",
            [*by, "attempt", "arm", *identity.info],
            registry=self.registry,
        )
        self._healthy = Gauge("dram_device_healthy", "1 while the local model answers.", by, registry=self.registry)
        self._release_seconds = Gauge(
            "dram_device_release_seconds", "Seconds since this release was activated.", by, registry=self.registry
        )
        self._healthy_seconds = Gauge(
            "dram_device_healthy_seconds", "Seconds of unbroken health of this release.", by, registry=self.registry
        )
        self._gave_up = Gauge(
            "dram_device_gave_up", "1 for a release on offer that failed here.", by, registry=self.registry
        )
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

    def collect(self) -> list[Metric]:
        """Every series as of one moment."""
        with self._lock:
            return list(self.registry.collect())

    def use(self, release: str) -> None:
        """The release that is served from now on; `NONE` is no local model."""
        with self._lock:
            self.release = release
            self._releases = [*(each for each in self._releases if each != release), release]
            self._begin_counters()
            for gauge in (self._healthy, self._release_seconds, self._healthy_seconds, self._memory, self._golden):
                gauge.clear()
            for gauge in (self._healthy, self._release_seconds, self._healthy_seconds):
                gauge.labels(**self._by(release)).set(0)
            while len(self._releases) > RELEASES_KEPT:
                gone = self._releases.pop(0)
                for metric in (self._requests, self._seconds, self._fallbacks):
                    metric.remove_by_labels({"release": gone})
            self._show_info()

    def show_standing(self, standing: Standing) -> None:
        """The device's assignment, what it gave up on, and the age of its release."""
        with self._lock:
            if standing.gave_up != self._standing.gave_up:
                self._gave_up.clear()
                for release, gave_up in standing.gave_up.items():
                    self._gave_up.labels(**self._by(release)).set(gave_up)
            if standing.release == self.release:
                self._release_seconds.labels(**self._by(self.release)).set(standing.release_seconds)
            self._standing = standing
            self._show_info()

    def count_request(self, outcome: Outcome, served_by: ServedBy, seconds: float, release: str | None = None) -> None:
        """A request has ended. It is the release's that was asked: an answer of before a switch may end after it."""
        with self._lock:
            asked = release or self.release
            if asked not in self._releases:
                return
            by = self._by(asked)
            self._requests.labels(**by, outcome=outcome, served_by=served_by).inc()
            if outcome is Outcome.OK:
                self._seconds.labels(**by, served_by=served_by).observe(seconds)

    def count_fallback(self, cause: FallbackCause, release: str | None = None) -> None:
        """The cloud has to answer in place of a release."""
        with self._lock:
            asked = release or self.release
            if asked in self._releases:
                self._fallbacks.labels(**self._by(asked), cause=cause).inc()

    def count_refusal(self, cause: Cause) -> None:
        """Something was refused."""
        self._refused.labels(**self._own, cause=cause).inc()

    def show_phase(self, phase: Phase) -> None:
        """What the update is at."""
        for each in Phase:
            self._phase.labels(**self._own, state=each).set(each is phase)

    def show_health(self, healthy_seconds: float | None, memory_bytes: int | None) -> None:
        """For how long the local model has answered without a break, None when it does not; and what it takes."""
        with self._lock:
            by = self._by(self.release)
            self._healthy.labels(**by).set(healthy_seconds is not None)
            self._healthy_seconds.labels(**by).set(healthy_seconds or 0.0)
            if memory_bytes is not None:
                self._memory.labels(**by).set(memory_bytes)

    def show_golden(self, ratio: float) -> None:
        """The golden subset was run on the model that is served."""
        self._golden.labels(**self._by(self.release)).set(ratio)

    def _by(self, release: str) -> dict[str, str]:
        return {**self._own, "release": release}

    def _begin_counters(self) -> None:
        by = self._by(self.release)
        for served_by in ServedBy:
            self._seconds.labels(**by, served_by=served_by)
            for outcome in Outcome:
                self._requests.labels(**by, outcome=outcome, served_by=served_by)
        for cause in FallbackCause:
            self._fallbacks.labels(**by, cause=cause)

    def _show_info(self) -> None:
        by, assigned = self._by(self.release), {"attempt": str(self._standing.attempt), "arm": self._standing.arm}
        self._info.clear()
        self._info.labels(**by, **assigned, **self._identity.info).set(1)
