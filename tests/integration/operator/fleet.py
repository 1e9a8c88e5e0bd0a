"""A small fleet behind one `/metrics`: devices that obey the signed documents, serve requests, and fail as the test says."""

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from types import TracebackType
from typing import Self

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from dram_agent.cohort import device_hash, is_member, release_for
from dram_agent.document import ChannelDocument
from dram_operator.adapters.releases.repository import ReleaseRepository
from dram_operator.errors import OperatorError
from tests.http_server import HttpServer

POLL_SECONDS = 1.0
REQUESTS_PER_SECOND = 40.0
EDGES = (0.05, 0.1, 0.2, 0.35, 0.5, 1.0, 2.0)
BY_RELEASE = ["channel", "device", "release"]


@dataclass(frozen=True)
class Fault:
    """What is wrong with a release on the devices of a channel."""

    seconds: float = 0.08
    """Of every request."""
    errors: float = 0.0
    """Part of the requests."""
    golden: float = 1.0
    refused: bool = False
    """Devices give up on it."""
    silences: bool = False
    """Devices fall silent as soon as they run it."""


FINE = Fault()


@dataclass
class FleetDevice:
    """One device."""

    id: str
    release: str = ""
    activated: float = 0.0
    counts: dict[str, float] = field(default_factory=dict)
    """Seconds of service by release."""
    gave_up: set[str] = field(default_factory=set)
    silent: bool = False
    moves: list[str] = field(default_factory=list)
    """Releases in the order in which it ran them."""


@dataclass
class FleetChannel:
    """The devices of one EdgeRollout."""

    name: str
    repository: ReleaseRepository
    devices: list[FleetDevice]
    faults: dict[str, Fault] = field(default_factory=dict)
    """By release."""
    document: ChannelDocument | None = None
    digest: str | None = None
    documents: list[ChannelDocument] = field(default_factory=list)
    """All that were seen."""

    def running(self, release: str) -> int:
        """How many devices run a release."""
        return sum(device.release == release for device in self.devices)


