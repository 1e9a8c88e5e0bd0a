"""The recording rules that turn each device's series into counts, where devices are scraped: the one place that defines them.

Names follow Prometheus' convention, level:metric:operations. Series of the level `device` are the rules' own memory of what each device told last: a silent
one keeps its last word, also over an hour without the server. They stay where they are made; the other levels are what the operator reads, from that
server or from one that many such servers feed. (https://prometheus.io/docs/practices/rules/)
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

EVALUATION_SECONDS = 30
"""Time between two evaluations of the rules."""
RATE_SECONDS = 120
"""The range of a recorded rate: two scrapes a minute apart."""
LIVE_SECONDS = 120
"""A device that was silent for longer adds nothing to rates and gauges."""
HEARD_SECONDS = 60
"""The telemetry of a channel is whole at a moment when one of its devices was heard of within so many seconds."""
SOAKS = (180, 360, 900, 1_800, 3_600, 10_800)
"""Seconds for which devices are counted as fresh, well, or silent too soon: the soaks that a rollout of counted devices may have."""
AGES = (300, 900, 3_600, 14_400, 86_400, 604_800, 2_592_000, 7_776_000)
"""Seconds within which devices were heard of: the look-backs, and the silences that make a device offline."""
REMEMBERED = "1h"
"""For how long the memory outlives its server."""

SEEN = "device:dram_device_info:timestamp"
RELEASE_AGE = "device:dram_device_release_seconds:last"
GAVE_UP = "device:dram_device_gave_up:last"
HEARD = "channel:dram_device_info:count"
KNOWN = "label:dram_devices:count"
COUNTS = "arm:dram_devices:count"
REQUESTS = "arm:dram_device_requests:rate2m"
BUCKETS = "arm:dram_device_request_seconds_bucket:rate2m"
GOLDEN_SUM = "arm:dram_device_golden_pass_ratio:sum"
GOLDEN_COUNT = "arm:dram_device_golden_pass_ratio:count"
MEMORY = "arm:dram_device_memory_bytes:max"

REPORTING, HEALTHY, SILENT, FAILED = "reporting", "healthy", "silent", "gave-up"
"""Values of the label `state`."""

ONE_DEVICE = ("channel", "device", "release")
ARM = ("channel", "attempt", "arm", "release")
TARGET = ("instance", "job", "namespace", "node", "pod", "container", "endpoint", "service", "host", "hostname")
"""Labels by which Prometheus tells one device's address from another's."""
OF_ONE = ("device", "device_class", "agent_version", "release", "attempt", "arm", *TARGET)
"""What is left of the labels of `dram_device_info` without these is the channel and the owner's labels."""


@dataclass(frozen=True)
class Recording:
    """One rule."""

    record: str
    meaning: str
    expr: str
    labels: dict[str, str] = field(default_factory=dict)

    def rule(self) -> dict[str, Any]:
        """As a rules file has it."""
        return {"record": self.record, "expr": self.expr, **({"labels": self.labels} if self.labels else {})}


def bucket(seconds: float, buckets: tuple[int, ...]) -> int:
    """The shortest of the recorded spans that is no shorter than this; the longest where none is."""
    return next((each for each in buckets if each >= seconds), buckets[-1])


def recordings() -> list[Recording]:
    """Every rule in the order of evaluation: later ones read what earlier ones have just recorded."""
    return [*_memory(), *_known(), *_states(), *_figures()]


def groups() -> list[dict[str, Any]]:
    """The rules as the groups of a rules file."""
    rules = [each.rule() for each in recordings()]
    return [{"name": "dram-devices", "interval": f"{EVALUATION_SECONDS}s", "rules": rules}]


def _by(labels: tuple[str, ...]) -> str:
    return f"({', '.join(labels)})"


def _remembered(name: str) -> str:
    return f"last_over_time({name}[{REMEMBERED}])"


