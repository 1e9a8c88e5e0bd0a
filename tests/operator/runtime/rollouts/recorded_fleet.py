"""A fleet of real agents' series in a real Prometheus, at any date and as fast as one likes, with the chart's recording rules evaluated over them.

Prometheus evaluates rules by its own clock. Here each rule is asked of it as of a moment, and what it says is written back, in the order and with the ends of
series that Prometheus gives them; `test_recording.py` has promtool evaluate the same file itself.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection
from typing import Protocol, Self
from urllib.parse import urlencode

from prometheus_client.samples import Sample

from dram_agent.cohort import device_hash
from dram_agent.standing import Arm, Standing
from dram_agent.telemetry import NONE, Identity, Outcome, ServedBy, Telemetry
from dram_operator.core.rollout.recording import AGES, EVALUATION_SECONDS, SOAKS, Recording, recordings
from tests.cluster.prometheus import PrometheusServer
from tests.cluster.remote_write import STALE, Point, write

START = datetime(2020, 5, 1, 12, tzinfo=UTC)
CHANNEL = "tv/support-bot"
LEFT_OUT = ("dram_device_fallbacks", "dram_device_refused_metadata", "dram_device_update_state", "dram_device_healthy")
ENDINGS_LEFT_OUT = ("_created", "_sum", "_count")
"""What neither the rules nor the operator reads."""
SPANS = {None, str(AGES[0]), str(AGES[2]), str(AGES[-2]), str(SOAKS[0])}
"""The spans that a rollout with an interval of a minute asks for."""


class Watched(Protocol):
    """A server with counts, and what time it is there."""

    @property
    def server(self) -> PrometheusServer:
        """The server."""

    @property
    def at(self) -> datetime:
        """The time."""

    @property
    def now(self) -> float:
        """The same on a clock that nobody sets, in seconds."""


@dataclass
class Device:
    """One agent."""

    id: str
    labels: dict[str, str] = field(default_factory=dict)
    runs: str = NONE
    activated: float = 0.0
    healthy: bool = True
    silent: bool = False
    seconds: float = 0.1
    """Of every request."""
    errors: int = 0
    """Of ten requests."""
    cloud: int = 0
    golden: float = 1.0
    memory_bytes: int = 10**9

    def __post_init__(self) -> None:
        self.telemetry = Telemetry(Identity(CHANNEL, self.id, "box", "1", self.labels))

    def run(self, release: str, now: float) -> None:
        """Switch to a release."""
        if release != self.runs:
            self.runs, self.activated = release, now
            self.telemetry.use(release)

    def live(self, now: float, attempt: int, arm: Arm, gave_up: dict[str, bool] | None = None) -> None:
        """Ten more requests, and everything else as it is now."""
        told, age = self.telemetry, now - self.activated
        for number in range(10):
            outcome = Outcome.ERROR if number < self.errors else Outcome.OK
            told.count_request(outcome, ServedBy.CLOUD if number >= 10 - self.cloud else ServedBy.DEVICE, self.seconds)
        told.show_health(age if self.healthy else None, self.memory_bytes)
        told.show_golden(self.golden)
        told.show_standing(Standing(attempt, arm, gave_up or {}, self.runs, age))

    def points(self) -> Iterator[Point]:
        """Its series, as scraped."""
        for family in self.telemetry.collect():
            for sample in family.samples if family.name not in LEFT_OUT else ():
                if not sample.name.endswith(ENDINGS_LEFT_OUT) and not _is_of_the_cloud(sample):
                    yield {"__name__": sample.name, "instance": self.id[:8], **sample.labels}, sample.value


def _is_of_the_cloud(sample: Sample) -> bool:
    return sample.name.endswith("_bucket") and sample.labels["served_by"] == ServedBy.CLOUD


class RecordedFleet:
    """`with RecordedFleet() as fleet:` has a server; `tick()` is half a minute."""

    def __init__(self) -> None:
        self.server = PrometheusServer(receives=True)
        self.now = 0.0
        self.records = True
        self._rules = [one for one in recordings() if one.labels.get("within") in SPANS]
        self._before: dict[str, dict[frozenset[tuple[str, str]], Mapping[str, str]]] = {}

    def __enter__(self) -> Self:
        self.server.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.server.__exit__(None, None, None)

    @property
    def at(self) -> datetime:
        """The time."""
        return START + timedelta(seconds=self.now)

    def tick(self, devices: list[Device]) -> None:
        """Scrape all devices that are not silent, then evaluate the rules."""
        self._write("devices", [point for one in devices if not one.silent for point in one.points()])
        for number, rule in enumerate(self._rules if self.records else ()):
            self._write(f"rule {number}", list(self._evaluated(rule)))

    def go(self) -> None:
        """Let half a minute go by."""
        self.now += EVALUATION_SECONDS

    def _evaluated(self, rule: Recording) -> Iterator[Point]:
        connection = HTTPConnection(self._host, timeout=30)
        try:
            form = urlencode({"query": rule.expr, "time": self.at.timestamp()})
            connection.request("GET", f"/api/v1/query?{form}")
            told = json.loads(connection.getresponse().read())
        finally:
            connection.close()
        assert told["status"] == "success", (rule.record, told)
        for series in told["data"]["result"]:
            yield {**series["metric"], **rule.labels, "__name__": rule.record}, float(series["value"][1])

    def _write(self, source: str, points: list[Point]) -> None:
        """Series that a source does not tell any more end."""
        told = {frozenset(labels.items()): labels for labels, _ in points}
        gone = [labels for key, labels in self._before.get(source, {}).items() if key not in told]
        self._before[source] = told
        write(self._host, self.at.timestamp(), [*points, *((labels, STALE) for labels in gone)])

    @property
    def _host(self) -> str:
        return self.server.url.removeprefix("http://")


def ids_split_by(salt: str, cutoff: int, below: int, above: int) -> tuple[list[str], list[str]]:
    """So many device ids whose hashes are at or below a cut-off, and so many above."""
    found: tuple[list[str], list[str]] = ([], [])
    number = 0
    while len(found[0]) < below or len(found[1]) < above:
        name = f"{number:032x}"
        found[device_hash(bytes.fromhex(salt), name) > cutoff].append(name)
        number += 1
    return found[0][:below], found[1][:above]
