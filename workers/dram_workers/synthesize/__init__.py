"""The synthesize stage: the teacher answers prompts, and its answers become training text.

Pods write the batches side by side, each batch a part in the store, and the last one puts them together.
"""

import json
from collections.abc import Callable
from pathlib import Path

from dram_workers.context import StageContext, StageOutcome
from dram_workers.data.sources import Record, read_prompts
from dram_workers.data.tokenizer import ChatTokenizer, TemplateRefused
from dram_workers.errors import BadInput, Interrupted, WorkerReason
from dram_workers.parts import Parts, is_first, share_of
from dram_workers.stages import SynthesizeConfig, canonical_json
from dram_workers.store.stage import stage_folder
from dram_workers.synthesize.answers import Answer, Sampling, batches

PROMPTS_FIELD = "spec.dataset.synthetic.promptsUri"
BATCH = 32
"""Answers written at once. Part of the recipe: in half precision the batch can tip a token."""


def run(config: SynthesizeConfig, context: StageContext) -> StageOutcome | None:
    """Write `samples.jsonl`: the prompts in their order with the teacher's answers, in the form they came in.

    None while other pods have answers to write; the one that finds them all tells the result.
    """
    records = list(read_prompts(context.inputs.path("prompts"), field=PROMPTS_FIELD))
    if not records:
        raise BadInput(
            WorkerReason.EMPTY_DATASET,
            "the prompts file holds no prompt",
            field=PROMPTS_FIELD,
            remedy='write {"prompt"} or {"messages"} on every line',
        )
    folder = context.inputs.path("teacher")
    tokenizer = ChatTokenizer.load(folder)
    responses = config.identity.responses_per_prompt
    prompts = [_prompt_ids(tokenizer, record) for record in records for _ in range(responses)]
    answers = [Answer(ids, draw) for draw, ids in enumerate(prompts)]
    parts = Parts(context.store, f"{stage_folder(config.kind, config.key)}/parts")
    _answer(config, context, tokenizer, folder, answers, parts)
    if not _collect(answers, parts, context):
        return None
    path = context.work / "samples" / "samples.jsonl"
    rows = [
        _row(record, tokenizer.decode(answer.tokens).strip(), finished=answer.finished)
        for record, answer in zip((record for record in records for _ in range(responses)), answers, strict=True)
    ]
    path.parent.mkdir()
    path.write_bytes(b"".join(canonical_json(row) + b"\n" for row in rows if row))
    facts: dict[str, str | int | float | bool] = {
        "prompts": len(records),
        "answers": sum(row is not None for row in rows),
        "emptyAnswers": sum(row is None for row in rows),
        "unfinishedAnswers": sum(not answer.finished for answer in answers),
        "tokens": sum(len(answer.tokens) for answer in answers),
    }
    return StageOutcome(folders={"samples": path.parent}, facts=facts)


def _answer(
    config: SynthesizeConfig,
    context: StageContext,
    tokenizer: ChatTokenizer,
    folder: Path,
    answers: list[Answer],
    parts: Parts,
) -> None:
    """Write this pod's batches that are not in the store yet; each is a part."""
    done = parts.found()
    numbered = [(_part_key(number), batch) for number, batch in enumerate(batches(answers, BATCH))]
    share = share_of(numbered, config.execution.workers)
    missing = [(key, batch) for key, batch in share if key not in done]
    if not missing:
        return
    write = _writer(config, context, tokenizer, folder, answers)
    asked = [answer for _, batch in share for answer in batch]
    pending = {answer.draw for _, batch in missing for answer in batch}
    each_step = _progress(context, asked, pending)
    for key, batch in missing:
        write(batch, each_step)
        path = context.work / f"{key}.json"
        path.write_bytes(canonical_json([[answer.tokens, answer.finished] for answer in batch]))
        parts.put(key, path)


def _collect(answers: list[Answer], parts: Parts, context: StageContext) -> bool:
    """Read every batch back from the store; False while other pods are still at work on theirs."""
    done = parts.found()
    numbered = {_part_key(number): batch for number, batch in enumerate(batches(answers, BATCH))}
    if not done.keys() >= numbered.keys():
        return False
    for key, batch in numbered.items():
        path = context.work / f"read-{key}.json"
        parts.fetch(done[key], path)
        for answer, (tokens, finished) in zip(batch, json.loads(path.read_bytes()), strict=True):
            answer.tokens, answer.finished = tokens, finished
    if is_first():
        context.reporter.report(len(answers), len(answers))
    return True


def _part_key(number: int) -> str:
    return f"{number:06d}"


def _writer(
    config: SynthesizeConfig, context: StageContext, tokenizer: ChatTokenizer, folder: Path, answers: list[Answer]
) -> Callable[[list[Answer], Callable[[], None]], None]:
    """The teacher, loaded; fills a batch of answers in place."""
    import torch

    from dram_workers.synthesize.generate import generate
    from dram_workers.train.pretrained import load_model

    if context.execution.threads:
        torch.set_num_threads(context.execution.threads)
    model = load_model(folder, torch.bfloat16, "spec.teacher.uri")
    if torch.cuda.is_available():
        torch.nn.Module.to(model, "cuda")
    identity = config.identity
    longest = max(len(answer.prompt_ids) for answer in answers) + identity.max_new_tokens
    if longest > (limit := getattr(model.config, "max_position_embeddings", longest)):
        raise BadInput(
            WorkerReason.UNSUPPORTED_MODEL,
            f"the longest prompt and {identity.max_new_tokens} new tokens need {longest} positions, the teacher has {limit}",
            field="spec.dataset.synthetic.maxNewTokens",
            remedy="lower maxNewTokens or shorten the prompts",
        )
    sampling = Sampling(identity.max_new_tokens, identity.temperature, identity.seed, tokenizer.stop_ids)

    def write(batch: list[Answer], each_step: Callable[[], None]) -> None:
        generate(model, batch, sampling, batch=BATCH, each_step=each_step)

    return write


def _progress(context: StageContext, share: list[Answer], pending: set[int]) -> Callable[[], None]:
    """Tells how far this pod's share is; what is not `pending` was in the store already."""

    def each_step() -> None:
        if context.stopping.is_set():
            raise Interrupted(WorkerReason.INTERRUPTED, "told to stop while the teacher was writing")
        written = sum(len(answer.tokens) for answer in share)
        done = sum(answer.finished or answer.draw not in pending for answer in share)
        if is_first():
            context.reporter.report(done, len(share), {"tokens": float(written)})

    return each_step


def _prompt_ids(tokenizer: ChatTokenizer, record: Record) -> list[int]:
    try:
        return tokenizer.prompt_ids(record.turns)
    except TemplateRefused as error:
        raise BadInput(
            WorkerReason.MALFORMED_LINE,
            f"{record.place}: the teacher's chat template refuses the prompt: {error}",
            field=PROMPTS_FIELD,
            remedy="bring the turns into the order that the template asks for",
        ) from None


def _row(record: Record, text: str, *, finished: bool) -> dict[str, object] | None:
    """A line of the samples; None for an empty answer, from which there is nothing to learn."""
    if not text:
        return None
    end: dict[str, object] = {} if finished else {"finished": False}
    if len(record.messages) == 1:
        return {"prompt": record.messages[0][1], "completion": text, **end}
    return {"messages": [*record.turns, {"role": "assistant", "content": text}], **end}
