"""The training loop."""

import math

import torch
from torch import Tensor, distributed

from dram_workers.errors import BadInput, Interrupted, WorkerReason
from dram_workers.train.batches import MicroBatch
from dram_workers.train.run import Run


def train(run: Run) -> None:
    """Train to the last step; raises Interrupted with a checkpoint behind it when any rank was told to stop."""
    for step, samples in enumerate(run.plan.steps(run.step), start=run.step):
        torch.manual_seed(hash((run.config.identity.seed, step, run.rank)))
        objective = run.objective(step, samples)
        soft, hard, failing = 0.0, 0.0, set[int]()
        for batch in run.micro_batches(samples):
            target = run.teacher.target(batch, objective.temperature)
            total, soft_N, hard_N = run.engine.losses(batch, target, objective)
            run.engine.backward(total)
            soft, hard = soft + float(soft_N.double().sum()), hard + float(hard_N.double().sum())
            failing |= not_finite(batch, soft_N + hard_N)

        soft, hard, stopping = run.agree(soft, hard)
        targets = objective.normalizer * run.world
        soft, hard = soft / targets, hard / targets
        loss = objective.alpha * soft + (1 - objective.alpha) * hard
        if not math.isfinite(loss):
            raise broken(run, step, "loss", failing)
        learning_rate = run.learning_rate(step)
        norm = run.engine.step(learning_rate)
        if not math.isfinite(norm):
            raise broken(run, step, "gradient", set(samples))

        schedules = {"alpha": objective.alpha, "temperature": objective.temperature, "learningRate": learning_rate}
        terms = {"loss": loss, "soft": soft, "hard": hard, "gradNorm": norm, "targets": targets}
        run.record({"step": step + 1, **terms, **schedules}, samples)
        last = run.step == run.plan.total_steps
        if stopping or (run.step % run.config.execution.checkpoint_every_steps == 0 and not last):
            run.save()
        if stopping and not last:
            raise Interrupted(WorkerReason.INTERRUPTED, f"told to stop, checkpointed at step {run.step}")


def not_finite(batch: MicroBatch, loss_N: Tensor) -> set[int]:
    """Samples of a micro-batch with a loss that is no number."""
    return {batch.samples[index] for index in batch.sample_of_N[~loss_N.isfinite()].tolist()}


def broken(run: Run, step: int, what: str, samples: set[int]) -> BadInput:
    """What to tell when training has diverged; asks every rank for the samples at fault."""
    found: list[set[int]] = [samples] * run.world
    distributed.all_gather_object(found, samples)
    ids = [run.dataset.ids[sample] for sample in sorted(set[int]().union(*found))]
    return BadInput(
        WorkerReason.LOSS_NOT_FINITE,
        f"the {what} is not finite at step {step + 1}; samples: {', '.join(ids[:8])}",
        field="spec.training",
        remedy="lower learningRate, lengthen warmupSteps, set precision to FP32, or look at these samples",
    )
