"""Validation while training: the loss on the validation split, which step was best, and when to stop early."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import distributed

from dram_workers.data.dataset import Dataset
from dram_workers.errors import BadInput, WorkerReason
from dram_workers.train.batches import lay_out, spread
from dram_workers.train.distiller import Teacher
from dram_workers.train.engine import Engine
from dram_workers.train.losses import Objective

LOSS, KL, CE = "validationLoss", "validationKL", "validationCE"
"""Names in the train log."""

BETTER = 1e-4
"""Share by which a loss must be lower to count as better: more than what another number of ranks changes."""


@dataclass(frozen=True)
class Standing:
    """What the validations so far say; a pure function of the train log."""

    patience: int | None = None
    best_step: int | None = None
    """The step with the lowest loss; None before the first validation."""
    best: float = float("inf")
    latest_step: int = 0
    waited: int = 0
    """Validations since the best one."""

    @classmethod
    def over(cls, rows: Iterable[dict[str, float]], patience: int | None) -> Self:
        """The standing after the rows of a log."""
        standing = cls(patience)
        for row in rows:
            standing = standing.after(row)
        return standing

    def after(self, row: dict[str, float]) -> Self:
        """The standing after one more step."""
        if LOSS not in row:
            return self
        step, loss = int(row["step"]), row[LOSS]
        if self.best_step is None or loss < self.best * (1 - BETTER):
            return replace(self, best_step=step, best=loss, latest_step=step, waited=0)
        return replace(self, latest_step=step, waited=self.waited + 1)

    @property
    def improved(self) -> bool:
        """Whether the latest validation was the best."""
        return self.best_step is not None and self.waited == 0

    @property
    def ended(self) -> bool:
        """Whether patience is at its end."""
        return self.patience is not None and self.waited >= self.patience


class Validator:
    """Runs the student over the whole validation split, spread over the ranks, and the teacher where it is at hand.

    The loss is what the objective weighs at its end, at temperature 1: `alpha * KL + (1 - alpha) * CE` with the last
    alpha, so that validations of different steps can be compared while the schedules move. Without a teacher it is CE.
    """

    def __init__(
        self, dataset: Dataset, teacher: Teacher | None, objective: Objective, *, packed: bool, limit: int
    ) -> None:
        if not len(dataset):
            raise BadInput(
                WorkerReason.EMPTY_DATASET,
                "no sample is held out, so there is nothing to validate on",
                field="spec.dataset.validationFraction",
                remedy="raise it, give more than one prompt, or remove spec.training.validation",
            )
        self._dataset = dataset
        self._teacher = teacher
        self._objective = objective
        self._packed = packed
        self._limit = limit

    @torch.no_grad()
    def measure(self, engine: Engine, rank: int, world: int) -> dict[str, float]:
        """The losses per target token, the same on every rank."""
        sums = torch.zeros(3, dtype=torch.float64)
        everything = tuple(range(len(self._dataset)))
        with engine.evaluating():
            for share in spread(everything, self._dataset.lengths, world, self._limit)[rank]:
                batch = lay_out(self._dataset, share, packed=self._packed).to(engine.device)
                target = self._teacher.target(batch, self._objective.temperature) if self._teacher else None
                _, terms_N = engine.losses(batch, target, self._objective)
                soft_N, hard_N = terms_N["soft"], terms_N["hard"]
                sums += torch.stack(
                    [soft_N.double().sum(), hard_N.double().sum(), soft_N.new_tensor(len(soft_N))]
                ).cpu()
        shared = sums.to(engine.device)
        distributed.all_reduce(shared)
        kl, ce, targets = shared.tolist()
        kl, ce = kl / max(1.0, targets), ce / max(1.0, targets)
        if self._teacher is None:
            return {LOSS: ce, CE: ce}
        return {LOSS: self._objective.alpha * kl + (1 - self._objective.alpha) * ce, KL: kl, CE: ce}
