"""Which samples a step sees, and how they are laid out for each rank: pure functions of the seed and the step.

Legend: R rows, L tokens of a row, N target positions (the tokens from which the next one is predicted).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from dram_workers.data.dataset import Dataset, Sequence
from dram_workers.train.segments import Segments


@dataclass(frozen=True)
class Draw:
    """How samples are drawn."""

    seed: int
    batch_tokens: int
    """Whole samples are drawn for a step until it has this many tokens."""
    max_steps: int | None
    epochs: float | None


class Plan:
    """The samples of every step. Epoch, order and step depend on nothing but the draw and the dataset."""

    def __init__(self, dataset: Dataset, draw: Draw) -> None:
        self._draw = draw
        self._lengths = dataset.lengths
        self._weights = np.asarray(dataset.weights)

    @cached_property
    def total_steps(self) -> int:
        """Optimizer steps of the whole training."""
        if self._draw.max_steps is not None:
            return self._draw.max_steps
        return sum(1 for _ in self.steps())

    def steps(self, start: int = 0) -> Iterator[tuple[int, ...]]:
        """Sample numbers of each step from `start` on."""
        return islice(self._batches(), start, self._draw.max_steps)

    @property
    def passes(self) -> float:
        """How often a sample of weight 1 is seen on average."""
        if self._draw.epochs is not None:
            return self._draw.epochs
        drawn = self._draw.batch_tokens * (self._draw.max_steps or 0)
        return drawn / max(1.0, float((self._lengths * self._weights).sum()))

    def _batches(self) -> Iterator[tuple[int, ...]]:
        batch: list[int] = []
        tokens = 0
        for sample in self._stream():
            batch.append(sample)
            tokens += int(self._lengths[sample])
            if tokens >= self._draw.batch_tokens:
                yield tuple(batch)
                batch, tokens = [], 0
        if batch:
            yield tuple(batch)

    def _stream(self) -> Iterator[int]:
        epochs = self._draw.epochs if self._draw.max_steps is None else None
        epoch = 0
        while epochs is None or epoch < epochs:
            order = self._epoch(epoch)
            share = 1.0 if epochs is None else min(1.0, epochs - epoch)
            yield from order[: math.ceil(share * len(order))]
            epoch += 1

    def _epoch(self, epoch: int) -> list[int]:
        """One pass in random order. A sample of weight 2.5 comes twice in one epoch and three times in the next."""
        phases = np.random.default_rng(self._draw.seed).random(len(self._weights))
        seen_before, seen_after = (
            np.floor(self._weights * passes + phases).astype(np.int64) for passes in (epoch, epoch + 1)
        )
        order = np.repeat(np.arange(len(self._weights)), seen_after - seen_before)
        np.random.default_rng((self._draw.seed, epoch)).shuffle(order)
        numbers: list[int] = order.tolist()
        return numbers


@dataclass(frozen=True)
class MicroBatch:
    """What one rank runs through the models at once."""

    samples: tuple[int, ...]
    """Numbers of the samples in the dataset, in the order of their tokens."""
    tokens_RL: Tensor
    positions_RL: Tensor
    """Position of each token in its own sample."""
    segments: Segments | None
    """Where each sample lies in the one row of a packed batch; None when every sample has a row."""
    mask_RL: Tensor | None
    """1 where a row holds a token; None for a packed batch."""
    targets_N: Tensor
    """Flat positions in [R * L] whose next token is a target."""
    labels_N: Tensor
    """Those next tokens."""
    sample_of_N: Tensor
    """Index into `samples` of each target."""
    own: bool = False
    """Whether the student wrote the completions, so that they are no labels and nothing else has seen them."""

    def to(self, device: torch.device) -> "MicroBatch":
        """The same batch on another device."""
        moved = {name: value.to(device) for name, value in vars(self).items() if isinstance(value, Tensor | Segments)}
        return MicroBatch(**{**vars(self), **moved})


def spread(
    samples: tuple[int, ...], lengths: np.typing.NDArray[np.int64], world: int, limit: int
) -> list[list[tuple[int, ...]]]:
    """Samples of a step by rank and micro-batch, evenly by tokens.

    Every rank gets the same number of micro-batches, because the collectives of ZeRO 3 count them; a rank with fewer
    samples gets empty ones. `limit` is the tokens of a micro-batch; one longer sample makes one of its own.
    """
    shares: list[list[int]] = [[] for _ in range(world)]
    loads = [0] * world
    for sample in sorted(samples, key=lambda sample: (-int(lengths[sample]), sample)):
        rank = loads.index(min(loads))
        shares[rank].append(sample)
        loads[rank] += int(lengths[sample])
    cut = [_cut(sorted(share), lengths, limit) for share in shares]
    rounds = max(len(batches) for batches in cut)
    return [batches + [()] * (rounds - len(batches)) for batches in cut]


def _cut(share: list[int], lengths: np.typing.NDArray[np.int64], limit: int) -> list[tuple[int, ...]]:
    batches: list[tuple[int, ...]] = []
    batch: tuple[int, ...] = ()
    for sample in share:
        if batch and int(lengths[[*batch, sample]].sum()) > limit:
            batches.append(batch)
            batch = ()
        batch = (*batch, sample)
    return [*batches, batch] if batch else batches


class Samples(Protocol):
    """Where sequences are found by number."""

    def __getitem__(self, number: int, /) -> Sequence: ...


def lay_out(dataset: Samples, samples: tuple[int, ...], *, packed: bool) -> MicroBatch:
    """Tensors of a micro-batch; an empty one is a single token without targets."""
    sequences = [dataset[sample] for sample in samples]
    tokens = [np.asarray(sequence.tokens, np.int64) for sequence in sequences] or [np.zeros(1, np.int64)]
    masks = [np.asarray(sequence.loss_mask, bool) for sequence in sequences] or [np.zeros(1, bool)]
    sizes = [len(sequence) for sequence in tokens]
    width = sum(sizes) if packed else max(sizes)
    starts = np.cumsum([0, *sizes[:-1]]) if packed else np.arange(len(sizes)) * width
    flat, positions, present = (np.zeros(width if packed else width * len(sizes), np.int64) for _ in range(3))
    for start, size, sequence in zip(starts, sizes, tokens, strict=True):
        flat[start : start + size] = sequence
        positions[start : start + size] = np.arange(size)
        present[start : start + size] = 1
    # A target's logits stand one token before it; a sample's first token has none.
    found = [np.flatnonzero(mask[1:]) for mask in masks]
    shape = (1, width) if packed else (len(sizes), width)
    return MicroBatch(
        samples=samples,
        tokens_RL=torch.from_numpy(flat.reshape(shape)),
        positions_RL=torch.from_numpy(positions.reshape(shape)),
        segments=Segments.of(sizes) if packed else None,
        mask_RL=None if packed else torch.from_numpy(present.reshape(shape)),
        targets_N=torch.from_numpy(np.concatenate([where + start for where, start in zip(found, starts, strict=True)])),
        labels_N=torch.from_numpy(
            np.concatenate([sequence[1:][where] for where, sequence in zip(found, tokens, strict=True)])
        ),
        sample_of_N=torch.from_numpy(np.repeat(np.arange(len(found)), [len(where) for where in found])),
    )
