"""One rank's share of a training: what it needs, its checkpoints, and the folder that comes out."""

import time
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, distributed

from dram_workers.context import Reporter
from dram_workers.data.dataset import Dataset
from dram_workers.stages import TrainConfig, TrainExecution
from dram_workers.train.batches import MicroBatch, Plan, lay_out, spread
from dram_workers.train.board import Board
from dram_workers.train.checkpoint import Checkpoints, as_lines
from dram_workers.train.engine import Engine
from dram_workers.train.generation import Drawn, Generator
from dram_workers.train.losses import Objective, Target
from dram_workers.train.scaling import LossScale
from dram_workers.train.schedules import learning_rate_at, value_at
from dram_workers.train.validation import Standing, Validator
from dram_workers.train.watch import Watch

CPU_MICRO_BATCH_TOKENS = 4096
GPU_MICRO_BATCH_TOKENS = 16384
COMPUTE = {"BF16": torch.bfloat16, "FP16": torch.float16, "FP32": torch.float32}
"""Type of the arithmetic by spec.training.precision."""

Row = dict[str, float]
"""A line of the train log. No figure in it depends on the clock, because it is part of the student's folder."""


class TargetSource(Protocol):
    """Where a batch's targets come from: a teacher at hand, or what was kept of one."""

    def target(self, batch: MicroBatch, temperature: float) -> Target:
        """What the student is compared with."""


