"""How near the gradient from the cache comes to the one from all of the teacher's logits.

Compared where the loss hands it to the student's body: by the hidden states of the target tokens, over all of them. The
student is the untrained one. Legend as in `losses.terms`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from dram_workers.context import StageContext
from dram_workers.data.dataset import Dataset
from dram_workers.stages import TeachConfig
from dram_workers.teach.encoding import Encoding
from dram_workers.teach.passes import likeliest, load_teacher
from dram_workers.train.attention import SEGMENTS
from dram_workers.train.batches import lay_out
from dram_workers.train.distiller import projection_of, target_hidden
from dram_workers.train.losses import Objective, Target, TeacherStates, TopK, distillation_loss
from dram_workers.train.pretrained import load_model
from dram_workers.train.student import cut_from

SAMPLED_TARGETS = 512
"""Enough: over 512 tokens of text the cosine varies in its third digit."""


@dataclass(frozen=True)
class Agreement:
    """The cached gradient beside the full one."""

    cosine: float
    norm_ratio: float
    mass_outside: float
    """Mean of the teacher's probability that is outside the tokens kept."""


def measure(config: TeachConfig, context: StageContext, dataset: Dataset, encoding: Encoding) -> float:
    """The cosine on samples spread over the dataset, with the job's teacher and its untrained student."""
    identity = config.identity
    attention = SEGMENTS if identity.packing else "sdpa"
    teacher = load_teacher(context.inputs.path("teacher"), identity, dataset)
    if "student" in context.inputs:
        student = load_model(context.inputs.path("student"), torch.float32, "spec.student.uri", attention=attention)
    else:
        assert identity.layers is not None, "the planner sets layers where there is no student"
        student = cut_from(teacher, identity.layers, attention)
    pair = Pair.on(teacher, student, dataset, packed=identity.packing)
    return pair.agreement(encoding, identity.temperature).cosine


@dataclass(frozen=True)
class Pair:
    """Hidden states of teacher and student for the same target tokens, and their heads."""

    teacher: TeacherStates
    student: PreTrainedModel
    hidden_ND: Tensor
    labels_N: Tensor

    @classmethod
    @torch.no_grad()
    def on(
        cls,
        teacher: PreTrainedModel,
        student: PreTrainedModel,
        dataset: Dataset,
        *,
        packed: bool,
        targets: int = SAMPLED_TARGETS,
    ) -> "Pair":
        """Run both over samples spread evenly over the dataset, until there are enough targets."""
        batches = [lay_out(dataset, (sample,), packed=packed) for sample in _spread(dataset, targets)]
        teacher_NE = torch.cat([target_hidden(teacher, batch) for batch in batches])
        student_ND = torch.cat([target_hidden(student, batch) for batch in batches])
        labels_N = torch.cat([batch.labels_N for batch in batches])
        return cls(TeacherStates(projection_of(teacher), teacher_NE), student, student_ND.float(), labels_N)

    def agreement(self, encoding: Encoding, temperature: float) -> Agreement:
        """Compare the gradients with what the cache would keep, as it would keep it."""
        found = likeliest(self.teacher.hidden_NE, self.teacher.projection, encoding.rows, encoding.top_k, temperature)
        ids_NK, logs_NC = (torch.from_numpy(part) for part in encoding.decode(encoding.encode(*found)))
        kept = TopK(ids_NK, logs_NC[:, :-1], logs_NC[:, -1], encoding.rows)
        full, cached = (self._gradient(target, temperature).double() for target in (self.teacher, kept))
        return Agreement(
            cosine=float((full * cached).sum() / (full.norm() * cached.norm())),
            norm_ratio=float(cached.norm() / full.norm()),
            mass_outside=float(np.exp(found[1][:, -1]).mean()),
        )

    def _gradient(self, target: Target, temperature: float) -> Tensor:
        hidden_ND = self.hidden_ND.clone().requires_grad_()
        objective = Objective(temperature, alpha=1.0, normalizer=len(hidden_ND), compute=torch.float32)
        losses = distillation_loss(projection_of(self.student), hidden_ND, target, self.labels_N, objective)
        losses.total.backward()  # type: ignore[no-untyped-call]
        assert hidden_ND.grad is not None
        return hidden_ND.grad


def _spread(dataset: Dataset, targets: int) -> Sequence[int]:
    """Samples evenly over the dataset with about so many targets together."""
    mean = max(1.0, float(np.mean([int(dataset[number].loss_mask[1:].sum()) for number in range(len(dataset))])))
    wanted = min(len(dataset), max(1, round(targets / mean)))
    return [int(number) for number in np.linspace(0, len(dataset) - 1, wanted)]
