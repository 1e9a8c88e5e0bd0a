"""One device under test: the real repository behind a real HTTP server, the real agent code, a clock that is moved."""

import json
import random
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from dram_agent.clock import ClockGuard
from dram_agent.device import Updater
from dram_agent.disk import Disk
from dram_agent.document import Artifact, ChannelDocument, Cohort, Release, Requirements
from dram_agent.errors import Cause
from dram_agent.slots import Held, Slot, Slots
from dram_agent.standing import Phase
from dram_agent.state import Why
from dram_agent.trust import Trust
from dram_agent.update import Device
from dram_agent.web import Web, WebSettings
from tests.agent.site import Site
from tests.operator.adapters.releases.installation import Installation

CHANNEL = "tv/support-bot"
DEVICE = "d" * 32
PATH = f"channels/{CHANNEL}.json"
EVERYBODY = (Cohort(cutoff="f" * 16),)


@dataclass
class Fleet:
    """The operator's side: what it publishes reaches the site."""

    installation: Installation
    site: Site
    attempt: int = 1

    def release(self, **files: bytes) -> Release:
        """Upload and sign an artifact."""
        digest = self.installation.upload(**files)
        self.installation.signer().sign([digest])
        requires = Requirements(format="gguf", memory_bytes=1, agent_version="0")
        return Release(
            digest=digest, artifacts=(Artifact(path=f"artifacts/{digest}/manifest.json", requires=requires),)
        )

    def document(
        self, stable: Release | None = None, candidate: Release | None = None, **more: object
    ) -> ChannelDocument:
        fields = {
            "channel": CHANNEL,
            "attempt": self.attempt,
            "salt": "00ff",
            "cohorts": EVERYBODY,
            "stable": stable,
            "candidate": candidate,
            "poll_seconds": 300,
            "active_poll_seconds": 60,
            "backoff_seconds": 3600,
            "candidate_lease_seconds": 86400,
            **more,
        }
        return ChannelDocument.model_validate(fields)

    def publish(self, stable: Release | None = None, candidate: Release | None = None, **more: object) -> None:
        self.installation.repository().publish({PATH: self.document(stable, candidate, **more).encode()})
        self.copy()

    def renew(self) -> None:
        self.installation.repository().renew()
        self.copy()

    def copy(self) -> None:
        """Bring the bucket's files to the site."""
        bucket = self.installation.bucket
        for each in bucket.list(""):
            if each.key == "metadata/timestamp.json" or each.key not in self.site.files:
                stored = bucket.get(each.key)
                assert stored is not None
                self.site.files[each.key] = stored.body


@dataclass
class Bench:
    """Stands for the model's process where the test is about files and decisions."""

    clock: ClockGuard
    serving: str | None = None
    verdicts: dict[str, Why] = field(default_factory=dict)
    healthy: bool = True
    sick: str | None = None
    """A release whose model does not answer."""
    log: list[str] = field(default_factory=list)
    since: float | None = None

    def test(self, slot: Slot, held: Held, artifact: Artifact) -> Why | None:
        self.log.append(f"test {held.release[:4]}")
        return self.verdicts.get(held.release)

    def serve(self, slot: Slot, held: Held) -> None:
        self.log.append(f"serve {held.release[:4]}")
        self.serving, self.since = held.release, self.clock.now()

    def stop(self) -> None:
        self.log.append("stop")
        self.serving = None

    def healthy_since(self) -> float | None:
        return self.since if self.serving and self.healthy and self.serving != self.sick else None

    def is_starting(self) -> bool:
        return False


@dataclass
class Box:
    """The agent's parts over a folder, as `dram agent` wires them."""

    fleet: Fleet
    folder: Path
    owner: Device = field(default_factory=lambda: Device(id="device-1", agent_version="1.0.0"))
    free_bytes: int = 1 << 40
    refused: Counter[Cause] = field(default_factory=Counter)
    phases: list[Phase] = field(default_factory=list)
    disk_type: type[Disk] = Disk

    booted_at: float = 0.0
    """The monotonic clock begins here."""

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.start()

    def start(self, disk: Disk | None = None) -> None:
        """A new process over the same folder."""
        self.disk = disk or Disk(self.folder)
        wall = lambda: self.fleet.installation.clock().timestamp()  # noqa: E731
        self.clock = ClockGuard(self.disk, wall)
        self.web = Web(WebSettings(self.fleet.site.url, read_seconds=20))
        self.trust = Trust(
            self.disk, self.web, self.clock, self.fleet.installation.first_root, CHANNEL, self.count_refusal
        )
        self.slots = Slots(self.disk, self.trust, self.web, lambda: self.free_bytes)
        self.runtime = Bench(self.clock)
        self.updater = Updater(
            self.disk,
            self.trust,
            self.slots,
            self.clock,
            self.runtime,
            lambda: self.owner,
            random.Random(1),
            self.phases.append,
            lambda: self.fleet.installation.clock().timestamp() - self.booted_at,
        )

    def count_refusal(self, cause: Cause) -> None:
        self.refused[cause] += 1

    def boot(self, disk: Disk | None = None) -> None:
        """Power on."""
        self.booted_at = self.fleet.installation.clock().timestamp()
        self.start(disk)
        self.updater.boot()

    def state(self) -> dict[str, object]:
        """The state on the disk."""
        body = self.disk.read("state.json")
        return dict(json.loads(body)) if body else {}
