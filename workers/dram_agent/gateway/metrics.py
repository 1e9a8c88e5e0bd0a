"""What a gateway tells of itself. Nothing of it names a device: ids stand in the log of refusals that need a person."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from dram_agent.gateway.refusal import Reason
from dram_agent.gateway.stamp import Dropped

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Metrics:
    """The gateway's metrics; every label set starts at 0."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._accepted = Counter("dram_gateway_accepted", "Pushes that the backend took.", registry=self.registry)
        self._refused = Counter("dram_gateway_refused", "Pushes that were refused.", ["cause"], registry=self.registry)
        self._dropped = Counter(
            "dram_gateway_dropped_points", "Points that were left out of a push.", ["cause"], registry=self.registry
        )
        self._failed = Counter(
            "dram_gateway_backend_failures", "Pushes that the backend did not take.", registry=self.registry
        )
        self._seconds = Histogram(
            "dram_gateway_backend_seconds", "Seconds that the backend took.", buckets=SECONDS, registry=self.registry
        )
        self._devices = Gauge("dram_gateway_devices", "Devices that spoke lately.", registry=self.registry)
        self._stale = Gauge(
            "dram_gateway_revocations_stale",
            "1 while the revocation list cannot be read and an older one is in force.",
            registry=self.registry,
        )
        for reason in Reason:
            self._refused.labels(reason)
        for cause in Dropped:
            self._dropped.labels(cause)

    def count_accepted(self, seconds: float) -> None:
        """The backend took a push, in so many seconds."""
        self._accepted.inc()
        self._seconds.observe(seconds)

    def count_refused(self, reason: Reason) -> None:
        """A push was refused."""
        self._refused.labels(reason).inc()

    def count_dropped(self, cause: Dropped, points: int) -> None:
        """Points were left out."""
        self._dropped.labels(cause).inc(points)

    def count_failed(self) -> None:
        """The backend did not take a push."""
        self._failed.inc()

    def show(self, devices: int, *, is_stale: bool) -> None:
        """Devices in memory, and whether the revocation list is an older one."""
        self._devices.set(devices)
        self._stale.set(is_stale)
