"""Devices whose tokens count no more: a list of JSON lines that the owner adds to.

A line with `before` takes back the tokens issued up to then, for a device that was lost or copied and is enrolled again;
a line without it takes the device out of service for good.
"""

import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from dram_agent.identity import Claims, DeviceId, Moment
from dram_agent.settings import SettingsInvalid
from dram_workers.model import Model

log = logging.getLogger(__name__)
FOR_GOOD = 1 << 40


class Revocation(Model):
    """One line."""

    device: DeviceId
    before: Moment | None = None
    """Tokens issued up to this moment count no more, in seconds since the epoch; null is all that ever will be."""
    at: Moment
    """When it was written."""
    why: Annotated[str, Field(max_length=256)] = ""


def append(path: Path, line: Revocation) -> None:
    """Add a line to the list. SettingsInvalid when the list cannot be written, or is none."""
    try:
        body = path.read_text() if path.exists() else ""
        parse(body)
        with path.open("a") as file:
            file.write(("\n" if body and not body.endswith("\n") else "") + line.model_dump_json(by_alias=True) + "\n")
    except (OSError, ValueError) as error:
        raise SettingsInvalid(f"{path} cannot be added to: {error}") from error


def parse(body: str) -> dict[str, int]:
    """Up to which moment each device's tokens count no more; ValueError names the line."""
    limits: dict[str, int] = {}
    for number, text in enumerate(body.splitlines(), start=1):
        if not text.strip():
            continue
        try:
            line = Revocation.model_validate(json.loads(text))
        except (ValueError, ValidationError) as error:
            raise ValueError(f"line {number} is no revocation") from error
        until = FOR_GOOD if line.before is None else line.before
        limits[line.device] = max(until, limits.get(line.device, -1))
    return limits


@dataclass
class Revocations:
    """The list as the file has it now. A file that became unreadable leaves in force what was read before."""

    path: Path | None
    is_current: bool = True
    """Whether the file, as it is, was read."""
    _seen: tuple[int, int, int] | None = None
    _limits: dict[str, int] = field(default_factory=dict)

    def load(self) -> None:
        """Read the file for the first time. SettingsInvalid."""
        self.refresh()
        if not self.is_current:
            raise SettingsInvalid(f"{self.path} is no readable revocation list")

    def refresh(self) -> None:
        """Read the file again when it changed."""
        if self.path is None:
            return
        try:
            stat = self.path.stat()
            seen = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
            if seen != self._seen:
                self._limits = parse(self.path.read_text())
                self._seen = seen
                log.info("Revocation list read: %d devices", len(self._limits))
            self.is_current = True
        except (OSError, ValueError) as error:
            if self.is_current:
                log.warning("The revocation list cannot be read: %s", error)
            self.is_current = False

    def has_revoked(self, claims: Claims) -> bool:
        """Whether a token counts no more."""
        return claims.issued_at <= self._limits.get(claims.device, -1)
