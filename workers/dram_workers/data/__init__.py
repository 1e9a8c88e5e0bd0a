"""The data stage: sources and the teacher's samples become token ids with loss masks, split, deduplicated, leak-checked.

Nothing here needs torch, so the stage starts in a fraction of a second.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from dram_workers.context import StageContext, StageOutcome
from dram_workers.data.dataset import PROMPTS, Split, write_dataset
from dram_workers.data.leak import check_leaks, record_keys
from dram_workers.data.samples import Sample, to_samples
from dram_workers.data.sources import Record, read_source
from dram_workers.data.tokenizer import ChatTokenizer
from dram_workers.errors import BadInput, Interrupted, WorkerReason
from dram_workers.golden import read_golden
from dram_workers.results import StageResult
from dram_workers.stages import DataConfig, DataIdentity
from dram_workers.store.stage import output_folder

SYNTHETIC = "synthetic"
REPORT_EVERY = 1000


def run(config: DataConfig, context: StageContext) -> StageOutcome:
    """Make the dataset; BadInput for an empty or malformed source and for a golden prompt in the training data."""
    tokenizer = ChatTokenizer.load(context.inputs.path("tokenizer"))
    tally: Counter[str] = Counter()
    prompts: dict[str, str] = {}
    samples: dict[str, Sample] = {}
    for number, (field, record) in enumerate(_records(config.identity, context)):
        if number % REPORT_EVERY == 0:
            _check_stopping(context)
            context.reporter.report(number, 0, {"samples": float(len(samples))})
        prompts |= {key: record.place for key in record_keys(record) if key not in prompts}
        tally["records"] += 1
        for sample in _samples_of(config.identity, record, tokenizer, field):
            tally["duplicates" if sample.id in samples else f"from {record.source}"] += 1
            samples.setdefault(sample.id, sample)
    check_leaks(prompts, read_golden(context.inputs.path("golden")))
    splits = _split(list(samples.values()), config.identity)
    if not splits["train"]:
        raise _empty(tally["records"])
    facts = _facts(splits, tally)
    folder = context.work / "dataset"
    write_dataset(folder, splits, prompts, dict(facts))
    return StageOutcome(folders={"dataset": folder}, facts=facts)


def recheck(config: DataConfig, context: StageContext, cached: StageResult) -> bool:
    """The leak check of a cached dataset: the golden file is not part of the stage's key, so it may have changed."""
    body = context.store.get_bytes(f"{output_folder(config.kind, cached, 'dataset')}/{PROMPTS}")
    if body is None:
        return False
    check_leaks(json.loads(body), read_golden(context.inputs.path("golden")))
    return True


def _records(identity: DataIdentity, context: StageContext) -> Iterator[tuple[str, Record]]:
    """Every record with the field of the spec that it comes from: sources in their order, then the teacher's samples."""
    if identity.sources:
        root: Path = context.inputs.path("sources")
        for number, source in enumerate(identity.sources):
            field = f"spec.dataset.sources[{number}].uri"
            for record in read_source(root / str(number), source=source.uri, weight=source.weight, field=field):
                yield field, record
    if "samples" in context.inputs:
        field = "spec.dataset.synthetic.promptsUri"
        path = context.inputs.path("samples")
        for record in read_source(path, source=SYNTHETIC, weight=identity.synthetic_weight, field=field):
            yield field, record


def _samples_of(identity: DataIdentity, record: Record, tokenizer: ChatTokenizer, field: str) -> Iterator[Sample]:
    return to_samples(
        record,
        tokenizer,
        max_length=identity.max_length,
        loss_on_all=identity.loss_on == "All",
        field=field,
    )


def _split(samples: list[Sample], identity: DataIdentity) -> dict[Split, list[Sample]]:
    """Hold out by a hash of the prompt: a sample stays on its side however the data grows around it.

    Where the fraction asks for held-out samples and chance gave none, the first in the order of the hash is held out.
    """
    if not samples:
        return {"train": [], "validation": []}
    places = {sample.id: _unit(identity.seed, sample.group) for sample in samples}
    lowest, highest = min(places.values()), max(places.values())
    limit = identity.validation_fraction
    held = {
        sample.id
        for sample in samples
        if limit > 0 and (places[sample.id] < limit or places[sample.id] == lowest) and places[sample.id] < highest
    }
    return {
        "train": [sample for sample in samples if sample.id not in held],
        "validation": [sample for sample in samples if sample.id in held],
    }


def _unit(seed: int, content: bytes) -> float:
    """A number in [0, 1) that depends on nothing but the seed and the content."""
    return int.from_bytes(hashlib.sha256(b"%d:" % seed + content).digest()[:7]) / 2**56


def _facts(splits: dict[Split, list[Sample]], tally: Counter[str]) -> dict[str, str | int | float | bool]:
    everything = [*splits["train"], *splits["validation"]]
    mix = {name: count for name, count in tally.items() if name.startswith("from ")}
    return {
        "trainSamples": len(splits["train"]),
        "validationSamples": len(splits["validation"]),
        "trainTokens": sum(len(sample.tokens) for sample in splits["train"]),
        "targetTokens": sum(sum(sample.loss_mask) for sample in splits["train"]),
        "longestSample": max(len(sample.tokens) for sample in everything),
        "cutSamples": sum(sample.cut for sample in everything),
        "duplicates": tally["duplicates"],
        "records": tally["records"],
        "mix": ", ".join(f"{count} {name}" for name, count in mix.items())[:400],
    }


def _empty(records: int) -> BadInput:
    return BadInput(
        WorkerReason.EMPTY_DATASET,
        f"no sample is left to train on, of {records} records read",
        field="spec.dataset",
        remedy="add samples, or raise dataset.maxLength so that answers are not cut away",
    )


def _check_stopping(context: StageContext) -> None:
    if context.stopping.is_set():
        raise Interrupted(WorkerReason.INTERRUPTED, "told to stop while reading the data")
