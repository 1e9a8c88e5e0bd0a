"""A rank's training from its inputs to the student's folder."""

import json
import logging
import os
from pathlib import Path

import torch
from transformers import PreTrainedModel

from dram_workers.data.dataset import Dataset
from dram_workers.data.tokenizer import ChatTokenizer
from dram_workers.errors import BadInput, Transient, WorkerReason
from dram_workers.progress import open_reporter
from dram_workers.stages import TrainConfig, TrainIdentity, canonical_json
from dram_workers.store.objects import ObjectStore
from dram_workers.store.open import open_store
from dram_workers.store.stage import stage_folder
from dram_workers.train.attention import SEGMENTS
from dram_workers.train.batches import Draw, Plan
from dram_workers.train.board import Board
from dram_workers.train.cached import CachedTeacher
from dram_workers.train.checkpoint import Checkpoint, Checkpoints, as_lines
from dram_workers.train.distiller import Distiller, Teacher, check_layers, check_projection, width_of
from dram_workers.train.engine import Engine, initialize_process_group
from dram_workers.train.gang import Gang, Task, TrainOutcome
from dram_workers.train.generation import Generator
from dram_workers.train.intermediate import LayerMap, Layers
from dram_workers.train.loop import train
from dram_workers.train.losses import Objective
from dram_workers.train.partition import local_elements, partition, partitions
from dram_workers.train.pretrained import check_reach, load_model
from dram_workers.train.run import COMPUTE, Row, Run, TargetSource, micro_batch_limit
from dram_workers.train.student import cut_from, save_student
from dram_workers.train.validation import LOSS, Standing, Validator

logger = logging.getLogger(__name__)

Facts = dict[str, str | int | float | bool]

LOG = "train-log.jsonl"
FACTS = "train-facts.json"


def distill(task: Task, gang: Gang) -> TrainOutcome | None:
    """Train and write the student; None on every rank but the first."""
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    config, work = task.config, Path(task.work)
    identity, execution = config.identity, config.execution
    dataset = Dataset(Path(task.inputs["dataset"]), "train")
    plan = Plan(dataset, Draw(identity.seed, identity.batch_tokens, identity.max_steps, identity.epochs))
    device = initialize_process_group()
    gang.met.touch()
    _check_precision(identity, device)
    student, teacher = _models(task, dataset)
    store = open_store(execution.store, execution.mounts)
    checkpoints = Checkpoints(store, config.key, config.attempt, execution.checkpoints_kept)
    found = checkpoints.latest(work / f"resume-{rank}") if plan.total_steps else None
    layers = _layers(identity, student, teacher)
    module = Distiller(student, layers, None if teacher is None else width_of(teacher))
    rows, step = _resume(module, found)
    facts: Facts = {}
    if step < plan.total_steps and not Standing.over(rows, identity.patience).ended:
        engine = _engine(module, config, world, found, rows)
        source = _source(task, teacher, layers.teacher, dataset, store, device, world)
        board = Board(store, f"{stage_folder(config.kind, config.key)}/tensorboard", config.attempt, step)
        with open_reporter(config) as reporter:
            run = Run(
                config,
                dataset,
                plan,
                engine,
                source,
                checkpoints,
                reporter,
                gang.stop,
                work,
                step,
                rows,
                rank,
                world,
                generator=_generator(task, dataset),
                validator=_validator(config, teacher, Path(task.inputs["dataset"]), device, world),
                board=board if rank == 0 else None,
                checkpoint_step=step,
            )
            train(run)
        if rank == 0:
            board.save()
        facts = {"tokensPerSecond": round(run.tokens_per_second, 1), "seconds": round(run.seconds, 1)}
        if teacher is not None and partitions(execution.deepspeed, world):
            facts["teacherElementsPerRank"] = local_elements(teacher)
        weights = {name: value.cpu() for name, value in engine.weights()}
    else:
        weights = {name: value.detach() for name, value in module.named_parameters()}
    if rank:
        return None
    standing = Standing.over(rows, identity.patience)
    weights = _best(weights, standing, len(rows), checkpoints, work)
    return _write(task, student, weights, rows, _told(standing, plan.total_steps), facts, checkpoints)


def _check_precision(identity: TrainIdentity, device: torch.device) -> None:
    """BadInput for FP16 on processors, which only emulate it."""
    if identity.precision == "FP16" and device.type == "cpu":
        raise BadInput(
            WorkerReason.PRECISION_UNSUPPORTED,
            "FP16 needs GPUs, and this pod has none",
            field="spec.training.precision",
            remedy="set it to BF16 or FP32, or give the training pods GPUs in spec.podTemplate.resources.train",
        )


def _engine(module: Distiller, config: TrainConfig, world: int, found: Checkpoint | None, rows: list[Row]) -> Engine:
    """The engine, its optimizer where the checkpoint has it."""
    identity = config.identity
    steps = identity.freeze_embeddings_steps
    embeddings = module.student.get_input_embeddings().weight if steps else None
    assert embeddings is None or isinstance(embeddings, torch.nn.Parameter)
    engine = Engine(module, identity, config.execution.deepspeed, world, embeddings)
    if found is not None:
        done = [row["step"] for row in rows if "skipped" not in row]
        engine.load_moments(len(done), sum(step > steps for step in done), found.read)
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
        stop_ids=ChatTokenizer.load(_own_folder(task)).stop_ids,
        compute=COMPUTE[identity.precision],
    )


