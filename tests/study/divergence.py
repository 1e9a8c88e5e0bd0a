"""How far a student is from its teacher on samples that were held out of training: dense, one sample at a time.

Written without the training's own loss, so that it measures every recipe by the same rule.
Legend: T tokens of a sample, N its targets, V vocabulary.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import kl_div, nll_loss

from dram_workers.data.dataset import Dataset
from dram_workers.train.pretrained import load_model


@dataclass(frozen=True)
class HeldOut:
    """Means over all targets of the validation split, in nats a token, at temperature 1."""

    divergence: float
    """KL(teacher || student)."""
    cross_entropy: float
    targets: int


@torch.inference_mode()
def held_out(teacher_folder: Path, student_folder: Path, dataset_folder: Path) -> HeldOut:
    """Measure; ValueError when nothing was held out."""
    teacher, student = (
        load_model(folder, torch.float32, field)
        for folder, field in ((teacher_folder, "spec.teacher.uri"), (student_folder, "spec.student.uri"))
    )
    dataset = Dataset(dataset_folder, "validation")
    divergence, cross_entropy, targets = 0.0, 0.0, 0
    for number in range(len(dataset)):
        sample = dataset[number]
        tokens_T = torch.from_numpy(np.asarray(sample.tokens, np.int64))
        targets_N = torch.from_numpy(np.flatnonzero(sample.loss_mask[1:]))
        student_NV, teacher_NV = (_log_probabilities(model, tokens_T, targets_N) for model in (student, teacher))
        divergence += float(kl_div(student_NV, teacher_NV, reduction="sum", log_target=True))
        cross_entropy += float(nll_loss(student_NV, tokens_T[1:][targets_N], reduction="sum"))
        targets += len(targets_N)
    if not targets:
        raise ValueError("the dataset has no validation sample: raise spec.dataset.validationFraction")
    return HeldOut(divergence / targets, cross_entropy / targets, targets)


def _log_probabilities(model: torch.nn.Module, tokens_T: Tensor, targets_N: Tensor) -> Tensor:
    logits_TV: Tensor = model(input_ids=tokens_T[None], use_cache=False).logits[0]
    return logits_TV.index_select(0, targets_N).double().log_softmax(-1)