class Fleet(Collector):
    """`with Fleet() as fleet:` serves `fleet.target`; devices poll their channel's repository as long as it answers."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self.channels: dict[str, FleetChannel] = {}

    def __enter__(self) -> Self:
        registry = CollectorRegistry()
        registry.register(self)

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = generate_latest(registry)
                self.send_response(200)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- its name in the base class
                return

        self._server = HttpServer(("127.0.0.1", 0), Handler)
        self._threads = [
            threading.Thread(target=self._server.serve_forever, name="fleet-metrics"),
            threading.Thread(target=self._live, name="fleet"),
        ]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        self._server.shutdown()
        for thread in self._threads:
            thread.join()
        self._server.server_close()

    @property
    def target(self) -> str:
        """Where Prometheus scrapes it."""
        return f"127.0.0.1:{self._server.server_port}"

    def add(self, channel: str, repository: ReleaseRepository, count: int, runs: str, **faults: Fault) -> FleetChannel:
        """Devices of a channel that run a release already; faults by release with an `r` before the digest."""
        devices = [FleetDevice(f"{number:032x}", runs, time.monotonic()) for number in range(1, count + 1)]
        made = FleetChannel(
            channel, repository, devices, {digest.removeprefix("r"): fault for digest, fault in faults.items()}
        )
        with self._lock:
            self.channels[channel] = made
        return made

    def describe(self) -> Iterator[Metric]:
        yield from ()

    def collect(self) -> Iterator[Metric]:
        with self._lock:
            families = Families()
            for channel in self.channels.values():
                for device in channel.devices:
                    if not device.silent:
                        families.add(channel, device)
        yield from vars(families).values()

    def _live(self) -> None:
        before = time.monotonic()
        while not self._stop.wait(POLL_SECONDS):
            now = time.monotonic()
            with self._lock:
                for channel in self.channels.values():
                    for device in channel.devices:
                        device.counts[device.release] = device.counts.get(device.release, 0.0) + now - before
            before = now
            repositories = {id(one.repository): one.repository for one in self.channels.values()}
            for repository in repositories.values():
                try:
                    self._poll(repository)
                except OperatorError:
                    continue

    def _poll(self, repository: ReleaseRepository) -> None:
        committed = repository.read()
        for channel in [one for one in self.channels.values() if one.repository is repository]:
            path = f"channels/{channel.name}.json"
            digest = committed.digest_of(path)
            if digest is not None and digest != channel.digest:
                document = ChannelDocument.decode(repository.content(path, digest))
                channel.documents.append(document)
                channel.document, channel.digest = document, digest
            with self._lock:
                for device in channel.devices:
                    self._obey(channel, device)

    def _obey(self, channel: FleetChannel, device: FleetDevice) -> None:
        document = channel.document
        if document is None:
            return
        wanted = release_for(document, {}, device_hash(bytes.fromhex(document.salt), device.id))
        release = wanted.digest if wanted else "none"
        fault = channel.faults.get(release, FINE)
        if fault.refused:
            device.gave_up.add(release)
        elif release != device.release:
            device.release, device.activated = release, time.monotonic()
            device.silent = fault.silences
            device.moves.append(release)


class Families:
    """One scrape."""

    def __init__(self) -> None:
        self.info = GaugeMetricFamily(
            "dram_device_info", "info", labels=[*BY_RELEASE, "attempt", "arm", "device_class", "agent_version"]
        )
        self.healthy = GaugeMetricFamily("dram_device_healthy", "healthy", labels=BY_RELEASE)
        self.release = GaugeMetricFamily("dram_device_release_seconds", "age", labels=BY_RELEASE)
        self.well = GaugeMetricFamily("dram_device_healthy_seconds", "age", labels=BY_RELEASE)
        self.gave_up = GaugeMetricFamily("dram_device_gave_up", "gave up", labels=BY_RELEASE)
        self.golden = GaugeMetricFamily("dram_device_golden_pass_ratio", "golden", labels=BY_RELEASE)
        self.memory = GaugeMetricFamily("dram_device_memory_bytes", "memory", labels=BY_RELEASE)
        self.requests = CounterMetricFamily(
            "dram_device_requests", "requests", labels=[*BY_RELEASE, "outcome", "served_by"]
        )
        self.seconds = HistogramMetricFamily(
            "dram_device_request_seconds", "seconds", labels=[*BY_RELEASE, "served_by"]
        )

    def add(self, channel: FleetChannel, device: FleetDevice) -> None:
        """The series of one device."""
        by, document = [channel.name, device.id, device.release], channel.document
        treated = document is not None and is_member(document, {}, device_hash(bytes.fromhex(document.salt), device.id))
        attempt = str(document.attempt if document else 0)
        self.info.add_metric([*by, attempt, "treated" if treated else "control", "", "1"], 1)
        age = time.monotonic() - device.activated
        self.healthy.add_metric(by, 1)
        self.release.add_metric(by, age)
        self.well.add_metric(by, age)
        self.golden.add_metric(by, channel.faults.get(device.release, FINE).golden)
        self.memory.add_metric(by, 1e9)
        for release in device.gave_up:
            self.gave_up.add_metric([*by[:2], release], 1)
        for release, seconds in device.counts.items():
            self._add_service([*by[:2], release], channel.faults.get(release, FINE), seconds * REQUESTS_PER_SECOND)

    def _add_service(self, by: list[str], fault: Fault, total: float) -> None:
        for served_by, outcome, part in (
            ("device", "ok", 1 - fault.errors),
            ("device", "error", fault.errors),
            ("cloud", "ok", 0.0),
        ):
            self.requests.add_metric([*by, outcome, served_by], total * part)
        buckets = [(f"{edge}", total if fault.seconds <= edge else 0.0) for edge in EDGES]
        self.seconds.add_metric([*by, "device"], [*buckets, ("+Inf", total)], total * fault.seconds)
