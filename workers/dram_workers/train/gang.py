"""The files by which the supervisor and the ranks of one machine talk. No torch."""

import json
import time
from dataclasses import dataclass
from pathlib import Path

from dram_workers.errors import ExitCode, StageError, WorkerReason
from dram_workers.model import Model
from dram_workers.results import StageMessage
from dram_workers.stages import TrainConfig


class Task(Model):
    """What every rank is given."""

    config: TrainConfig
    inputs: dict[str, str]
    """Local path of each input."""
    work: str
    """The attempt's folder on this machine."""
    supervisor: int
    """Process that the ranks must not outlive."""


class LastWords(Model):
    """How a rank ended badly."""

    at: float
    """Seconds since the epoch."""
    exit_code: int
    message: StageMessage

    @classmethod
    def of(cls, error: StageError) -> "LastWords":
        """What a rank says of the error that ends it."""
        message = StageMessage(reason=error.reason, message=error.message, field=error.field, remedy=error.remedy)
        return cls(at=time.time(), exit_code=int(error.exit_code), message=message)


class Death(Model):
    """A rank as torchrun saw it end."""

    rank: int
    exit_code: int
    """Negative for a signal."""


class TrainOutcome(Model):
    """What rank 0 made."""

    student: str
    """Folder of the student."""
    facts: dict[str, str | int | float | bool]


@dataclass(frozen=True)
class Gang:
    """Names of the files, all in one folder."""

    folder: Path

    @property
    def task(self) -> Path:
        """The ranks' `Task`."""
        return self.folder / "task.json"

    @property
    def stop(self) -> Path:
        """Exists once the supervisor was told to stop."""
        return self.folder / "stop"

    @property
    def met(self) -> Path:
        """Exists once the ranks have found each other."""
        return self.folder / "met"

    @property
    def outcome(self) -> Path:
        """Rank 0's `TrainOutcome`."""
        return self.folder / "outcome.json"

    @property
    def deaths(self) -> Path:
        """The list of ranks that torchrun saw fail."""
        return self.folder / "deaths.json"

    def last_words(self, rank: int) -> Path:
        """A rank's `LastWords`."""
        return self.folder / f"rank-{rank}.json"

    def read_last_words(self) -> list[LastWords]:
        """What failed ranks said, the first one first; an interruption counts after every failure."""
        said = [LastWords.model_validate_json(path.read_bytes()) for path in self.folder.glob("rank-*.json")]
        return sorted(said, key=lambda words: (words.exit_code == ExitCode.TERMINATED, words.at))

    def read_deaths(self) -> list[Death]:
        """Ranks that torchrun saw fail."""
        if not self.deaths.is_file():
            return []
        return [Death.model_validate(row) for row in json.loads(self.deaths.read_bytes())]


def error_of(words: LastWords) -> StageError:
    """The rank's error, to be raised again by the supervisor."""
    kinds = {int(kind.exit_code): kind for kind in StageError.__subclasses__()}
    message = words.message
    kind = kinds.get(words.exit_code, StageError)
    return kind(WorkerReason(message.reason), message.message, field=message.field, remedy=message.remedy)


def checkpoint_prefix(key: str) -> str:
    """Where the checkpoints of a stage key lie in the store."""
    return f"checkpoints/{key}/"
