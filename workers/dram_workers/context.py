"""What every stage is given, and what it gives back."""

import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from dram_workers.results import Measure, Output
from dram_workers.stages import Execution
from dram_workers.store.objects import ObjectStore


class Reporter(Protocol):
    """Takes progress; throttles it; never fails the stage."""

    def report(self, step: int, total_steps: int, metrics: dict[str, float] | None = None) -> None:
        """Tell how far the stage is."""


class Inputs(Protocol):
    """Brings inputs to this machine."""

    def path(self, name: str) -> Path:
        """The input's file or folder, fetched once and checked against its digest; BadInput(DigestMismatch) if it differs."""

    def __contains__(self, name: object) -> bool:
        """Whether the config names this input."""


@dataclass(frozen=True)
class StageContext:
    """The world of a running stage."""

    inputs: Inputs
    store: ObjectStore
    execution: Execution
    reporter: Reporter
    work: Path
    """Empty folder of this attempt, for outputs and scratch files."""
    stopping: threading.Event
    """Set on SIGTERM: save what can be saved and raise Interrupted."""


@dataclass(frozen=True)
class StageOutcome:
    """What a stage made. `folders` become the outputs `stages/<kind>/<key>/<name>/…`; `pinned` point elsewhere."""

    folders: dict[str, Path] = field(default_factory=dict)
    pinned: dict[str, Output] = field(default_factory=dict)
    measures: tuple[Measure, ...] = ()
    facts: dict[str, str | int | float | bool] = field(default_factory=dict)
    warning: str = ""
    """What may go wrong later, in a sentence with numbers and remedy. Only of a stage that is never taken from the cache."""