def _memory() -> Iterator[Recording]:
    seen = 'timestamp(dram_device_info{device!=""})'
    yield Recording(
        SEEN,
        "When each device was heard of last, with the labels that it had then.",
        f"topk by (channel, device) (1, {seen} or {_remembered(SEEN)} > time() - {AGES[-1]})",
    )
    now = f"max by {_by(ONE_DEVICE)} (dram_device_release_seconds)"
    yield Recording(
        RELEASE_AGE,
        "For how long each device had run its release when it was heard of last.",
        f"({now} or {_remembered(RELEASE_AGE)}) and on {_by(ONE_DEVICE)} {SEEN}",
    )
    now = f"max by {_by(ONE_DEVICE)} (dram_device_gave_up)"
    before = f"{_remembered(GAVE_UP)} unless on (channel, device) dram_device_gave_up"
    yield Recording(
        GAVE_UP,
        "Whether each device had given a release up when it was heard of last.",
        f"({now} or ({before})) and on (channel, device) {SEEN}",
    )
    yield Recording(
        HEARD,
        "Devices of the channel that were heard of within the last minute; absent while the telemetry is interrupted.",
        f"count by (channel) ({SEEN} > time() - {HEARD_SECONDS})",
    )


def _known() -> Iterator[Recording]:
    for age in AGES:
        yield Recording(
            KNOWN,
            "Devices that were heard of within so many seconds, by the owner's labels.",
            f"count without {_by(OF_ONE)} ({SEEN} > time() - {age})",
            {"within": str(age)},
        )


def _states() -> Iterator[Recording]:
    failed = f"unless on {_by(ONE_DEVICE)} ({GAVE_UP} > 0)"
    age = "(dram_device_healthy_seconds > 0) + (time() - timestamp(dram_device_healthy_seconds))"
    for soak in SOAKS:
        heard, silent = f"({SEEN} > time() - {soak})", f"({SEEN} <= time() - {soak})"
        whole = f"count_over_time({HEARD}[{soak}s]) >= {soak // EVALUATION_SECONDS}"
        counted = {
            REPORTING: heard,
            HEALTHY: f"{heard} and on {_by(ONE_DEVICE)} ({age} >= {soak}) {failed}",
            SILENT: f"{silent} and on {_by(ONE_DEVICE)} ({RELEASE_AGE} < {soak}) {failed} and on (channel) ({whole})",
        }
        for state, each in counted.items():
            yield Recording(COUNTS, STATES[state], _count(each), {"state": state, "within": str(soak)})
    gave_up = f"({GAVE_UP} > 0) + on (channel, device) group_left (attempt, arm) (0 * {SEEN})"
    yield Recording(COUNTS, STATES[FAILED], _count(gave_up), {"state": FAILED})


STATES = {
    REPORTING: "Devices that were heard of within so many seconds.",
    HEALTHY: "Of these: well for as long, and not given up.",
    SILENT: "Devices silent for longer that had run their release for less, while others of the channel were heard of.",
    FAILED: "Devices that gave the release up.",
}


def _count(devices: str) -> str:
    return f"count by {_by(ARM)} ({devices})"


def _figures() -> Iterator[Recording]:
    """Rates first, then their sums: a sum of counters would fall whenever a device restarts."""
    arms = f"on (channel, device) group_left (attempt, arm) (0 * ({SEEN} > time() - {LIVE_SECONDS}))"

    def over(how: str, expression: str, *more: str) -> str:
        return f"{how} by {_by((*ARM, *more))} ({expression} + {arms})"

    requests = f"rate(dram_device_requests_total[{RATE_SECONDS}s])"
    yield Recording(REQUESTS, "Requests a second.", over("sum", requests, "outcome", "served_by"))
    buckets = f"rate(dram_device_request_seconds_bucket[{RATE_SECONDS}s])"
    yield Recording(BUCKETS, "Answers a second by how long they took.", over("sum", buckets, "served_by", "le"))
    golden = "dram_device_golden_pass_ratio"
    yield Recording(GOLDEN_SUM, "Parts of the golden subset that passed, added up.", over("sum", golden))
    yield Recording(GOLDEN_COUNT, "Devices that tell such a part.", over("count", golden))
    yield Recording(MEMORY, "Most memory that a device's model takes.", over("max", "dram_device_memory_bytes"))
