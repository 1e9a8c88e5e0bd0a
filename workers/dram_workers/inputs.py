"""A stage's inputs on this machine: fetched once, checked against the digest that the planner pinned."""

import hashlib
import json
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from dram_workers.errors import BadInput, WorkerReason
from dram_workers.fetch.located import Located, download_folder, large_mark, locate
from dram_workers.stages import DataConfig, Execution, Input, StageConfig
from dram_workers.store.manifest import describe, tree_digest

FIELDS = {
    "teacher": "spec.teacher.uri",
    "tokenizer": "spec.teacher.uri",
    "student": "spec.student.uri",
    "sources": "spec.dataset.sources",
    "prompts": "spec.dataset.synthetic.promptsUri",
    "golden": "spec.golden.uri",
    "embedder": "spec.golden.embedder",
}
"""Which field an input goes back to, where it does not lie in the store."""

SOURCES_FILE = "sources.json"
"""In the output `sources`: the list of `Input`s, in the order of spec.dataset.sources."""


def given_inputs(config: StageConfig) -> dict[str, Input]:
    """The inputs by name; the data stage also finds the golden suite, which is not part of its key."""
    extra = {"golden": config.execution.golden} if isinstance(config, DataConfig) else {}
    return {**config.inputs, **extra}


class FetchedInputs:
    """What is a local folder is checked and used in place; everything else is downloaded into the cache."""

    def __init__(self, inputs: dict[str, Input], execution: Execution, work: Path) -> None:
        self._inputs = inputs
        self._execution = execution
        self._work = work
        self._paths: dict[str, Path] = {}

    def __contains__(self, name: object) -> bool:
        """Whether the config names this input."""
        return name in self._inputs

    def path(self, name: str) -> Path:
        """The input's file or folder; BadInput when its content is not what was pinned.

        `golden` is the file, `sources` a folder with `0`, `1`, … for each source.
        """
        if name not in self._paths:
            field = FIELDS.get(name.rpartition(".")[2], "spec.storage.uri")
            self._paths[name] = self._shape(name, self._bring(self._inputs[name], field), field)
        return self._paths[name]

    def _shape(self, name: str, path: Path, field: str) -> Path:
        if name == "sources":
            return self._gather(path, field)
        if name == "golden" and path.is_dir():
            return next(file for file in sorted(path.rglob("*")) if file.is_file())
        return path

    def _bring(self, given: Input, field: str) -> Path:
        located = locate(given.uri, self._execution, field)
        path = located.local or located.snapshot()
        if path is not None:
            if not self._matches(located, path, given.digest, field):
                raise _changed(given, path, field)
            return path
        place = download_folder(self._execution) / "inputs" / hashlib.sha256(f"{given}".encode()).hexdigest()
        path = place / located.files[0].key if located.is_file else place
        # what an earlier stage downloaded may have been damaged since; it must not stand in the way of a fresh copy
        if not (path.exists() and self._matches(located, path, given.digest, field)):
            _download(located, place)
            if not self._matches(located, path, given.digest, field):
                raise _changed(given, path, field)
        return path

    def _matches(self, located: Located, path: Path, digest: str, field: str) -> bool:
        """Whether the content has the pinned digest, or what the server says of large objects, then and now."""
        content = describe(path)
        if tree_digest(content) == digest:
            return True
        marks = {info.key: mark for info in located.files if (mark := large_mark(info))}
        marked = [entry.model_copy(update={"sha256": marks.get(entry.path, entry.sha256)}) for entry in content]
        return tree_digest(marked) == digest and locate(located.uri, self._execution, field).files == located.files

    def _gather(self, index: Path, field: str) -> Path:
        """One folder for all sources, from the file that says where each of them lies."""
        gathered = self._work / "sources"
        for number, row in enumerate(json.loads((index / SOURCES_FILE).read_bytes())):
            source = self._bring(Input.model_validate(row), f"{field}[{number}].uri")
            folder = gathered / str(number)
            folder.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                folder.symlink_to(source)
            else:
                folder.mkdir()
                (folder / source.name).symlink_to(source)
        return gathered


def _download(located: Located, place: Path) -> None:
    """Download into a folder of our own and move it to its place, where another stage may be faster."""
    place.parent.mkdir(parents=True, exist_ok=True)
    incoming = Path(tempfile.mkdtemp(prefix=".incoming-", dir=place.parent))
    located.download(incoming / "files")
    if place.exists():
        place.rename(incoming / "damaged")
    # another stage may have been faster; its copy is checked like ours
    with suppress(OSError):
        (incoming / "files").rename(place)
    shutil.rmtree(incoming)


def _changed(given: Input, path: Path, field: str) -> BadInput:
    return BadInput(
        WorkerReason.DIGEST_MISMATCH,
        f"{given.uri} has digest {tree_digest(describe(path))}, but {given.digest} was pinned when the run started",
        field=field,
        remedy="Restore the content, or start another run.",
    )
