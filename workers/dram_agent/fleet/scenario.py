"""`fleet.yaml`: what an imagined fleet is like, what happens to it, and when. Times are seconds since the start."""

from datetime import UTC, datetime
from math import ceil
from typing import Annotated, Literal, Self

from pydantic import AwareDatetime, Field, model_validator

from dram_agent.document import LabelName, LabelValue
from dram_agent.fleet.faults import Fault, Offline
from dram_workers.model import Model

LARGEST_FLEET = 20_000
Ratio = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, le=1e15)]
Moment = Annotated[int, Field(ge=-31_536_000, le=31_536_000)]
Name = Annotated[str, Field(max_length=63, pattern="^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
DeviceId = Annotated[str, Field(pattern="^[0-9a-f]{32}$")]
PollSeconds = Annotated[int, Field(ge=1, le=86_400)]


class Behaviour(Model):
    """How a release does on the devices of a group: what a usual device of it shows."""

    latency_seconds: Positive = 0.4
    """Median seconds of a request."""
    latency_sigma: Annotated[float, Field(ge=0, le=3)] = 0.5
    """Spread of one device's requests: the standard deviation of the logarithm of their seconds."""
    error_ratio: Ratio = 0.01
    """Share of the requests served on the device that fail."""
    fallback_ratio: Ratio = 0.02
    """Share of the requests that the cloud serves while the device is well."""
    golden_ratio: Ratio = 1.0
    """Chance of a golden item to be answered well when the release is tried."""
    memory_bytes: Annotated[int, Field(gt=0, le=1 << 50)] = 600_000_000
    """Resident memory of the serving process."""
    measures: Annotated[dict[Name, float], Field(max_length=10)] = {}
    """Figures for metrics of the rollout that have a query of their own, by the metric's name: a usual device's."""


class Change(Model):
    """What is different on the candidate; what is absent is as on stable."""

    latency_seconds: Positive | None = None
    latency_sigma: Annotated[float, Field(ge=0, le=3)] | None = None
    error_ratio: Ratio | None = None
    fallback_ratio: Ratio | None = None
    golden_ratio: Ratio | None = None
    memory_bytes: Annotated[int, Field(gt=0, le=1 << 50)] | None = None
    measures: Annotated[dict[Name, float], Field(max_length=10)] | None = None

    def of(self, stable: Behaviour) -> Behaviour:
        """How the candidate does where stable does so."""
        given = {name: value for name in type(self).model_fields if (value := getattr(self, name)) is not None}
        given["measures"] = stable.measures | (self.measures or {})
        return stable.model_copy(update=given)


class Load(Model):
    """The requests of a device."""

    per_hour: Annotated[float, Field(ge=0, le=100_000)] = 60.0
    """Requests of a usual device in an hour, over the whole day."""
    diurnal: Ratio = 0.6
    """How much the day matters: 0.6 is 1.6 times the mean at the peak, 0.4 times twelve hours later."""
    peak_hour: Annotated[float, Field(ge=0, lt=24)] = 19.0
    """Hour of the peak, in UTC."""


class Group(Model):
    """Devices that are alike. Set count or deviceIds."""

    name: Name
    """For people."""
    count: Annotated[int, Field(ge=1, le=LARGEST_FLEET)] | None = None
    """How many; their ids are drawn."""
    device_ids: Annotated[tuple[DeviceId, ...], Field(max_length=300)] = ()
    """Their ids, 32 hex digits each, where the rollout names devices."""
    labels: Annotated[dict[LabelName, LabelValue], Field(max_length=20)] = {}
    """Labels that cohorts may select by."""
    device_class: Annotated[str | None, Field(alias="class", min_length=1, max_length=63)] = None
    """Class of the devices."""
    load: Load = Load()
    """What they are asked."""
    spread: Annotated[float, Field(ge=0, le=3)] = 0.5
    """How much devices of the group differ from each other, in load, latency, errors and measures: the coefficient of
    variation between them."""
    download_seconds: Annotated[float, Field(ge=0, le=604_800)] = 120.0
    """Median seconds to fetch and try a release."""
    stable: Behaviour = Behaviour()
    """How the stable release does."""
    candidate: Change = Change()
    """What is different on the candidate; nothing, where this is absent."""
    faults: Annotated[tuple[Fault, ...], Field(max_length=20)] = ()
    """What goes wrong with some of them."""

    @model_validator(mode="after")
    def _one_kind_of_devices(self) -> Self:
        if (self.count is None) == (not self.device_ids):
            raise ValueError("set exactly one of count (ids are drawn) and deviceIds")
        return self

    @property
    def size(self) -> int:
        """How many devices it has."""
        return self.count or len(self.device_ids)

    @property
    def on_candidate(self) -> Behaviour:
        """How the candidate does."""
        return self.candidate.of(self.stable)


class Happening(Model):
    """Something that happens to the installation."""

    event: Literal["PrometheusDown", "RepositoryDown", "Frozen"]
    """PrometheusDown: nothing is recorded, no query answered. RepositoryDown: neither operator nor devices reach the release
    repository. Frozen: the installation's switch is on."""
    from_seconds: Moment = 0
    """When it begins."""
    until_seconds: Moment | None = None
    """When it ends; absent is never."""

    @model_validator(mode="after")
    def _ends_after_it_begins(self) -> Self:
        if self.until_seconds is not None and self.until_seconds <= self.from_seconds:
            raise ValueError("untilSeconds has to be after fromSeconds")
        return self

    def is_on(self, seconds: float) -> bool:
        """Whether it is so at a time."""
        return self.from_seconds <= seconds and (self.until_seconds is None or seconds < self.until_seconds)


class Approvals(Model):
    """A person who approves every step that waits for one."""

    after_seconds: Annotated[int, Field(ge=0, le=31_536_000)]
    """How long that person takes."""


class Polling(Model):
    """How the installation lets devices ask, as its settings say."""

    poll_seconds: PollSeconds = 300
    """Seconds between two polls."""
    active_poll_seconds: PollSeconds = 60
    """The same for devices inside of the cohorts."""
    backoff_seconds: PollSeconds = 3600
    """Longest wait between two polls that fail."""
    candidate_lease_seconds: Annotated[int, Field(ge=60, le=31_536_000)] = 86_400
    """A device on the candidate without fresh metadata for so long goes back to stable."""


class Scenario(Model):
    """The fleet, and what happens to it."""

    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = 1
    """Decides everything that is drawn: the same seed gives the same run."""
    starts_at: AwareDatetime = datetime(2030, 1, 7, tzinfo=UTC)
    """The moment of the start, with its time zone. Windows of the rollout and the load's day follow it."""
    longest_seconds: Annotated[int, Field(ge=60, le=7_776_000)] = 604_800
    """Time after which the simulation ends, whatever was reached."""
    polling: Polling = Polling()
    """How devices ask."""
    groups: Annotated[tuple[Group, ...], Field(min_length=1, max_length=50)]
    """The devices."""
    events: Annotated[tuple[Happening, ...], Field(max_length=50)] = ()
    """What happens to the installation."""
    approvals: Approvals | None = None
    """Who approves; absent is nobody."""

    @model_validator(mode="after")
    def _devices_are_one_fleet(self) -> Self:
        if sum(group.size for group in self.groups) > LARGEST_FLEET:
            raise ValueError(f"the groups have more than {LARGEST_FLEET} devices: make them smaller")
        for what, found in (
            ("group", [group.name for group in self.groups]),
            ("device", [one for group in self.groups for one in group.device_ids]),
        ):
            if twice := next((one for one in found if found.count(one) > 1), None):
                raise ValueError(f"{what} {twice} is there twice: each has to be another one")
        return self

    def is_on(self, event: str, seconds: float) -> bool:
        """Whether something happens to the installation at a time."""
        return any(one.event == event and one.is_on(seconds) for one in self.events)

    def changes(self) -> list[int]:
        """Every time at which something that is fixed to the clock begins or ends."""
        found = [one for event in self.events for one in (event.from_seconds, event.until_seconds)]
        away = [fault for group in self.groups for fault in group.faults if isinstance(fault, Offline)]
        found += [one for fault in away for one in (fault.from_seconds, fault.until_seconds)]
        return sorted({one for one in found if one is not None})


def hit(share: float, size: int) -> int:
    """How many of a group's devices a fault hits: at least one."""
    return min(size, max(1, ceil(share * size - 1e-9)))
