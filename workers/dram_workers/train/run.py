"""One rank's share of a training: what it needs, its checkpoints, and the folder that comes out."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor, distributed

from dram_workers.context import Reporter
from dram_workers.data.dataset import Dataset
from dram_workers.stages import TrainConfig
from dram_workers.train.batches import MicroBatch, Plan, lay_out, spread
from dram_workers.train.checkpoint import Checkpoints, as_lines
from dram_workers.train.distiller import Teacher
from dram_workers.train.engine import Engine
from dram_workers.train.losses import Objective
from dram_workers.train.schedules import learning_rate_at, value_at

CPU_MICRO_BATCH_TOKENS = 4096
GPU_MICRO_BATCH_TOKENS = 16384

Row = dict[str, float]
"""A line of the train log. No figure in it depends on the clock, because it is part of the student's folder."""


@dataclass
class Run:
    """A training as one rank sees it."""

    config: TrainConfig
    dataset: Dataset
    plan: Plan
    engine: Engine
    teacher: Teacher
    checkpoints: Checkpoints
    reporter: Reporter
    stop_file: Path
    """Exists once this machine's supervisor was told to stop."""
    work: Path
    step: int
    """Steps that are done."""
    rows: list[Row]
    """Log of the steps that are done."""
    rank: int
    world: int
    checkpoint_step: int = 0
    started: float = field(default_factory=time.monotonic)
    tokens: int = 0
    """Tokens of the steps since this attempt began."""

    def objective(self, step: int, samples: tuple[int, ...]) -> Objective:
        """The loss at a step. DeepSpeed averages gradients over ranks; dividing by targets a rank makes that a sum."""
        identity, total = self.config.identity, self.plan.total_steps
        targets = sum(int(self.dataset[sample].loss_mask[1:].sum()) for sample in samples)
        return Objective(
            temperature=value_at(identity.temperature, step, total),
            alpha=value_at(identity.alpha, step, total),
            normalizer=targets / self.world,
            tile_bytes=self.config.execution.loss_tile_bytes,
            compute=torch.bfloat16 if identity.precision == "BF16" else torch.float32,
        )

    def learning_rate(self, step: int) -> float:
        """The learning rate at a step."""
        return learning_rate_at(self.config.identity, step, self.plan.total_steps)

    def micro_batches(self, samples: tuple[int, ...]) -> Iterator[MicroBatch]:
        """This rank's part of a step."""
        on_cpu = self.engine.device.type == "cpu"
        limit = self.config.execution.micro_batch_tokens or (
            CPU_MICRO_BATCH_TOKENS if on_cpu else GPU_MICRO_BATCH_TOKENS
        )
        for share in spread(samples, self.dataset.lengths, self.world, limit)[self.rank]:
            yield lay_out(self.dataset, share, packed=self.config.identity.packing).to(self.engine.device)

    def agree(self, soft: float, hard: float) -> tuple[float, float, bool]:
        """Sums of the loss terms over all ranks, and whether any of them is to stop: one small all-reduce a step."""
        shared = torch.tensor([soft, hard, float(self.stop_file.exists())], dtype=torch.float64)
        on_device = shared.to(self.engine.device)
        distributed.all_reduce(on_device)
        soft_sum, hard_sum, stops = on_device.tolist()
        return soft_sum, hard_sum, stops > 0

    def record(self, row: Row, samples: tuple[int, ...]) -> None:
        """Log a step that is done and report it."""
        tokens = int(self.dataset.lengths[list(samples)].sum())
        self.rows.append({**row, "tokens": tokens, "samples": len(samples)})
        self.step, self.tokens = int(row["step"]), self.tokens + tokens
        if self.rank == 0:
            shown = {name: row[name] for name in ("loss", "soft", "hard", "learningRate", "gradNorm")}
            extra = {"tokens": float(self.tokens), "tokensPerSecond": self.tokens_per_second}
            extra["checkpointStep"] = float(self.checkpoint_step)
            self.reporter.report(self.step, self.plan.total_steps, shown | extra)

    @property
    def tokens_per_second(self) -> float:
        """Speed of this attempt."""
        return self.tokens / max(1e-9, self.seconds)

    @property
    def seconds(self) -> float:
        """Time since this attempt's first step began."""
        return time.monotonic() - self.started

    def save(self) -> None:
        """Write a checkpoint of all ranks together; the manifest only after every rank's file is in the store."""
        tensors: dict[str, Tensor] = {}
        for number, (name, value) in enumerate(chain(self.engine.weights(), self.engine.moments())):
            if number % self.world == self.rank:
                tensors[name] = value.cpu()
        entry = self.checkpoints.save_file(self.step, self.rank, tensors, self.work / "checkpoint")
        entries = [entry] * self.world
        distributed.all_gather_object(entries, entry)
        if self.rank == 0:
            self.checkpoints.complete(self.step, entries, as_lines(self.rows))
        distributed.barrier()
        self.checkpoint_step = self.step
