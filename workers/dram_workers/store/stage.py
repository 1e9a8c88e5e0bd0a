"""Finding and publishing the result of a stage.

An output's folder carries the digest of its content in its name: an attempt that was given up for dead and goes on can
therefore never overwrite the files of the attempt that won, and two attempts that made the same bytes share them.
"""

import hashlib
from datetime import UTC, datetime

from pydantic import ValidationError

from dram_workers.context import StageOutcome
from dram_workers.errors import BadInput, WorkerReason
from dram_workers.results import Output, StageResult
from dram_workers.stages import RECIPES, StageConfig, StageKind, canonical_json
from dram_workers.store.manifest import MANIFEST, FileEntry, Manifest, describe, tree_digest
from dram_workers.store.objects import ObjectStore
from dram_workers.store.toolchain import toolchain

SHORT_DIGEST = slice(len("sha256:"), len("sha256:") + 12)
"""Enough of a digest to tell attempts at one key apart."""

RESULT_BYTES = 2048
"""The most that a result may take as JSON."""


def stage_folder(kind: StageKind, key: str) -> str:
    """The store's folder of a result."""
    return f"stages/{kind}/{key}"


def output_folder(kind: StageKind, result: StageResult, name: str) -> str:
    """The store's folder of an output that is in the stage's own."""
    return f"{stage_folder(kind, result.key)}/{result.outputs[name].path}"


def read_manifest(store: ObjectStore, kind: StageKind, key: str) -> Manifest | None:
    """The manifest of a finished stage; None when it is not finished."""
    name = f"{stage_folder(kind, key)}/{MANIFEST}"
    body = store.get_bytes(name)
    if body is None:
        return None
    try:
        return Manifest.model_validate_json(body)
    except ValidationError as error:
        raise BadInput(
            WorkerReason.CONFIG_INVALID,
            f"{store.uri(name)} is not a manifest that this version reads",
            field="spec.storage.uri",
            remedy=f"Delete {store.uri(stage_folder(kind, key))}; the stage is then done again.",
        ) from error


def find_result(store: ObjectStore, config: StageConfig) -> StageResult | None:
    """The earlier result for this key, marked as cached; None when there is none."""
    manifest = read_manifest(store, config.kind, config.key)
    return None if manifest is None else manifest.result.model_copy(update={"cached": True})


def publish_result(
    store: ObjectStore, config: StageConfig, outcome: StageOutcome, *, started_at: datetime
) -> StageResult:
    """Upload the outputs, then the manifest; when another attempt's manifest is there first, its result counts."""
    trees = {name: describe(folder) for name, folder in outcome.folders.items()}
    digests = {name: tree_digest(tree) for name, tree in trees.items()}
    outputs = {name: Output(digest=digest, path=f"{name}/{digest[SHORT_DIGEST]}") for name, digest in digests.items()}
    outputs |= outcome.pinned
    key = _found_key(config, outputs) if config.kind is StageKind.RESOLVE else config.key
    files = []
    for name, tree in trees.items():
        for file in tree:
            placed = file.model_copy(update={"path": f"{outputs[name].path}/{file.path}"})
            source = outcome.folders[name]
            store.put_file(
                f"{stage_folder(config.kind, key)}/{placed.path}", source / file.path if source.is_dir() else source
            )
            files.append(placed)
    result = _short(StageResult(key=key, outputs=outputs, measures=outcome.measures, facts=outcome.facts))
    body = _manifest(config, result, files, started_at).model_dump_json(indent=1, exclude_none=True).encode()
    if store.put_bytes(f"{stage_folder(config.kind, key)}/{MANIFEST}", body, if_absent=True):
        return result
    winner = read_manifest(store, config.kind, key)
    return result if winner is None else winner.result


def _short(result: StageResult) -> StageResult:
    """The result itself: the termination message has no room for a longer one, so a stage that makes one is wrong."""
    size = len(result.model_dump_json(exclude_none=True, exclude_defaults=True).encode())
    if size > RESULT_BYTES:
        raise ValueError(f"the result takes {size} bytes, {RESULT_BYTES} are allowed")
    return result


def _found_key(config: StageConfig, outputs: dict[str, Output]) -> str:
    """Resolving is always done again, so its result is filed under what was found, not under what was asked."""
    found = {"recipe": RECIPES[config.kind], "outputs": {name: output.digest for name, output in outputs.items()}}
    return hashlib.sha256(canonical_json({**found, "identity": config.identity.model_dump(mode="json")})).hexdigest()


def _manifest(config: StageConfig, result: StageResult, files: list[FileEntry], started_at: datetime) -> Manifest:
    return Manifest(
        kind=config.kind,
        stage=config.stage,
        key=result.key,
        attempt=config.attempt,
        files=tuple(files),
        outputs={name: output.digest for name, output in result.outputs.items()},
        inputs={name: given.digest for name, given in config.inputs.items()},
        recipe=RECIPES[config.kind],
        identity=config.identity.model_dump(mode="json"),
        toolchain=toolchain(),
        started_at=_timestamp(started_at),
        finished_at=_timestamp(datetime.now(UTC)),
        result=result,
    )


def _timestamp(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
