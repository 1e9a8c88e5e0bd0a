"""The world of a stage in a test: inputs that lie in folders, a store in a folder, a reporter that remembers."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dram_workers.context import StageContext
from dram_workers.stages import Execution, Input, StoreSettings
from dram_workers.store.folder import FolderStore
from dram_workers.store.manifest import digest_of


@dataclass
class Remembered:
    """A reporter whose reports a test can read."""

    reports: list[tuple[int, int, dict[str, float]]] = field(default_factory=list)

    def report(self, step: int, total_steps: int, metrics: dict[str, float] | None = None) -> None:
        self.reports.append((step, total_steps, metrics or {}))


@dataclass
class Given:
    """Inputs that lie on this machine."""

    paths: Mapping[str, Path]

    def path(self, name: str) -> Path:
        return self.paths[name]

    def __contains__(self, name: object) -> bool:
        return name in self.paths

    def inputs(self) -> dict[str, Input]:
        """The same inputs as a stage config pins them."""
        return {name: Input(uri=path.as_uri(), digest=digest_of(path)) for name, path in self.paths.items()}


def store_settings(folder: Path) -> StoreSettings:
    return StoreSettings(uri=(folder / "store").as_uri())


def a_context(folder: Path, paths: Mapping[str, Path], execution: Execution | None = None) -> StageContext:
    """A context below `folder`, with `work` and the store in it."""
    work = folder / "work"
    work.mkdir(parents=True, exist_ok=True)
    return StageContext(
        inputs=Given(paths),
        store=FolderStore(folder / "store"),
        execution=execution or Execution(store=store_settings(folder), scratch=str(folder / "scratch")),
        reporter=Remembered(),
        work=work,
        stopping=threading.Event(),
    )
