"""The teacher's passes over samples, and what is kept of each target token.

Legend: N target tokens, n rows of a tile, E width of the teacher, V rows of the vocabulary, K ids kept, C = K + 1
log-probabilities, the last one that of all other ids together.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from dram_workers.context import StageContext
from dram_workers.data.dataset import Dataset
from dram_workers.stages import TeachIdentity
from dram_workers.teach.encoding import Encoding
from dram_workers.train.attention import SEGMENTS
from dram_workers.train.batches import lay_out
from dram_workers.train.distiller import check_projection, projection_of, target_hidden
from dram_workers.train.losses import Projection
from dram_workers.train.pretrained import check_reach, load_model

TILE_BYTES = 64 * 1024 * 1024
GPU_BATCH_TOKENS = 16_384
TYPES = {"BF16": torch.bfloat16, "FP16": torch.float16, "FP32": torch.float32}

Kept = tuple[NDArray[np.int64], NDArray[np.float32]]
"""A sample's ids [N, K] and log-probabilities [N, C]."""


class Passes:
    """A teacher that is asked for its likeliest tokens."""

    def __init__(self, model: PreTrainedModel, dataset: Dataset, identity: TeachIdentity, encoding: Encoding) -> None:
        self._model = model
        self._dataset = dataset
        self._packed = identity.packing
        self._projection = projection_of(model)
        self._rows, self._top_k, self._temperature = encoding.rows, encoding.top_k, identity.temperature

    @torch.inference_mode()
    def of(self, samples: Sequence[int]) -> Iterator[Kept]:
        """What is kept of each sample's targets, in their order.

        On a CPU every sample runs alone, as it does when the teacher runs beside the student, so what is kept does not
        depend on its neighbours. On a GPU that would waste the device.
        """
        for group in self._groups(samples):
            batch = lay_out(self._dataset, group, packed=self._packed).to(self._model.device)
            hidden_NE = target_hidden(self._model, batch)
            ids_NK, log_probs_NC = likeliest(hidden_NE, self._projection, self._rows, self._top_k, self._temperature)
            counts = torch.bincount(batch.sample_of_N, minlength=len(group)).tolist()
            yield from zip(np.split(ids_NK, ends(counts)), np.split(log_probs_NC, ends(counts)), strict=True)

    def _groups(self, samples: Sequence[int]) -> Iterator[tuple[int, ...]]:
        limit = 0 if self._model.device.type == "cpu" else GPU_BATCH_TOKENS
        group: list[int] = []
        for sample in samples:
            if group and int(self._dataset.lengths[[*group, sample]].sum()) > limit:
                yield tuple(group)
                group = []
            group.append(sample)
        if group:
            yield tuple(group)


def ends(counts: Sequence[int]) -> list[int]:
    """Where to split rows of which each sample has so many."""
    return list(np.cumsum(counts)[:-1])


@torch.no_grad()
def likeliest(hidden_NE: Tensor, teacher: Projection, rows: int, top_k: int, temperature: float) -> Kept:
    """The `top_k` likeliest of the first `rows` tokens at a temperature, with the log of all others' probability."""
    size = max(1, TILE_BYTES // (3 * 4 * rows))
    tiles = [_of_tile(tile_nE, teacher, rows, top_k, temperature) for tile_nE in torch.split(hidden_NE, size)]
    ids_NK, log_probs_NC = (torch.cat(parts).cpu().numpy() for parts in zip(*tiles, strict=True))
    return ids_NK, log_probs_NC


def _of_tile(
    hidden_nE: Tensor, teacher: Projection, rows: int, top_k: int, temperature: float
) -> tuple[Tensor, Tensor]:
    # The product has the teacher's own type, as the loss forms it beside a student.
    logits_nV = (hidden_nE @ teacher.weight_VD[:rows].T).float()
    if teacher.bias_V is not None:
        logits_nV += teacher.bias_V[:rows]
    logits_nV *= teacher.scale
    if teacher.softcap is not None:
        logits_nV.div_(teacher.softcap).tanh_().mul_(teacher.softcap)
    log_probs_nV = logits_nV.div_(temperature).log_softmax(-1)
    log_probs_nK, ids_nK = log_probs_nV.topk(top_k, dim=-1)
    # Summed over the others themselves: one minus the sum of the kept would have nothing but rounding where it is small.
    tail_n1 = log_probs_nV.scatter_(1, ids_nK, float("-inf")).logsumexp(-1, keepdim=True)
    return ids_nK, torch.cat([log_probs_nK, tail_n1], dim=1)


def open_passes(identity: TeachIdentity, context: StageContext, dataset: Dataset, encoding: Encoding) -> Passes:
    """The teacher of a job, as training would run it beside the student."""
    if context.execution.threads:
        torch.set_num_threads(context.execution.threads)
    folder = context.inputs.path("teacher")
    model = load_teacher(folder, identity, dataset)
    if torch.cuda.is_available():
        torch.nn.Module.to(model, "cuda")
    return Passes(model, dataset, identity, encoding)


def load_teacher(folder: Path, identity: TeachIdentity, dataset: Dataset) -> PreTrainedModel:
    """The model of a folder in the type of the arithmetic, checked against the data."""
    field = "spec.teacher.uri"
    model = load_model(folder, "auto", field, attention=SEGMENTS if identity.packing else "sdpa")
    torch.nn.Module.to(model, TYPES[identity.precision])
    check_reach(model, dataset, field)
    check_projection(model, folder, packed=identity.packing, field=field)
    return model.requires_grad_(requires_grad=False)
