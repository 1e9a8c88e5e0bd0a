"""The devices of a rollout, one a row."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from rich.table import Table

from dram_operator.api.edge_rollout import EdgeRollout
from dram_operator.core.rollout.observed import DeviceReport
from dram_operator.core.rollout.telemetry import Memory, Subject
from dram_operator.core.times import stamp
from dram_operator.show.words import ago, said, short

State = Literal["healthy", "unhealthy", "offline", "gave up"]
MARKS: Mapping[State, str] = {"healthy": "✓", "unhealthy": "…", "offline": "!", "gave up": "✗"}


@dataclass(frozen=True)
class DeviceRow:
    """What is known of a device."""

    device: str
    state: State
    release: str | None
    """The digest that it runs."""
    role: Literal["candidate", "stable", "other", "none"]
    """What that release is in the rollout."""
    last_seen: datetime | None
    """None where it is too long ago to be known."""
    device_class: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)


def device_rows(rollout: EdgeRollout, memory: Memory, subject: Subject, at: datetime) -> list[DeviceRow]:
    """A row a device, what is bad first."""
    known = memory.inventory()
    reports = memory.reports(subject)
    rows = []
    for device in known.devices:
        report = reports.get(device.id)
        release = report.release if report else None
        rows.append(
            DeviceRow(
                device=device.id,
                state=_state(report, subject, at),
                release=release,
                role=_role(release, rollout),
                last_seen=report.last_seen if report else None,
                device_class=device.device_class,
                labels=device.labels,
            )
        )
    worst = ["gave up", "offline", "unhealthy", "healthy"]
    return sorted(rows, key=lambda row: (worst.index(row.state), row.device))


def devices_table(rows: list[DeviceRow], now: datetime) -> Table:
    """The rows as a table."""
    table = Table("device", "class", "state", "release", "seen", "labels", box=None)
    for row in rows:
        labels = ",".join(f"{name}={value}" for name, value in sorted(row.labels.items()))
        release = f"{row.role} {short(row.release)}" if row.release else "none"
        state = f"{MARKS[row.state]} {row.state}"
        seen = ago(stamp(row.last_seen), now) if row.last_seen else "long ago"
        cells = [row.device, row.device_class or "", state, release, seen, labels]
        table.add_row(*map(said, cells))
    return table


def _state(report: DeviceReport | None, subject: Subject, at: datetime) -> State:
    if report and report.gave_up_on:
        return "gave up"
    if report is None or (at - report.last_seen).total_seconds() > subject.silence_seconds:
        return "offline"
    return "healthy" if report.healthy_since else "unhealthy"


def _role(release: str | None, rollout: EdgeRollout) -> Literal["candidate", "stable", "other", "none"]:
    if release is None:
        return "none"
    status = rollout.status
    if status.candidate and release == status.candidate.release.digest:
        return "candidate"
    return "stable" if status.stable and release == status.stable.release.digest else "other"
