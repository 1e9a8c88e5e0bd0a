"""The synthesize stage: the teacher answers prompts, and its answers become training text.

Pods write the batches side by side, each batch a part in the store, and the last one puts them together.
"""

import json
from collections.abc import Callable
from dataclasses import asdict

from dram_workers.context import StageContext, StageOutcome
from dram_workers.data.sources import Record, read_prompts
from dram_workers.data.tokenizer import ChatTokenizer
from dram_workers.errors import BadInput, Interrupted, WorkerReason
from dram_workers.parts import Parts, is_first, share_of
from dram_workers.stages import SynthesizeConfig, canonical_json
from dram_workers.store.stage import stage_folder
from dram_workers.synthesize.answers import BATCH, PROMPTS_FIELD, Answer, Written, batches
from dram_workers.synthesize.writers import Writer, at_endpoint, at_hand, questions


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
    parts = Parts(context.store, f"{stage_folder(config.kind, config.key)}/parts")
    answers = _answer(config, context, records, parts)
    found = _collect(answers, parts, context)
    if found is None:
        return None
    responses = config.identity.responses_per_prompt
    rows = [_row(records[draw // responses], written) for draw, written in sorted(found.items())]
    if not any(rows):
        raise BadInput(
            WorkerReason.EMPTY_ANSWER,
            "the teacher answers every prompt with no text",
            field="spec.dataset.synthetic.maxNewTokens",
            remedy="raise it (a model that thinks first needs room for it), or name another teacher",
        )
    path = context.work / "samples" / "samples.jsonl"
    path.parent.mkdir()
    path.write_bytes(b"".join(canonical_json(row) + b"\n" for row in rows if row))
    facts: dict[str, str | int | float | bool] = {
        "prompts": len(records),
        "answers": sum(row is not None for row in rows),
        "emptyAnswers": sum(row is None for row in rows),
        "unfinishedAnswers": sum(not written.finished for written in found.values()),
        "tokens": sum(written.tokens for written in found.values()),
    }
    return StageOutcome(folders={"samples": path.parent}, facts=facts)


def _answer(config: SynthesizeConfig, context: StageContext, records: list[Record], parts: Parts) -> list[Answer]:
    """Write this pod's batches that are not in the store yet, each a part; returns the answers of all pods, as asked."""
    endpoint, identity = config.identity.endpoint, config.identity
    tokenizer = None if endpoint else ChatTokenizer.load(context.inputs.path("teacher"))
    answers = questions(tokenizer, records, identity.responses_per_prompt)
    done = parts.found()
    numbered = [(_part_key(number), batch) for number, batch in enumerate(batches(answers, BATCH))]
    share = share_of(numbered, config.execution.workers)
    missing = [(key, batch) for key, batch in share if key not in done]
    if not missing:
        return answers
    write: Writer
    if tokenizer is None:
        assert endpoint is not None, "a teacher without a tokenizer is an endpoint"
        write = at_endpoint(endpoint, records, identity, context)
    else:
        write = at_hand(context.inputs.path("teacher"), tokenizer, answers, identity, context.execution.threads)
    asked = [answer for _, batch in share for answer in batch]
    pending = {answer.draw for _, batch in missing for answer in batch}
    written = write([batch for _, batch in missing], _progress(context, asked, pending))
    for (key, _), texts in zip(missing, written, strict=True):
        path = context.work / f"{key}.json"
        path.write_bytes(canonical_json([asdict(text) for text in texts]))
        parts.put(key, path)
    return answers


def _collect(answers: list[Answer], parts: Parts, context: StageContext) -> dict[int, Written] | None:
    """Read every batch back from the store, by the answers' numbers; None while other pods are still at work on theirs."""
    done = parts.found()
    numbered = {_part_key(number): batch for number, batch in enumerate(batches(answers, BATCH))}
    if not done.keys() >= numbered.keys():
        return None
    found = {}
    for key, batch in numbered.items():
        path = context.work / f"read-{key}.json"
        parts.fetch(done[key], path)
        for answer, row in zip(batch, json.loads(path.read_bytes()), strict=True):
            found[answer.draw] = Written(**row)
    if is_first():
        context.reporter.report(len(answers), len(answers))
    return found


def _part_key(number: int) -> str:
    return f"{number:06d}"


def _progress(context: StageContext, share: list[Answer], pending: set[int]) -> Callable[[], None]:
    """Tells how far this pod's share is; what is not `pending` was in the store already."""

    def each_step() -> None:
        if context.stopping.is_set():
            raise Interrupted(WorkerReason.INTERRUPTED, "told to stop while the teacher was writing")
        written = sum(answer.written for answer in share)
        done = sum(answer.finished or answer.draw not in pending for answer in share)
        if is_first():
            context.reporter.report(done, len(share), {"tokens": float(written)})

    return each_step


def _row(record: Record, written: Written) -> dict[str, object] | None:
    """A line of the samples; None for an empty answer, from which there is nothing to learn."""
    if not written.text:
        return None
    end: dict[str, object] = {} if written.finished else {"finished": False}
    if len(record.messages) == 1:
        return {"prompt": record.messages[0][1], "completion": written.text, **end}
    return {"messages": [*record.turns, {"role": "assistant", "content": written.text}], **end}
