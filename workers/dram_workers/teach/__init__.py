"""The teach stage: the teacher's likeliest tokens for every target of the training data, written once for many jobs.

Pods write the shards side by side; the last one tells which they are.
"""

import json
from pathlib import Path

from dram_workers.context import StageContext, StageOutcome
from dram_workers.data.dataset import Dataset
from dram_workers.errors import BadInput, WorkerReason
from dram_workers.parts import Part, Parts, is_first, share_of
from dram_workers.results import StageResult
from dram_workers.stages import TeachConfig, canonical_json
from dram_workers.store.manifest import MANIFEST
from dram_workers.store.stage import output_folder, stage_folder
from dram_workers.teach.encoding import Encoding
from dram_workers.teach.index import INDEX, Index, ShardEntry, cache_folder
from dram_workers.teach.shards import Shard, plan_shards
from dram_workers.teach.writing import Known, Work, write_shards

LEAST_COSINE = 0.95
"""Of the gradient from the cache and the one from all logits, at a temperature other than 1."""
GRADIENT = "gradient"


def run(config: TeachConfig, context: StageContext) -> StageOutcome | None:
    """Write this pod's shards that are not in the cache; None while other pods have shards to write."""
    dataset = Dataset(context.inputs.path("dataset"), "train")
    rows = _vocabulary(context)
    encoding = Encoding(rows, min(config.identity.top_k, rows))
    folder = cache_folder(config, rows)
    parts = Parts(context.store, folder)
    shards = plan_shards(dataset)
    cosine = _agreement(config, context, dataset, rows)
    done = parts.found()
    share = share_of(shards, config.execution.workers)
    missing = [shard for shard in share if shard.key not in done]
    if missing:
        write_shards(Work(config, context, dataset, encoding), missing, Known(parts, done))
    done = parts.found()
    if cosine is None:
        cosine = _agreement(config, context, dataset, rows)
    if cosine is None or any(shard.key not in done for shard in shards):
        return None
    made = [done[shard.key] for shard in shards]
    index = Index(
        folder=folder,
        rows=rows,
        top_k=encoding.top_k,
        temperature=config.identity.temperature,
        shards=tuple(ShardEntry(key=part.key, sha256=part.sha256, size=part.size) for part in made),
    )
    index.write(context.work / "logits")
    return StageOutcome(folders={"logits": context.work / "logits"}, facts=_facts(shards, made, cosine))


def recheck(config: TeachConfig, context: StageContext, cached: StageResult) -> bool:
    """Whether every shard of an earlier result is still there; training removes those that it finds damaged."""
    body = context.store.get_bytes(f"{output_folder(config.kind, cached, 'logits')}/{INDEX}")
    if body is not None:
        index = Index.model_validate_json(body)
        found = set(Parts(context.store, index.folder).found().values())
        if found.issuperset(index.parts()):
            return True
    # Shards made again on another machine may have other bytes; the result that names the old ones must not win.
    context.store.delete([f"{stage_folder(config.kind, config.key)}/{MANIFEST}"])
    return False


def _vocabulary(context: StageContext) -> int:
    """Tokens that both heads have: the others are padding, to which the teacher gives no probability."""
    names = [name for name in ("teacher", "student") if name in context.inputs]
    return min(_rows(context.inputs.path(name)) for name in names)


def _rows(model: Path) -> int:
    config = json.loads((model / "config.json").read_bytes())
    return int(config.get("text_config", config)["vocab_size"])


def _facts(shards: list[Shard], parts: list[Part], cosine: float) -> dict[str, str | int | float | bool]:
    targets, size = sum(sum(shard.targets) for shard in shards), sum(part.size for part in parts)
    measured = {} if cosine == 1 else {"gradientCosine": round(cosine, 4)}
    return {
        "samples": sum(len(shard.samples) for shard in shards),
        "targetTokens": targets,
        "shards": len(shards),
        "bytes": size,
        "bytesPerToken": round(size / max(1, targets), 1),
        **measured,
    }


def _agreement(config: TeachConfig, context: StageContext, dataset: Dataset, rows: int) -> float | None:
    """Cosine of the gradients from the cache and from all logits; None while the first pod has not measured it.

    At temperature 1 the default has been measured (docs/design/teacher-logits.md), so it counts as 1.
    """
    if config.identity.temperature == 1:
        return 1.0
    parts = Parts(context.store, f"{stage_folder(config.kind, config.key)}/parts")
    path = context.work / "gradient.json"
    if known := parts.found().get(GRADIENT):
        parts.fetch(known, path)
        return float(json.loads(path.read_bytes())["cosine"])
    if not is_first():
        return None
    from dram_workers.teach.fidelity import measure

    cosine = measure(config, context, dataset, Encoding(rows, min(config.identity.top_k, rows)))
    if cosine < LEAST_COSINE:
        raise BadInput(
            WorkerReason.CACHE_UNFAITHFUL,
            f"at temperature {config.identity.temperature:g} the gradient from the top {config.identity.top_k} logits has "
            f"cosine {cosine:.3f} with the one from all of them; {LEAST_COSINE} is the least",
            field="spec.objective.teacherLogits.mode",
            remedy="set mode to Online, or the temperature to 1, or raise topK",
        )
    path.write_bytes(canonical_json({"cosine": cosine}))
    parts.put(GRADIENT, path)
    return cosine