def _own_folder(task: Task) -> Path:
    """Where the student's tokenizer lies: with its own checkpoint, or with the teacher that it is cut from."""
    return Path(task.inputs["student"] if "student" in task.inputs else task.inputs["teacher"])


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


def _best(
    weights: dict[str, torch.Tensor], standing: Standing, steps: int, checkpoints: Checkpoints, work: Path
) -> dict[str, torch.Tensor]:
    """The weights of the best validation; those at the end where there was none, or where it was the last step."""
    if standing.best_step in {None, steps}:
        return weights
    assert standing.best_step is not None
    found = checkpoints.at(standing.best_step, work / "best")
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


def _models(task: Task, dataset: Dataset) -> tuple[PreTrainedModel, PreTrainedModel | None]:
    """Student in FP32 and frozen teacher in the type of the arithmetic, both checked against the data.

    There is none in Sequence mode or with cached logits: its weights are read only where the student is cut from them.
    """
    identity, cached = task.config.identity, "logits" in task.inputs
    attention = SEGMENTS if identity.packing else "sdpa"
    teacher = None
    if "teacher" in task.inputs and not (cached and "student" in task.inputs):
        teacher = load_model(Path(task.inputs["teacher"]), "auto", "spec.teacher.uri", attention=attention)
    if "student" in task.inputs:
        field = "spec.student.uri"
        student = load_model(_own_folder(task), torch.float32, field, attention=attention)
    else:
        assert teacher is not None, "the planner gives a teacher to cut from where there is no student"
        assert identity.layers is not None, "the planner sets layers where there is no student"
        field = "spec.student.fromTeacher"
        student = cut_from(teacher, identity.layers, attention)
    _check(student, _own_folder(task), field, dataset, packed=identity.packing)
    if cached or teacher is None or identity.mode == "Sequence":
        return student.train(), None
    teacher.requires_grad_(requires_grad=False)
    torch.nn.Module.to(teacher, COMPUTE[identity.precision])
    _check(teacher, Path(task.inputs["teacher"]), "spec.teacher.uri", dataset, packed=identity.packing)
    return student.train(), teacher


def _layers(identity: TrainIdentity, student: PreTrainedModel, teacher: PreTrainedModel | None) -> LayerMap:
    """The layers that are compared, proven to be there; none without a teacher."""
    if teacher is None:
        return LayerMap()
    layers = LayerMap.of(identity, student.config.num_hidden_layers, teacher.config.num_hidden_layers)
    check_layers(student, layers.student, packed=identity.packing, field="spec.student")
    check_layers(teacher, layers.teacher, packed=identity.packing, field="spec.teacher")
    return layers


def _source(
    task: Task,
    teacher: PreTrainedModel | None,
    layers: Layers,
    dataset: Dataset,
    store: ObjectStore,
    device: torch.device,
    world: int,
) -> TargetSource | None:
    """Where the targets come from: the cache, or the teacher on this rank's device or spread over all of them.

    None in Sequence mode.
    """
    if task.config.identity.mode == "Sequence":
        return None
    if teacher is None:
        return CachedTeacher(Path(task.inputs["logits"]), dataset, store, Path(task.work) / "logits")
    settings = task.config.execution.deepspeed
    together = partitions(settings, world)
    if together:
        partition(teacher, settings, device)
    else:
        torch.nn.Module.to(teacher, device)
    return Teacher(teacher, dataset, packed=task.config.identity.packing, together=together, layers=layers)


def _check(model: PreTrainedModel, folder: Path, field: str, dataset: Dataset, *, packed: bool) -> None:
    check_reach(model, dataset, field)
    check_projection(model, folder, packed=packed, field=field)


def _resume(module: Distiller, found: Checkpoint | None) -> tuple[list[Row], int]:
    """Put the weights where the checkpoint has them; returns the log so far and the steps that are done."""
    if found is None:
        return [], 0
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(found.read(name))
    logger.info("resuming at step %d", found.manifest.step)
    return [json.loads(line) for line in found.manifest.log], found.manifest.step


def _write(
    task: Task,
    student: PreTrainedModel,
    weights: dict[str, torch.Tensor],
    rows: list[Row],
    told: Facts,
    facts: Facts,
    checkpoints: Checkpoints,
) -> TrainOutcome:
    """The student's folder; everything in it is the same whenever the training is repeated."""
    folder = Path(task.work) / "student"
    prefix = "student."
    own = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
    parameters = sum(value.numel() for value in own.values())
    save_student(student, own, _own_folder(task), folder)
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
    checkpoints.prune(1, None if "bestStep" not in told else int(told["bestStep"]))
    return TrainOutcome(student=str(folder), facts={**recipe, **facts})
