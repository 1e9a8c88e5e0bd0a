"""One imagined device with the real agent in it: everything but the model is what a device runs."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from dram_agent.clock import ClockGuard
from dram_agent.device import Updater
from dram_agent.disk import Disk
from dram_agent.fleet.draw import Imagined
from dram_agent.fleet.faults import ClockSkew, Offline, Silent
from dram_agent.fleet.virtual import VirtualRuntime
from dram_agent.slots import Slots
from dram_agent.telemetry import Identity, Telemetry
from dram_agent.trust import Trust
from dram_agent.update import Device
from dram_agent.web import Web, WebSettings

OFFLINE_SECONDS = 1.0
"""How often an offline device looks whether it is back."""


@dataclass(frozen=True)
class Place:
    """What all devices of a fleet have in common."""

    channel: str
    repository: str
    """Address of the release repository's root."""
    root: bytes
    """The pinned root of trust."""
    state: Path
    """A folder a device is made in it."""
    ca_file: str | None = None
    wall: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic


class Member:
    """A device of the fleet."""

    def __init__(self, one: Imagined, place: Place) -> None:
        self.one = one
        self._place = place
        self._began = place.monotonic()
        self._candidates = set[str]()
        self._silent = False
        folder = place.state / one.id
        folder.mkdir(parents=True, exist_ok=True)
        disk, dice = Disk(folder), random.Random(one.id)  # noqa: S311 -- nothing secret is drawn
        skew = sum(fault.seconds for fault in one.faults if isinstance(fault, ClockSkew))
        clock = ClockGuard(disk, lambda: place.wall() + skew)
        device = Device(one.id, one.group.labels, one.group.device_class, agent_version=version("dram"))
        self.telemetry = Telemetry(
            Identity(place.channel, one.id, device.device_class, device.agent_version, device.labels)
        )
        web = Web(WebSettings(place.repository, place.ca_file))
        trust = Trust(disk, web, clock, place.root, place.channel, self.telemetry.count_refusal)
        slots = Slots(disk, trust, web, disk.free_bytes)
        self.runtime = VirtualRuntime(one, self.telemetry, self._is_candidate, clock.now, place.monotonic, dice=dice)
        self.updater = Updater(
            disk,
            trust,
            slots,
            clock,
            self.runtime,
            lambda: device,
            dice,
            self.telemetry.show_phase,
            monotonic=place.monotonic,
        )
        self.runtime.before_start = self.updater.count_start

    def boot(self) -> None:
        """Power on."""
        self.updater.boot()

    def poll(self) -> float:
        """One cycle of the agent; seconds to wait for the next. While it is offline, nothing is asked."""
        return OFFLINE_SECONDS if self.is_offline() else self.updater.cycle()

    def live(self) -> None:
        """What goes on between polls."""
        if self.is_offline():
            return
        self.runtime.live()
        self.updater.tick()
        self.telemetry.show_standing(self.updater.standing())
        age = self.runtime.seconds_on_candidate()
        silences = (fault.after_seconds for fault in self.one.faults if isinstance(fault, Silent))
        self._silent = self._silent or (age is not None and any(after <= age for after in silences))

    def tells(self) -> bool:
        """Whether its telemetry can be had now."""
        return not (self._silent or self.is_offline())

    def is_offline(self) -> bool:
        """Whether it has no network, or no power."""
        now = self._place.monotonic() - self._began
        return any(
            fault.from_seconds <= now and (fault.until_seconds is None or now < fault.until_seconds)
            for fault in self.one.faults
            if isinstance(fault, Offline)
        )

    def _is_candidate(self, release: str) -> bool:
        """Whether a release came as the candidate; it stays that for this device when it has become stable."""
        document = self.updater.document
        if document is not None and document.candidate is not None:
            self._candidates.add(document.candidate.digest)
        return release in self._candidates
