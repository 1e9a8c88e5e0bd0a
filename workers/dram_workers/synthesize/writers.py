"""Who writes: the teacher's weights on this machine, or the endpoint that it answers at."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from dram_workers.context import StageContext
from dram_workers.data.sources import Record
from dram_workers.data.tokenizer import ChatTokenizer, TemplateRefused
from dram_workers.endpoint import Asked, Endpoint, seed_of
from dram_workers.endpoint_model import EndpointModel
from dram_workers.errors import BadInput, WorkerReason
from dram_workers.stages import SynthesizeIdentity
from dram_workers.synthesize.answers import BATCH, PROMPTS_FIELD, Answer, Sampling, Written

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Writer = Callable[[Sequence[list[Answer]], Callable[[], None]], Iterator[list[Written]]]
"""Writes batch after batch; the callable is called on the way, whenever there is something new to report."""


def questions(tokenizer: ChatTokenizer | None, records: Sequence[Record], responses: int) -> list[Answer]:
    """An empty answer for each response to each prompt, with the prompt's tokens where somebody here reads them."""
    prompts = [_prompt_ids(tokenizer, record) if tokenizer else [] for record in records for _ in range(responses)]
    return [Answer(ids, draw) for draw, ids in enumerate(prompts)]


def at_hand(
    folder: Path, tokenizer: ChatTokenizer, answers: Sequence[Answer], identity: SynthesizeIdentity, threads: int | None
) -> Writer:
    """The teacher of a folder, loaded; BadInput when the longest answer would not fit into its context."""
    import torch

    from dram_workers.synthesize.generate import generate
    from dram_workers.train.pretrained import load_model

    if threads:
        torch.set_num_threads(threads)
    model = load_model(folder, torch.bfloat16, "spec.teacher.uri")
    if torch.cuda.is_available():
        torch.nn.Module.to(model, "cuda")
    _check_context(model, answers, identity)
    sampling = Sampling(identity.max_new_tokens, identity.temperature, identity.seed, tokenizer.stop_ids)

    def write(batches: Sequence[list[Answer]], each_step: Callable[[], None]) -> Iterator[list[Written]]:
        for batch in batches:
            generate(model, batch, sampling, batch=BATCH, each_step=each_step)
            yield [
                Written(tokenizer.decode(answer.tokens).strip(), len(answer.tokens), answer.finished)
                for answer in batch
            ]

    return write


def at_endpoint(
    model: EndpointModel, records: Sequence[Record], identity: SynthesizeIdentity, context: StageContext
) -> Writer:
    """The teacher behind an endpoint: all batches are asked for at once, as many questions at a time as it takes."""

    def asked(answer: Answer) -> Asked:
        turns = records[answer.draw // identity.responses_per_prompt].turns
        return Asked(turns, identity.max_new_tokens, identity.temperature, seed_of(identity.seed, answer.draw))

    def write(batches: Sequence[list[Answer]], each_step: Callable[[], None]) -> Iterator[list[Written]]:
        every = [asked(answer) for batch in batches for answer in batch]
        concurrency = context.execution.endpoint_concurrency
        with Endpoint(model, context.stopping) as endpoint, closing(endpoint.answers(every, concurrency)) as replies:
            for batch in batches:
                written = []
                for answer, reply in zip(batch, islice(replies, len(batch)), strict=True):
                    answer.written, answer.finished = reply.tokens, reply.finished
                    written.append(Written(reply.text, reply.tokens, reply.finished))
                    each_step()
                yield written

    return write


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


def _check_context(model: "PreTrainedModel", answers: Sequence[Answer], identity: SynthesizeIdentity) -> None:
    longest = max(len(answer.prompt_ids) for answer in answers) + identity.max_new_tokens
    if longest > (limit := getattr(model.config, "max_position_embeddings", longest)):
        raise BadInput(
            WorkerReason.UNSUPPORTED_MODEL,
            f"the longest prompt and {identity.max_new_tokens} new tokens need {longest} positions, the teacher has {limit}",
            field="spec.dataset.synthetic.maxNewTokens",
            remedy="lower maxNewTokens or shorten the prompts",
        )
