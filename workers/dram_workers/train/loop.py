"""The training loop."""

import math
from collections import defaultdict
from collections.abc import Mapping

import torch
from torch import Tensor, distributed

from dram_workers.errors import BadInput, Interrupted, WorkerReason
from dram_workers.train.batches import MicroBatch
from dram_workers.train.generation import Drawn
from dram_workers.train.losses import Objective
from dram_workers.train.run import Row, Run


def train(run: Run) -> None:
    """Train to the end; raises Interrupted with a checkpoint behind it when any rank was told to stop."""
    for step, samples in enumerate(run.plan.steps(run.step), start=run.step):
        if run.ended:
            return
        torch.manual_seed(hash((run.config.identity.seed, step, run.rank)))
        row, stopping = learn(run, step, samples)
        run.record(row | run.validate(step + 1), samples)
        if run.watch.diverged:
            raise diverged(run, samples)
        if not run.ended:
            run.save_if_due()
        if stopping and not run.ended:
            raise interrupted(run)


def learn(run: Run, step: int, samples: tuple[int, ...]) -> tuple[Row, bool]:
    """One optimizer step: its row of the log, and whether any rank was told to stop."""
    drawn = run.draw(step, samples)
    objective = run.objective(step, drawn.targets)
    run.engine.frozen = step < run.config.identity.freeze_embeddings_steps
    run.engine.loss_scale = run.scale.value
    sums, losses = defaultdict[str, float](float), defaultdict[int, float](float)
    for batch in run.micro_batches(drawn):
        target = run.target(batch, objective.temperature)
        total, terms_N = run.engine.losses(batch, target, objective.of_own if batch.own else objective)
        run.engine.backward(total)
        for name, term_N in terms_N.items():
            sums[own(name) if batch.own else name] += float(term_N.double().sum())
            add_by_sample(losses, batch, term_N)

    summed, stopping = run.agree(sums)
    terms = terms_of(objective, drawn, summed)
    if not math.isfinite(terms["loss"]):
        raise broken(run, step, "loss", {sample for sample, value in losses.items() if not math.isfinite(value)})
    learning_rate = run.learning_rate(step)
    norm = run.engine.step(learning_rate)
    if math.isfinite(norm):
        terms["gradNorm"] = norm
    elif run.scale.shrinkable:
        terms["skipped"] = 1
    else:
        raise broken(run, step, "gradient", set(samples))
    schedules = {"alpha": objective.alpha, "temperature": objective.temperature, "learningRate": learning_rate}
    schedules |= {f"{name}Weight": objective.weights[name] for name in ("hidden", "attention") if name in terms}
    return {"step": step + 1, **terms, **schedules, **run.scale.shown}, stopping


def own(term: str) -> str:
    """The name of a loss term over the student's own completions."""
    return f"own{term.capitalize()}"


def terms_of(objective: Objective, drawn: Drawn, sums: Mapping[str, float]) -> Row:
    """The loss and its terms a token, from their sums over the data's tokens and over the student's own."""
    weighed = {**objective.weights, **{own(name): weight for name, weight in objective.of_own.weights.items()}}
    loss = sum(weighed[name] * value for name, value in sums.items()) / drawn.targets
    terms = {
        name: (sums.get(name, 0.0) + sums.get(own(name), 0.0)) / drawn.targets
        for name in objective.weights
        if name in sums or own(name) in sums
    }
    labelled = drawn.targets - drawn.own_targets
    # What the student wrote has no hard label.
    terms.pop("hard", None)
    if labelled:
        terms["hard"] = sums["hard"] / labelled
    if drawn.own_targets:
        terms[own("soft")] = sums[own("soft")] / drawn.own_targets
    return {"loss": loss, **terms, "targets": drawn.targets, "tokens": drawn.tokens, **drawn.shown}


def add_by_sample(losses: dict[int, float], batch: MicroBatch, loss_N: Tensor) -> None:
    """Add a micro-batch's losses to those of its samples."""
    sums = torch.bincount(batch.sample_of_N, weights=loss_N.double(), minlength=len(batch.samples))
    for sample, value in zip(batch.samples, sums.tolist(), strict=True):
        losses[sample] += value


def interrupted(run: Run) -> Interrupted:
    """Save, unless the latest step is suspicious, and say where the next attempt goes on."""
    if run.watch.suspicious:
        said = f"told to stop at step {run.step}, whose loss is too high to keep: it goes on from {last_good(run)}"
        return Interrupted(WorkerReason.INTERRUPTED, said)
    if run.checkpoint_step != run.step:
        run.save()
    return Interrupted(WorkerReason.INTERRUPTED, f"told to stop, checkpointed at step {run.step}")


def broken(run: Run, step: int, what: str, samples: set[int]) -> BadInput:
    """What to tell of a figure that is none; asks every rank for the samples at fault."""
    found: list[set[int]] = [samples] * run.world
    distributed.all_gather_object(found, samples)
    return BadInput(
        WorkerReason.LOSS_NOT_FINITE,
        f"the {what} is not finite at step {step + 1}; {named(run, set[int]().union(*found))}; {last_good(run)} is good",
        field="spec.training",
        remedy="lower learningRate, lengthen warmupSteps, set precision to FP32, or look at these samples",
    )


def diverged(run: Run, samples: tuple[int, ...]) -> BadInput:
    """What to tell of a loss that went up and stayed there."""
    row, lowest = run.rows[-1], run.watch.lowest
    terms = ", ".join(f"{name} {row[name]:.3g} (it was {level:.3g})" for name, level in sorted(lowest.items()))
    return BadInput(
        WorkerReason.LOSS_DIVERGED,
        f"the loss has diverged at step {run.step}: {terms}; {named(run, set(samples))}; {last_good(run)} is good",
        field="spec.training",
        remedy="lower learningRate, lengthen warmupSteps, or lower gradientClipping",
    )


def named(run: Run, samples: set[int]) -> str:
    """Ids of samples, as many as a message holds."""
    return f"samples: {', '.join(run.dataset.ids[sample] for sample in sorted(samples)[:8])}"


def last_good(run: Run) -> str:
    """The newest checkpoint, in words; none is made of a suspicious step."""
    return f"the checkpoint of step {run.checkpoint_step}" if run.checkpoint_step else "no checkpoint, only the start"
