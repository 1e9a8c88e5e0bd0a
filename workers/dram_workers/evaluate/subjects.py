"""Who is examined: a float model in torch, or an exported file in its device runtime.

Legend: B rows, T tokens, V vocabulary.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dram_workers.context import StageContext
from dram_workers.errors import Interrupted, WorkerReason
from dram_workers.llamacpp import LlamaModel, LlamaSession

BLOCK = 8
"""Questions that share one context in turn, so that a prompt's beginning is computed once. Fixed, because the blocks
must not depend on how many threads answer them."""


@dataclass(frozen=True)
class Question:
    """What one golden item asks of a subject, as token ids."""

    prompt: Sequence[int]
    max_tokens: int
    reference: Sequence[int]
    """Empty when there is nothing to force."""


@dataclass(frozen=True)
class Examined:
    """What came back."""

    answer: tuple[int, ...]
    reference_nll: float | None
    """Mean negative log-likelihood of the reference in nats a token; None without a reference."""


class Subject(Protocol):
    """A model under examination."""

    def examine(self, questions: Sequence[Question]) -> list[Examined]:
        """Greedy answers, and the likelihood of the references."""


def check_stopping(context: StageContext) -> None:
    """Raise Interrupted when the stage was told to stop."""
    if context.stopping.is_set():
        raise Interrupted(WorkerReason.INTERRUPTED, "the evaluation was told to stop")


def mean_nll(logits_TV: NDArray[np.float32], tokens: Sequence[int]) -> float:
    """Mean negative log-likelihood of `tokens` in nats, from the logits that predict them."""
    wide_TV = logits_TV.astype(np.float64)
    wide_TV -= wide_TV.max(axis=1, keepdims=True)
    picked_T = wide_TV[np.arange(len(tokens)), list(tokens)]
    return float(np.mean(np.log(np.exp(wide_TV).sum(axis=1)) - picked_T))


@dataclass(frozen=True)
class FileSubject:
    """An exported file in llama.cpp, one thread a session: sessions do not wait for each other as threads do."""

    model: LlamaModel
    context: StageContext
    sessions: int
    context_tokens: int

    def examine(self, questions: Sequence[Question]) -> list[Examined]:
        """Answer block after block, several blocks at a time."""
        blocks = [questions[start : start + BLOCK] for start in range(0, len(questions), BLOCK)]
        done: list[Examined] = []
        with ExitStack() as stack:
            free: SimpleQueue[LlamaSession] = SimpleQueue()
            for _ in range(min(self.sessions, len(blocks))):
                session = LlamaSession(self.model, context_tokens=self.context_tokens, threads=1)
                free.put(stack.enter_context(session))
            pool = stack.enter_context(ThreadPoolExecutor(self.sessions))
            for block in pool.map(lambda block: self._block(free, block), blocks):
                done.extend(block)
                self.context.reporter.report(len(done), len(questions))
        return done

    def _block(self, free: SimpleQueue[LlamaSession], block: Sequence[Question]) -> list[Examined]:
        session = free.get()
        try:
            session.rewind(0)
            return list(self._answers(session, block))
        finally:
            free.put(session)

    def _answers(self, session: LlamaSession, block: Sequence[Question]) -> Iterator[Examined]:
        for question in block:
            check_stopping(self.context)
            answer = session.greedy(question.prompt, question.max_tokens).tokens
            nll = None
            if question.reference:
                logits_TV = session.answer_logits(question.prompt, question.reference)
                nll = mean_nll(logits_TV, question.reference)
            yield Examined(answer, nll)


class FloatSubject:
    """A `from_pretrained` folder in torch, in float32."""

    def __init__(self, folder: Path, stop_ids: Sequence[int], context: StageContext, field: str) -> None:
        """Load the weights; `field` is where the user named the model."""
        import torch

        from dram_workers.train.pretrained import load_model

        self.model = load_model(folder, torch.float32, field)
        self._stop_ids, self._context = tuple(stop_ids), context

    def examine(self, questions: Sequence[Question]) -> list[Examined]:
        """Answer in left-padded batches, then force the references."""
        from dram_workers.synthesize.answers import Answer, Sampling
        from dram_workers.synthesize.generate import generate

        asked = [Answer(prompt_ids=list(question.prompt), draw=number) for number, question in enumerate(questions)]
        longest = max(question.max_tokens for question in questions)
        sampling = Sampling(max_new_tokens=longest, temperature=0.0, seed=0, stop_ids=self._stop_ids)
        generate(self.model, asked, sampling, batch=2 * BLOCK, each_step=lambda: check_stopping(self._context))
        likelihoods = self._reference_nlls(questions)
        # Greedy answers do not depend on the limit, so an item with a lower one gets the beginning.
        return [
            Examined(tuple(answer.tokens[: question.max_tokens]), nll)
            for answer, question, nll in zip(asked, questions, likelihoods, strict=True)
        ]

    def _reference_nlls(self, questions: Sequence[Question]) -> list[float | None]:
        found: list[float | None] = [None] * len(questions)
        forced = [number for number, question in enumerate(questions) if question.reference]
        forced.sort(key=lambda number: len(questions[number].prompt) + len(questions[number].reference))
        for start in range(0, len(forced), BLOCK):
            check_stopping(self._context)
            batch = forced[start : start + BLOCK]
            for number, nll in zip(batch, self._batch_nlls([questions[number] for number in batch]), strict=True):
                found[number] = nll
            self._context.reporter.report(start + len(batch), len(forced))
        return found

    def _batch_nlls(self, questions: Sequence[Question]) -> Iterator[float]:
        import torch

        rows = [[*question.prompt, *question.reference] for question in questions]
        longest, kept = max(map(len, rows)), max(len(question.reference) for question in questions) + 1
        tokens_BT = torch.tensor([[0] * (longest - len(row)) + row for row in rows])
        mask_BT = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
        with torch.inference_mode():
            logits_BTV = self.model(
                input_ids=tokens_BT,
                attention_mask=mask_BT,
                position_ids=(mask_BT.cumsum(-1) - 1).clamp(min=0),
                logits_to_keep=kept,
                use_cache=False,
            ).logits.numpy()
        for question, logits_TV in zip(questions, logits_BTV, strict=True):
            yield mean_nll(logits_TV[-len(question.reference) - 1 : -1], question.reference)

    def answer_logits(self, prompt: Sequence[int], answer: Sequence[int]) -> NDArray[np.float32]:
        """Logits [T, V] that predict each token of `answer`, teacher-forced behind `prompt`."""
        import torch

        with torch.inference_mode():
            tokens_BT = torch.tensor([[*prompt, *answer]])
            logits_BTV = self.model(input_ids=tokens_BT, logits_to_keep=len(answer) + 1, use_cache=False).logits
        logits_TV: NDArray[np.float32] = logits_BTV[0, :-1].numpy()
        return logits_TV
