"""The series that an agent has: every name, its kind, its labels and the range of its values. Nothing else passes."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from dram_agent.errors import Cause
from dram_agent.standing import Arm, Phase
from dram_agent.telemetry import FallbackCause, Outcome, ServedBy

DECADE_SECONDS = 315_576_000.0
LARGEST_COUNT = float(1 << 53)
"""Up to here every whole number is a float."""
OWNER_LABEL = re.compile("label_[a-zA-Z][a-zA-Z0-9]*(_[a-zA-Z0-9]+)*")
LONGEST_NAME, LONGEST_VALUE, MOST_OWNER_LABELS = 69, 63, 16
INFO = "dram_device_info"
REQUESTS = "dram_device_requests"


class Kind(StrEnum):
    """How OTLP carries a metric."""

    LEVEL = "gauge"
    COUNT = "sum"
    DISTRIBUTION = "histogram"


@dataclass(frozen=True)
class Shape:
    """A metric."""

    kind: Kind
    largest: float = 1.0
    """Values are clipped to 0 … this."""
    labels: tuple[str, ...] = ("release",)
    """Beside those that the gateway stamps."""


def _choices(*values: str) -> re.Pattern[str]:
    return re.compile("|".join(map(re.escape, values)))


LABELS: Mapping[str, re.Pattern[str]] = {
    "release": re.compile("[0-9a-f]{64}|none"),
    "attempt": re.compile("[0-9]{1,9}"),
    "agent_version": re.compile(r"[0-9A-Za-z.+-]{1,32}"),
    "arm": _choices(*Arm),
    "state": _choices(*Phase),
    "outcome": _choices(*Outcome),
    "served_by": _choices(*ServedBy),
    "cause": _choices(*Cause, *FallbackCause),
}
"""What a label may say."""
OPEN = ("release", "attempt", "agent_version")
"""Labels whose values nobody can list beforehand; how many of them a device brings is bounded."""
SHAPES: Mapping[str, Shape] = {
    INFO: Shape(Kind.LEVEL, 1, ("release", "attempt", "arm", "agent_version")),
    "dram_device_healthy": Shape(Kind.LEVEL),
    "dram_device_release_seconds": Shape(Kind.LEVEL, DECADE_SECONDS),
    "dram_device_healthy_seconds": Shape(Kind.LEVEL, DECADE_SECONDS),
    "dram_device_gave_up": Shape(Kind.LEVEL),
    "dram_device_update_state": Shape(Kind.LEVEL, 1, ("state",)),
    "dram_device_memory_bytes": Shape(Kind.LEVEL, float(1 << 50)),
    "dram_device_golden_pass_ratio": Shape(Kind.LEVEL),
    REQUESTS: Shape(Kind.COUNT, LARGEST_COUNT, ("release", "outcome", "served_by")),
    "dram_device_fallbacks": Shape(Kind.COUNT, LARGEST_COUNT, ("release", "cause")),
    "dram_device_refused_metadata": Shape(Kind.COUNT, LARGEST_COUNT, ("cause",)),
    "dram_device_request_seconds": Shape(Kind.DISTRIBUTION, LARGEST_COUNT, ("release", "served_by")),
}
"""By the name that a push uses: counters without `_total`."""
