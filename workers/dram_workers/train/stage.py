"""A rank's training from its inputs to the student's folder."""

from pathlib import Path

import torch
from torch import distributed
from transformers import PreTrainedModel

from dram_workers.data.dataset import Dataset
from dram_workers.data.tokenizer import ChatTokenizer
from dram_workers.errors import Transient, WorkerReason
from dram_workers.progress import open_reporter
from dram_workers.stages import TrainConfig, canonical_json
from dram_workers.store.stage import stage_folder
from dram_workers.train.board import Board
from dram_workers.train.cached import CachedTeacher
from dram_workers.train.checkpoint import as_lines
from dram_workers.train.distiller import Teacher
from dram_workers.train.engine import Engine, initialize_process_group
from dram_workers.train.gang import Gang, Task, TrainOutcome
from dram_workers.train.generation import Generator
from dram_workers.train.loop import train
from dram_workers.train.losses import Objective
from dram_workers.train.partition import local_elements, partition, partitions
from dram_workers.train.run import COMPUTE, Run, TargetSource, micro_batch_limit
from dram_workers.train.start import Start, check_precision, own_folder, start_of
from dram_workers.train.student import save_student
from dram_workers.train.validation import LOSS, Standing, Validator

Facts = dict[str, str | int | float | bool]

LOG = "train-log.jsonl"
FACTS = "train-facts.json"


def distill(task: Task, gang: Gang) -> TrainOutcome | None:
    """Train and write the student; None on every rank but the first."""
    identity = task.config.identity
    device = initialize_process_group()
    gang.met.touch()
    check_precision(identity, device)
    start = start_of(task)
    if len(start.rows) < start.plan.total_steps and not start.standing(identity.patience).ended:
        weights, facts = _train(task, gang, start, device)
    else:
        weights, facts = {name: value.detach() for name, value in start.module.named_parameters()}, Facts()
    if distributed.get_rank():
        return None
    standing = start.standing(identity.patience)
    weights = _best(weights, standing, start, Path(task.work))
    return _write(task, start, weights, _told(standing, start.plan.total_steps), facts)


def _train(task: Task, gang: Gang, start: Start, device: torch.device) -> tuple[dict[str, torch.Tensor], Facts]:
    """Train from the start to the end; returns the weights there and how it went."""
    config, rank, world = task.config, distributed.get_rank(), distributed.get_world_size()
    step = len(start.rows)
    engine = _engine(config, start, world)
    source = _source(task, start, device, world)
    board = Board(start.store, f"{stage_folder(config.kind, config.key)}/tensorboard", config.attempt, step)
    with open_reporter(config) as reporter:
        run = Run(
            config,
            start.dataset,
            start.plan,
            engine,
            source,
            start.checkpoints,
            reporter,
            gang.stop,
            Path(task.work),
            step,
            start.rows,
            rank,
            world,
            generator=_generator(task, start.dataset),
            validator=_validator(config, start.teacher, Path(task.inputs["dataset"]), device, world),
            board=board if rank == 0 else None,
            checkpoint_step=step,
        )
        train(run)
    if rank == 0:
        board.save()
    facts: Facts = {"tokensPerSecond": round(run.tokens_per_second, 1), "seconds": round(run.seconds, 1)}
    if start.teacher is not None and partitions(config.execution.deepspeed, world):
        facts["teacherElementsPerRank"] = local_elements(start.teacher)
    return {name: value.cpu() for name, value in engine.weights()}, facts


def _engine(config: TrainConfig, start: Start, world: int) -> Engine:
    """The engine, its optimizer where the checkpoint has it."""
    identity = config.identity
    steps = identity.freeze_embeddings_steps
    embeddings = start.student.get_input_embeddings().weight if steps else None
    assert embeddings is None or isinstance(embeddings, torch.nn.Parameter)
    engine = Engine(start.module, identity, config.execution.deepspeed, world, embeddings)
    if start.found is not None:
        done = [row["step"] for row in start.rows if "skipped" not in row]
        engine.load_moments(len(done), sum(step > steps for step in done), start.found.read)
    return engine


