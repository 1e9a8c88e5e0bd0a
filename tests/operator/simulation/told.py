"""What the devices of a simulation told, in OpenMetrics, for a real Prometheus."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from math import isnan

import numpy as np

from dram_agent.buckets import LATENCY_BUCKETS
from dram_operator.simulation.devices import Runs
from dram_operator.simulation.simulation import STABLE_DIGEST, Simulation
from dram_operator.simulation.telemetry import CLOUD, ERROR, OK, Counts

BEFORE = 10_000
"""What every counter had counted before: one that has just begun is extrapolated no further than to zero."""
KINDS = {"dram_device_requests": "counter", "dram_device_request_seconds": "histogram"}


@dataclass
class Notebook:
    """Writes down every record of a simulation."""

    simulation: Simulation
    families: dict[str, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        prometheus = self.simulation.prometheus
        recorded = prometheus.record

        def record(now: float) -> None:
            recorded(now)
            for device in np.flatnonzero(prometheus.records.last_seen == now):
                self._tell(int(device), now)

        prometheus.record = record  # type: ignore[method-assign]

    def text(self) -> str:
        """Everything that was written down."""
        lines = [
            line
            for name, found in self.families.items()
            for line in (f"# TYPE {name} {KINDS.get(name, 'gauge')}", *found)
        ]
        return "\n".join([*lines, "# EOF\n"])

    def _tell(self, device: int, now: float) -> None:
        devices, meters, channel = (
            self.simulation.devices,
            self.simulation.devices.meters,
            self.simulation.rollout.channel,
        )
        name = devices.population.inventory[device].id
        at = f"{self.simulation.scenario.starts_at.timestamp() + now:.0f}"
        release = self.simulation.digest if devices.runs[device] == Runs.CANDIDATE else STABLE_DIGEST

        def add(family: str, value: float, suffix: str = "", **labels: object) -> None:
            inner = {"channel": channel, "device": name, **labels}
            shown = ",".join(f'{key}="{text}"' for key, text in inner.items())
            self.families.setdefault(family, []).append(f"{family}{suffix}{{{shown}}} {value} {at}")

        arm = "treated" if devices.treated[device] else "control"
        add("dram_device_info", 1, release=release, attempt=int(devices.attempt[device]), arm=arm)
        healthy = devices.healthy[device]
        add("dram_device_healthy_seconds", 0 if isnan(healthy) else now - healthy, release=release)
        add("dram_device_release_seconds", now - devices.activated[device], release=release)
        add("dram_device_gave_up", int(devices.gave_up[device]), release=self.simulation.digest)
        of_candidate = meters.of_candidate[device]
        for digest, counts in (
            (self.simulation.digest, of_candidate),
            (STABLE_DIGEST, meters.counts[device] - of_candidate),
        ):
            self._count(partial(add, release=digest), counts)
        add("dram_device_golden_pass_ratio", meters.golden[device], release=release)
        add("dram_device_memory_bytes", meters.memory[device], release=release)

    def _count(self, add: Callable[..., None], counts: Counts) -> None:
        """The counters of one release."""
        requests = "dram_device_requests"
        add(requests, BEFORE + counts[CLOUD], "_total", outcome="ok", served_by="cloud")
        add(requests, BEFORE + counts[ERROR], "_total", outcome="error", served_by="device")
        add(requests, BEFORE + counts[OK:].sum(), "_total", outcome="ok", served_by="device")
        seconds, upto = "dram_device_request_seconds", BEFORE + counts[OK:].cumsum()
        for edge, value in zip([*LATENCY_BUCKETS, "+Inf"], upto, strict=True):
            add(seconds, value, "_bucket", served_by="device", le=edge)
        add(seconds, upto[-1], "_count", served_by="device")
