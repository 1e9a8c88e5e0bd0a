"""A manifest from a file, changed by the command line and checked as the API server would."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dram_operator.api.distillation_job import GROUP, KIND, DistillationJob
from dram_operator.api.manifests import STDIN, ManifestError, load_manifests, parse_value
from dram_operator.api.offline import check, with_defaults

_URI_FIELDS = (
    "teacher.uri",
    "student.uri",
    "dataset.synthetic.promptsUri",
    "golden.uri",
    "golden.embedder",
    "storage.uri",
)


class ManifestInvalid(Exception):
    """The manifest is not one that can run; `problems` has one line for each reason."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


def read_job(file: Path, changes: Iterable[str] = ()) -> DistillationJob:
    """The only DistillationJob of a file, after `PATH=VALUE` changes; raises ManifestInvalid."""
    try:
        found = [manifest for manifest in load_manifests(file) if _is_ours(manifest)]
        if len(found) != 1:
            raise ManifestInvalid([f"{file}: holds {len(found)} {KIND}s: a run takes one"])
        for change in changes:
            _set(found[0], change)
    except ManifestError as error:
        raise ManifestInvalid([str(error)]) from error
    problems = check(found[0], local=True)
    if problems:
        raise ManifestInvalid(f"{file}: {problem}" for problem in problems)
    manifest = with_defaults(found[0])
    manifest.pop("status", None)
    _place(manifest["spec"], Path.cwd() if file == STDIN else file.absolute().parent)
    return DistillationJob.from_object(manifest)


def _is_ours(manifest: dict[str, Any]) -> bool:
    return manifest.get("kind") == KIND or str(manifest.get("apiVersion", "")).startswith(f"{GROUP}/")


def _set(manifest: dict[str, Any], change: str) -> None:
    """Set one field, e.g. `spec.exports[0].gguf.type=Q6_K`; what is missing on the way is made."""
    path, separator, text = change.partition("=")
    steps = [int(step) if step.isdigit() else step for step in re.split(r"[.\[]", path.replace("]", ""))]
    if not separator or not all(step != "" for step in steps):
        raise ManifestInvalid([f"--set {change}: write PATH=VALUE, e.g. spec.training.maxSteps=100"])
    *parents, last = steps
    node: Any = manifest
    try:
        for step in parents:
            node = node.setdefault(step, {}) if isinstance(node, dict) else node[step]
        if isinstance(node, list) and last == len(node):
            node.append(None)
        node[last] = parse_value(text)
    except (IndexError, TypeError) as error:
        raise ManifestInvalid([f"--set {change}: {path} leads nowhere in this manifest"]) from error


def _place(spec: dict[str, Any], folder: Path) -> None:
    """Turn plain paths into file:// URIs; relative ones start where the manifest lies."""
    holders = [(spec, field) for field in _URI_FIELDS]
    holders += [(source, "uri") for source in spec["dataset"].get("sources", ())]
    for root, field in holders:
        *parents, last = field.split(".")
        node = root
        for step in parents:
            node = node.get(step) or {}
        uri = node.get(last)
        if uri and "://" not in uri:
            node[last] = (folder / Path(uri).expanduser()).resolve().as_uri()
