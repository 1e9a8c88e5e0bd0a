"""The losses between chosen layers of student and teacher, by target token; means over the pairs of layers.

Legend: N target tokens, D width of the teacher.
"""

from typing import Literal

import torch
from torch import Tensor

from dram_workers.train.losses.hidden import hidden_distance
from dram_workers.train.losses.maps import Heads, map_divergence
from dram_workers.train.segments import Segments


def hidden_loss(
    student: tuple[Tensor, ...], teacher: tuple[Tensor, ...], kind: Literal["MSE", "Cosine"]
) -> tuple[Tensor, Tensor]:
    """Mean distance of the pairs' hidden states, each [N, D]: the sum over tokens with a gradient, and [N] without."""
    pairs = zip(student, teacher, strict=True)
    loss_N = torch.stack([hidden_distance(ours, theirs, kind) for ours, theirs in pairs]).mean(0)
    return loss_N.sum(), loss_N.detach()


def attention_loss(
    student: tuple[Heads, ...], teacher: tuple[Heads, ...], segments: Segments, targets_N: Tensor
) -> tuple[Tensor, Tensor]:
    """Mean divergence of the pairs' attention maps: the sum over tokens with a gradient, and [N] without."""
    pairs = zip(student, teacher, strict=True)
    found = [map_divergence(ours, theirs, segments, targets_N) for ours, theirs in pairs]
    return torch.stack([total for total, _ in found]).mean(), torch.stack([loss_N for _, loss_N in found]).mean(0)