@dataclass
class Run:
    """A training as one rank sees it."""

    config: TrainConfig
    dataset: Dataset
    plan: Plan
    engine: Engine
    teacher: TargetSource | None
    """None where the text is all that is learned from."""
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
    generator: Generator | None = None
    """Lets the student write a share of the completions."""
    validator: Validator | None = None
    board: Board | None = None
    """Rank 0's curves."""
    checkpoint_step: int = 0
    save_owed: bool = False
    """A checkpoint is due, and waits for a step that is not suspicious."""
    started: float = field(default_factory=time.monotonic)
    tokens: int = 0
    """Tokens of the steps since this attempt began."""

    def __post_init__(self) -> None:
        identity = self.config.identity
        self.standing = Standing.over(self.rows, identity.patience)
        self.watch = Watch.over(self.rows)
        self.scale = LossScale.over(self.rows, half=identity.precision == "FP16")

    def draw(self, step: int, samples: tuple[int, ...]) -> Drawn:
        """What a step learns from: its samples, some with a completion that the student writes now."""
        if self.generator is None:
            return Drawn(self.dataset, samples)
        return self.generator.draw(step, samples, self.engine.student, rank=self.rank, world=self.world)

    def objective(self, step: int, targets: int) -> Objective:
        """The loss at a step. DeepSpeed averages gradients over ranks; dividing by targets a rank makes that a sum.

        Under FP16 it is scaled here, and not when it is done, because its gradients are formed with it.
        """
        identity, total = self.config.identity, self.plan.total_steps
        hidden, attention = identity.hidden_states, identity.attention
        return Objective(
            temperature=value_at(identity.temperature, step, total),
            alpha=value_at(identity.alpha, step, total),
            divergence=identity.divergence,
            hidden_weight=value_at(hidden.weight, step, total) if hidden else 0.0,
            hidden_kind=hidden.loss if hidden else "MSE",
            attention_weight=value_at(attention.weight, step, total) if attention else 0.0,
            normalizer=targets / self.world / self.scale.value,
            tile_bytes=self.config.execution.loss_tile_bytes,
            compute=COMPUTE[identity.precision],
        )

    def learning_rate(self, step: int) -> float:
        """The learning rate at a step."""
        return learning_rate_at(self.config.identity, step, self.plan.total_steps)

    def micro_batches(self, drawn: Drawn) -> Iterator[MicroBatch]:
        """This rank's part of a step; what the student wrote comes in micro-batches of its own."""
        limit = micro_batch_limit(self.config.execution, self.engine.device)
        packed, device = self.config.identity.packing, self.engine.device
        for share in spread(drawn.kept, self.dataset.lengths, self.world, limit)[self.rank]:
            yield lay_out(self.dataset, share, packed=packed).to(device)
        places = tuple(range(len(drawn.completed)))
        for share in spread(places, drawn.lengths, self.world, limit)[self.rank]:
            numbers = tuple(drawn.completed[place] for place in share)
            yield replace(lay_out(drawn, share, packed=packed), samples=numbers, own=True).to(device)

    def target(self, batch: MicroBatch, temperature: float) -> Target:
        """What the student is compared with; None leaves the hard labels."""
        return None if self.teacher is None else self.teacher.target(batch, temperature)

    def agree(self, sums: Mapping[str, float]) -> tuple[dict[str, float], bool]:
        """Sums of the loss terms over all ranks, and whether any of them is to stop: one small all-reduce a step."""
        shared = torch.tensor([*sums.values(), float(self.stop_file.exists())], dtype=torch.float64)
        on_device = shared.to(self.engine.device)
        distributed.all_reduce(on_device)
        *summed, stops = on_device.tolist()
        return dict(zip(sums, summed, strict=True)), stops > 0

    def validate(self, step: int) -> Row:
        """Figures of the validation that is due after `step` steps; none when none is."""
        every = self.config.identity.validation_every_steps
        if self.validator is None or every is None or (step % every and step != self.plan.total_steps):
            return {}
        return self.validator.measure(self.engine, self.rank, self.world)

    def record(self, row: Row, samples: tuple[int, ...]) -> None:
        """Log a step that is done and report it."""
        tokens = int(row["tokens"])
        # The samples are told by a checksum of their numbers, so that two logs show whether they saw the same ones.
        drawn = zlib.crc32(",".join(map(str, samples)).encode())
        row = {**row, "samples": len(samples), "drawn": drawn}
        self.rows.append(row)
        self.watch.see(row)
        self.scale.update(overflow="skipped" in row)
        self.standing = self.standing.after(row)
        self.step, self.tokens = int(row["step"]), self.tokens + tokens
        if self.rank == 0:
            self._tell(row)

    def _tell(self, row: Row) -> None:
        shown = {name: value for name, value in row.items() if name not in {"step", "tokens", "samples", "drawn"}}
        extra = {"tokens": float(self.tokens), "tokensPerSecond": self.tokens_per_second}
        extra["checkpointStep"] = float(self.checkpoint_step)
        self.reporter.report(self.step, self.plan.total_steps, shown | extra)
        if self.board is not None:
            self.board.add(row)

    @property
    def tokens_per_second(self) -> float:
        """Speed of this attempt."""
        return self.tokens / max(1e-9, self.seconds)

    @property
    def seconds(self) -> float:
        """Time since this attempt's first step began."""
        return time.monotonic() - self.started

    @property
    def ended(self) -> bool:
        """Whether the training is over, at its last step or because validation got no better."""
        return self.step >= self.plan.total_steps or self.standing.ended

    def save_if_due(self) -> None:
        """Write a checkpoint of each best validation and every so many steps, but then none of a suspicious step."""
        self.save_owed |= self.step % self.config.execution.checkpoint_every_steps == 0
        if self.standing.best_step == self.step or (self.save_owed and not self.watch.suspicious):
            self.save()

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
            self.checkpoints.complete(self.step, entries, as_lines(self.rows), self.standing.best_step)
            if self.board is not None:
                self.board.save()
        distributed.barrier()
        self.checkpoint_step, self.save_owed = self.step, False


def micro_batch_limit(execution: TrainExecution, device: torch.device) -> int:
    """Tokens of one forward pass of one rank."""
    return execution.micro_batch_tokens or (CPU_MICRO_BATCH_TOKENS if device.type == "cpu" else GPU_MICRO_BATCH_TOKENS)