def _generator(task: Task, dataset: Dataset) -> Generator | None:
    identity = task.config.identity
    if identity.on_policy is None:
        return None
    return Generator(
        dataset,
        identity.on_policy,
        seed=identity.seed,
        max_length=identity.max_length,
        stop_ids=ChatTokenizer.load(own_folder(task)).stop_ids,
        compute=COMPUTE[identity.precision],
    )


def _validator(
    config: TrainConfig, teacher: PreTrainedModel | None, folder: Path, device: torch.device, world: int
) -> Validator | None:
    identity, settings = config.identity, config.execution.deepspeed
    if identity.validation_every_steps is None:
        return None
    held_out = Dataset(folder, "validation")
    objective = Objective(
        temperature=1.0,
        alpha=identity.alpha.end,
        normalizer=1.0,
        tile_bytes=config.execution.loss_tile_bytes,
        compute=COMPUTE[identity.precision],
    )
    packed, together = identity.packing, partitions(settings, world)
    return Validator(
        held_out,
        None if teacher is None else Teacher(teacher, held_out, packed=packed, together=together),
        objective,
        packed=packed,
        limit=micro_batch_limit(config.execution, device),
    )


def _best(weights: dict[str, torch.Tensor], standing: Standing, start: Start, work: Path) -> dict[str, torch.Tensor]:
    """The weights of the best validation; those at the end where there was none, or where it was the last step."""
    if standing.best_step in {None, len(start.rows)}:
        return weights
    assert standing.best_step is not None
    found = start.checkpoints.at(standing.best_step, work / "best")
    if found is None:
        raise Transient(
            WorkerReason.DIGEST_MISMATCH,
            f"the checkpoint of step {standing.best_step}, whose validation was best, is damaged: "
            "it is trained again from the one before",
        )
    return {name: found.read(name) for name in weights}


def _told(standing: Standing, total_steps: int) -> Facts:
    """What validation decided, as facts of the stage."""
    if standing.best_step is None:
        return {}
    told: Facts = {"bestStep": standing.best_step, LOSS: standing.best}
    if standing.ended and standing.latest_step < total_steps:
        told["stoppedEarly"] = (
            f"at step {standing.latest_step} of {total_steps}: {standing.waited} validations were no better than that "
            f"of step {standing.best_step}, whose weights are the student"
        )
    return told


def _source(task: Task, start: Start, device: torch.device, world: int) -> TargetSource | None:
    """Where the targets come from: the cache, or the teacher on this rank's device or spread over all of them.

    None in Sequence mode.
    """
    identity, teacher = task.config.identity, start.teacher
    if identity.mode == "Sequence":
        return None
    if teacher is None:
        return CachedTeacher(Path(task.inputs["logits"]), start.dataset, start.store, Path(task.work) / "logits")
    settings = task.config.execution.deepspeed
    together = partitions(settings, world)
    if together:
        partition(teacher, settings, device)
    else:
        torch.nn.Module.to(teacher, device)
    return Teacher(teacher, start.dataset, packed=identity.packing, together=together, layers=start.layers.teacher)


def _write(task: Task, start: Start, weights: dict[str, torch.Tensor], told: Facts, facts: Facts) -> TrainOutcome:
    """The student's folder; everything in it is the same whenever the training is repeated."""
    folder, rows = Path(task.work) / "student", start.rows
    prefix = "student."
    own = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
    parameters = sum(value.numel() for value in own.values())
    save_student(start.student, own, own_folder(task), folder)
    (folder / LOG).write_text("".join(line + "\n" for line in as_lines(rows)))
    last = rows[-1] if rows else {}
    recipe: Facts = {
        "steps": len(rows),
        "tokens": int(sum(row["tokens"] for row in rows)),
        "samples": int(sum(row["samples"] for row in rows)),
        "parameters": parameters,
        **{name: last[name] for name in ("loss", "soft", "hard", "hidden", "attention") if name in last},
        **told,
    }
    (folder / FACTS).write_bytes(canonical_json(recipe))
    # One is left in case this attempt ends before the student is published; the next visit removes it.
    start.checkpoints.prune(1, None if "bestStep" not in told else int(told["bestStep"]))
    return TrainOutcome(student=str(folder), facts={**recipe, **facts})
