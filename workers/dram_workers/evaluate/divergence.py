"""How far a variant's token distributions are from its own float student's, on held-out answers.

Legend: T tokens, V vocabulary.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dram_workers.intervals import ratio_bounds
from dram_workers.results import Measure

ENOUGH_ANSWERS = 8
"""With fewer held-out answers the golden references join them: a mean over less says little."""


@dataclass(frozen=True)
class HeldOut:
    """One sequence: `tokens` from `start` on are forced, and those where `counted` is set are compared."""

    tokens: tuple[int, ...]
    start: int
    counted: tuple[bool, ...]
    """One a forced token."""


class Predictor(Protocol):
    """Gives teacher-forced logits."""

    def answer_logits(self, prompt: Sequence[int], answer: Sequence[int]) -> NDArray[np.float32]:
        """Logits [T, V] that predict each token of `answer` behind `prompt`."""


@dataclass(frozen=True)
class Divergence:
    """Sums over one answer."""

    tokens: int
    kl_nats: float
    agreements: int
    """Tokens where both models like the same token best."""


def held_out(dataset: Path, limit: int) -> list[HeldOut]:
    """Answers of the dataset's validation split, in order, until `limit` answer tokens are reached."""
    from safetensors.numpy import load_file

    tensors = load_file(dataset / "validation.safetensors")
    offsets = [int(offset) for offset in tensors["offsets"]]
    found: list[HeldOut] = []
    for begin, end in pairwise(offsets):
        targets = np.flatnonzero(tensors["loss_mask"][begin + 1 : end])[:limit] + 1
        if len(targets):
            start, last = int(targets[0]), int(targets[-1])
            chosen = set(targets.tolist())
            tokens = tuple(int(token) for token in tensors["tokens"][begin : begin + last + 1])
            found.append(HeldOut(tokens, start, tuple(at in chosen for at in range(start, last + 1))))
            limit -= len(targets)
        if limit <= 0:
            break
    return found


def compare(float_student: Predictor, variant: Predictor, sample: HeldOut) -> Divergence:
    """KL(float student ‖ variant) summed over the counted tokens of one answer."""
    prompt, answer = sample.tokens[: sample.start], sample.tokens[sample.start :]
    counted = np.asarray(sample.counted)
    ours_TV = float_student.answer_logits(prompt, answer)[counted]
    theirs_TV = variant.answer_logits(prompt, answer)[counted]
    vocabulary = min(ours_TV.shape[1], theirs_TV.shape[1])
    total = 0.0
    for ours_V, theirs_V in zip(ours_TV[:, :vocabulary], theirs_TV[:, :vocabulary], strict=True):
        log_p_V, log_q_V = _log_softmax(ours_V), _log_softmax(theirs_V)
        total += float(np.exp(log_p_V) @ (log_p_V - log_q_V))
    agreements = int((ours_TV.argmax(axis=1) == theirs_TV.argmax(axis=1)).sum())
    return Divergence(int(counted.sum()), total, agreements)


def _log_softmax(logits_V: NDArray[np.float32]) -> NDArray[np.float64]:
    shifted_V = logits_V.astype(np.float64) - float(logits_V.max())
    log_V: NDArray[np.float64] = shifted_V - np.log(np.exp(shifted_V).sum())
    return log_V


def divergence_measures(answers: Sequence[Divergence], seed: int) -> Iterator[Measure]:
    """`klDivergence` and `topOneAgreement`; an answer is the unit that is resampled, as its tokens hang together."""
    tokens = [answer.tokens for answer in answers]
    for name, sums, unit in (
        ("klDivergence", [answer.kl_nats for answer in answers], "nats/token"),
        ("topOneAgreement", [float(answer.agreements) for answer in answers], ""),
    ):
        low, high = ratio_bounds(sums, tokens, seed)
        yield Measure(
            name=name,
            value=sum(sums) / sum(tokens),
            low=low,
            high=high,
            n=len(answers),
            unit=unit,
            note=f"{sum(tokens)} tokens",
        )
