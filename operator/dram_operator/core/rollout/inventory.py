"""Which devices there are: those that reported during the look-back, or those of a file."""

import json
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Annotated

from pydantic import Field, ValidationError

from dram_agent.cohort import device_hash
from dram_agent.document import LabelName, LabelValue
from dram_workers.model import Model

LABEL_PREFIX = "label_"
"""`dram_device_info` carries the owner's labels under this prefix, the id as `device`, the class as `device_class`."""


class InventoryError(ValueError):
    """A line of the file is not a device; the message names it."""


@dataclass(frozen=True)
class Device:
    """A known device."""

    id: str
    labels: Mapping[str, str] = field(default_factory=dict)
    device_class: str | None = None
    last_seen: datetime | None = None
    """Its newest sample; None when it is too long ago to be known, or there is none."""


@dataclass(frozen=True)
class Group:
    """So many devices with the same labels, where a fleet is too large to list: devices are counted before they are stored."""

    count: int
    labels: Mapping[str, str] = field(default_factory=dict)
    offline: int = 0
    """Of these, silent for longer than the strategy's offline.afterSeconds."""


class _Line(Model):
    """A device as the file says it."""

    id: Annotated[str, Field(pattern="^[0-9a-f]{32}$")]
    labels: dict[LabelName, LabelValue] = {}
    device_class: Annotated[str | None, Field(alias="class", min_length=1, max_length=63)] = None
    retired: bool = False


@dataclass(frozen=True)
class Fleet:
    """The known devices in the order of their salted hashes: what cohorts are cut from."""

    hashes: Sequence[int]
    """Sorted."""
    devices: Mapping[int, Device] = field(default_factory=dict)
    """By hash."""
    groups: tuple[Group, ...] = ()
    """Devices that are only counted; their hashes are spread evenly."""

    @property
    def known(self) -> int:
        """How many devices there are."""
        return len(self.hashes) + sum(group.count for group in self.groups)

    def matching(self, labels: Mapping[str, str]) -> Sequence[int]:
        """Hashes of the devices that carry the labels, sorted."""
        if not labels:
            return self.hashes
        return [hashed for hashed in self.hashes if labels.items() <= self.labels_of(hashed).items()]

    def labels_of(self, hashed: int) -> Mapping[str, str]:
        """The labels of a device; empty for one that is not known."""
        device = self.devices.get(hashed)
        return device.labels if device else {}

    def up_to(self, cutoff: int) -> int:
        """How many devices have a hash at or below the cut-off."""
        return bisect_right(self.hashes, cutoff)


@dataclass(frozen=True)
class Inventory:
    """Every known device once, retired ones left out: listed, or, beyond what cohorts count exactly, in groups."""

    devices: tuple[Device, ...] = ()
    groups: tuple[Group, ...] = ()

    @cached_property
    def known(self) -> int:
        """How many devices there are."""
        return len(self.devices) + sum(group.count for group in self.groups)

    def salted(self, salt: str) -> Fleet:
        """The devices by their hashes under a document's salt (hex); kept, because an inventory stays the same for many passes."""
        if salt not in self._salted:
            key = bytes.fromhex(salt)
            by_hash = {device_hash(key, device.id): device for device in self.devices}
            self._salted.clear()
            self._salted[salt] = Fleet(sorted(by_hash), by_hash, self.groups)
        return self._salted[salt]

    @cached_property
    def _salted(self) -> dict[str, Fleet]:
        return {}


def inventory_of_series(series: Iterable[tuple[Mapping[str, str], datetime | None]]) -> Inventory:
    """Devices from the labels of `dram_device_info` and each series' newest sample, None where only its existence is known.

    The newest series of a device counts; of two that are equally old the first.
    """
    newest: dict[str, Device] = {}
    for labels, seen in series:
        device = _of_series(labels, seen)
        known = newest.get(device.id)
        if device.id and (known is None or (seen is not None and (known.last_seen is None or known.last_seen < seen))):
            newest[device.id] = device
    return _in_order(newest.values())


def inventory_of_file(text: str, reported: Inventory) -> Inventory:
    """Devices of a JSON Lines file, with what they reported; raises InventoryError.

    The file alone says which devices there are, and their labels and classes.
    """
    seen = {device.id: device.last_seen for device in reported.devices}
    lines = [_parsed(number, line) for number, line in enumerate(text.splitlines(), start=1) if line.strip()]
    ids = [line.id for line in lines]
    if len(set(ids)) < len(ids):
        twice = next(name for index, name in enumerate(ids) if name in ids[:index])
        raise InventoryError(f"device {twice} stands in the inventory twice")
    devices = (Device(line.id, line.labels, line.device_class, seen.get(line.id)) for line in lines if not line.retired)
    return _in_order(devices)


def _parsed(number: int, line: str) -> _Line:
    try:
        return _Line.model_validate(json.loads(line))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise InventoryError(f"line {number} of the inventory: {place}: {first['msg']}") from error
    except ValueError as error:
        raise InventoryError(f"line {number} of the inventory is not JSON") from error


def _of_series(labels: Mapping[str, str], seen: datetime | None) -> Device:
    own = {name.removeprefix(LABEL_PREFIX): value for name, value in labels.items() if name.startswith(LABEL_PREFIX)}
    return Device(labels.get("device", ""), own, labels.get("device_class") or None, seen)


def _in_order(devices: Iterable[Device]) -> Inventory:
    return Inventory(tuple(sorted(devices, key=lambda device: device.id)))
