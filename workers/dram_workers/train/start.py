"""What an attempt of a training starts from: models proven to serve, and the newest complete checkpoint."""

import json
import logging
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import distributed
from transformers import PreTrainedModel

from dram_workers.data.dataset import Dataset
from dram_workers.errors import BadInput, WorkerReason
from dram_workers.stages import TrainIdentity
from dram_workers.store.objects import ObjectStore
from dram_workers.store.open import open_store
from dram_workers.train.attention import SEGMENTS
from dram_workers.train.batches import Draw, Plan
from dram_workers.train.checkpoint import Checkpoint, Checkpoints
from dram_workers.train.distiller import Distiller, check_layers, check_projection, width_of
from dram_workers.train.gang import Task
from dram_workers.train.intermediate import LayerMap
from dram_workers.train.pretrained import check_reach, load_model
from dram_workers.train.run import COMPUTE, Row
from dram_workers.train.student import cut_from
from dram_workers.train.validation import Standing

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Start:
    """Where a training stands when an attempt begins."""

    student: PreTrainedModel
    teacher: PreTrainedModel | None
    """None in Sequence mode, and where a cache stands in for it."""
    layers: LayerMap
    module: Distiller
    dataset: Dataset
    plan: Plan
    store: ObjectStore
    checkpoints: Checkpoints
    found: Checkpoint | None
    """The checkpoint that it goes on from."""
    rows: list[Row]
    """The train log; it grows as the training goes on."""

    def standing(self, patience: int | None) -> Standing:
        """What the validations so far say."""
        return Standing.over(self.rows, patience)


def start_of(task: Task) -> Start:
    """Load and check what this rank needs; BadInput for models that cannot serve. Needs the process group."""
    config, work = task.config, Path(task.work)
    identity, execution = config.identity, config.execution
    dataset = Dataset(Path(task.inputs["dataset"]), "train")
    plan = Plan(dataset, Draw(identity.seed, identity.batch_tokens, identity.max_steps, identity.epochs))
    student, teacher = _models(task, dataset)
    store = open_store(execution.store, execution.mounts)
    checkpoints = Checkpoints(store, config.key, config.attempt, execution.checkpoints_kept)
    found = checkpoints.latest(work / f"resume-{distributed.get_rank()}") if plan.total_steps else None
    layers = _layers(identity, student, teacher)
    module = Distiller(student, layers, None if teacher is None else width_of(teacher))
    return Start(student, teacher, layers, module, dataset, plan, store, checkpoints, found, _resume(module, found))


def check_precision(identity: TrainIdentity, device: torch.device) -> None:
    """BadInput for FP16 on processors, which only emulate it."""
    if identity.precision == "FP16" and device.type == "cpu":
        raise BadInput(
            WorkerReason.PRECISION_UNSUPPORTED,
            "FP16 needs GPUs, and this pod has none",
            field="spec.training.precision",
            remedy="set it to BF16 or FP32, or give the training pods GPUs in spec.podTemplate.resources.train",
        )


def own_folder(task: Task) -> Path:
    """Where the student's tokenizer lies: with its own checkpoint, or with the teacher that it is cut from."""
    return Path(task.inputs["student"] if "student" in task.inputs else task.inputs["teacher"])


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
        student = load_model(own_folder(task), torch.float32, field, attention=attention)
    else:
        assert teacher is not None, "the planner gives a teacher to cut from where there is no student"
        assert identity.layers is not None, "the planner sets layers where there is no student"
        field = "spec.student.fromTeacher"
        student = cut_from(teacher, identity.layers, attention)
    _check(student, own_folder(task), field, dataset, packed=identity.packing)
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


def _check(model: PreTrainedModel, folder: Path, field: str, dataset: Dataset, *, packed: bool) -> None:
    check_reach(model, dataset, field)
    check_projection(model, folder, packed=packed, field=field)


def _resume(module: Distiller, found: Checkpoint | None) -> list[Row]:
    """Put the weights where the checkpoint has them; returns the log so far."""
    if found is None:
        return []
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(found.read(name))
    logger.info("resuming at step %d", found.manifest.step)
    return [json.loads(line) for line in found.manifest.log]
