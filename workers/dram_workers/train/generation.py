"""On-policy distillation: the student completes prompts of its own data, and the teacher judges what it wrote.

After Agarwal et al., "On-Policy Distillation of Language Models: Learning from Self-Generated Mistakes" (GKD, arXiv
2306.13649). Nothing is differentiated through the sampling. Which samples are completed, and by which random numbers, is a
function of the seed and the step alone; so are the batches in which they are written, whatever the number of ranks.
"""

import hashlib
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import distributed
from transformers import PreTrainedModel

from dram_workers.data.dataset import Dataset
from dram_workers.data.dataset import Sequence as Sample
from dram_workers.errors import BadInput, WorkerReason
from dram_workers.objective import OnPolicy
from dram_workers.synthesize.answers import Answer, Sampling, batches
from dram_workers.synthesize.generate import generate

BATCH = 16
"""Completions written at once. Part of the recipe, as in half precision the batch can tip a token; so batches are cut
before they are shared out, and none depends on the number of ranks."""


@dataclass(frozen=True)
class Drawn:
    """The samples of one step: those that are learned as they stand in the data, and those that the student completed."""

    dataset: Dataset
    kept: tuple[int, ...]
    """Numbers in the dataset."""
    completed: tuple[int, ...] = ()
    """Numbers in the dataset of the samples whose prompts were completed."""
    written: tuple[Sample, ...] = ()
    """Prompt and completion of each of them, the completion's tokens as targets."""
    unfinished: int = 0
    """Completions that the length ended, not the student."""

    def __getitem__(self, number: int) -> Sample:
        """A completed sample by its place in `completed`."""
        return self.written[number]

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each completed sample."""
        return np.array([len(sample.tokens) for sample in self.written], np.int64)

    @property
    def samples(self) -> tuple[int, ...]:
        """All numbers in the dataset, whoever wrote the completion."""
        return self.kept + self.completed

    @cached_property
    def own_targets(self) -> int:
        """Target tokens that the student wrote."""
        return sum(int(sample.loss_mask.sum()) for sample in self.written)

    @cached_property
    def targets(self) -> int:
        """Target tokens of the step, on all ranks together."""
        return self.own_targets + sum(int(self.dataset[sample].loss_mask[1:].sum()) for sample in self.kept)

    @property
    def tokens(self) -> int:
        """Tokens of the step, prompts included."""
        return int(self.dataset.lengths[list(self.kept)].sum()) + int(self.lengths.sum())

    @property
    def shown(self) -> dict[str, float]:
        """What the train log says of the student's own completions."""
        if not self.completed:
            return {}
        return {"ownSamples": len(self.completed), "ownTargets": self.own_targets, "ownUnfinished": self.unfinished}


class Generator:
    """Lets the student complete a share of each step's samples."""

    def __init__(
        self,
        dataset: Dataset,
        settings: OnPolicy,
        *,
        seed: int,
        max_length: int,
        stop_ids: tuple[int, ...],
        compute: torch.dtype,
    ) -> None:
        """`compute` is the type of the arithmetic, as in training."""
        self._dataset, self._settings, self._seed = dataset, settings, seed
        self._max_length, self._stop_ids, self._compute = max_length, stop_ids, compute
        if not any(self._answer_of(sample) for sample in range(len(dataset))):
            raise BadInput(
                WorkerReason.EMPTY_DATASET,
                "no training sample has a prompt before an answer, so there is nothing that the student could complete",
                field="spec.objective.onPolicyFraction",
                remedy="give samples in chat or completion form, or set onPolicyFraction to 0",
            )

    def draw(
        self, step: int, samples: tuple[int, ...], model: PreTrainedModel, *, rank: int = 0, world: int = 1
    ) -> Drawn:
        """Write the completions of a step. Every rank calls it with the same samples and gets the same result."""
        chosen = self._chosen(step, samples)
        if not chosen:
            return Drawn(self._dataset, samples)
        answers = self._asked(step, samples, chosen)
        with _generating(model, self._compute):
            for batch in batches(answers, BATCH)[rank::world]:
                longest = max(answer.limit or 0 for answer in batch)
                sampling = Sampling(longest, self._settings.temperature, self._seed_of(step), self._stop_ids)
                generate(model, batch, sampling, batch=BATCH, each_step=lambda: None)
        if world > 1:
            _exchange(answers, world)
        places = set(chosen)
        return Drawn(
            dataset=self._dataset,
            kept=tuple(sample for place, sample in enumerate(samples) if place not in places),
            completed=tuple(samples[place] for place in chosen),
            written=tuple(_sample(answer) for answer in answers),
            unfinished=sum(not answer.finished for answer in answers),
        )

    def _chosen(self, step: int, samples: tuple[int, ...]) -> list[int]:
        """Places of the samples to complete. What the share leaves over of a sample is left to chance."""
        able = [place for place, sample in enumerate(samples) if self._answer_of(sample)]
        random = np.random.default_rng((self._seed, step, len(samples)))
        count = math.floor(self._settings.fraction * len(able) + random.random())
        return sorted(random.permutation(able)[:count].tolist())

    def _answer_of(self, sample: int) -> int:
        """Where the last answer of a sample begins; 0 when no prompt stands before it."""
        mask = self._dataset[sample].loss_mask.astype(np.int8)
        begins = np.flatnonzero(np.diff(mask) == 1)
        return int(begins[-1]) + 1 if len(begins) else 0

    def _asked(self, step: int, samples: tuple[int, ...], chosen: Sequence[int]) -> list[Answer]:
        answers = []
        for place in chosen:
            start = self._answer_of(samples[place])
            # The token that ends the answer needs room too.
            limit = min(self._settings.max_new_tokens, self._max_length - start - 1)
            prompt = self._dataset[samples[place]].tokens[:start].tolist()
            answers.append(Answer(prompt, draw=place, limit=max(1, limit)))
        return answers

    def _seed_of(self, step: int) -> int:
        return int.from_bytes(hashlib.sha256(b"on-policy:%d:%d" % (self._seed, step)).digest()[:8])


@contextmanager
def _generating(model: PreTrainedModel, compute: torch.dtype) -> Iterator[None]:
    """The student as it is used: nothing dropped at random, and attention that reads a cache instead of packed rows."""
    attention, training = model.config._attn_implementation, model.training  # noqa: SLF001 -- transformers has no other name
    model.set_attn_implementation("sdpa")
    model.train(mode=False)
    try:
        # One context for all steps: the weights are rounded once, not once a token.
        with torch.autocast(model.device.type, compute, enabled=compute != torch.float32):
            yield
    finally:
        model.set_attn_implementation(attention)
        model.train(mode=training)


def _exchange(answers: list[Answer], world: int) -> None:
    """Give every rank what the others wrote."""
    mine = {answer.draw: (answer.tokens, answer.stop) for answer in answers if answer.tokens or answer.finished}
    found: list[dict[int, tuple[list[int], int | None]]] = [{}] * world
    distributed.all_gather_object(found, mine)
    everything = {draw: words for part in found for draw, words in part.items()}
    for answer in answers:
        answer.tokens, answer.stop = everything[answer.draw]
        answer.finished = answer.stop is not None


def _sample(answer: Answer) -> Sample:
    """Prompt, completion and the token that ended it."""
    completion = answer.tokens if answer.stop is None else [*answer.tokens, answer.stop]
    tokens = np.array([*answer.prompt_ids, *completion], np.int32)
    mask = np.zeros(len(tokens), np.uint8)
    mask[len(answer.prompt_ids) :] = 1
    return Sample(tokens, mask)
