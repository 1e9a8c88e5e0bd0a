"""The divergence between attention maps of student and teacher, with its gradients formed in the forward pass.

Legend: N target tokens, L tokens of the packed row, H/K heads of queries/keys, A size of a head, S samples of a group,
W its width.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dram_workers.train.segments import Group, Segments


@dataclass(frozen=True)
class Heads:
    """What a layer's attention maps are made of."""

    query_HLA: Tensor
    key_KLA: Tensor
    scale: float
    window: int | None = None
    """Tokens that a token sees, itself included; None is all before it."""

    @classmethod
    def joined(cls, samples: tuple["Heads", ...]) -> "Heads":
        """Those of several samples as those of the row that they are packed into."""
        queries, keys = (
            torch.cat(parts, dim=1) for parts in zip(*((one.query_HLA, one.key_KLA) for one in samples), strict=True)
        )
        return cls(queries, keys, samples[0].scale, samples[0].window)


def map_divergence(student: Heads, teacher: Heads, segments: Segments, targets_N: Tensor) -> tuple[Tensor, Tensor]:
    """KL(teacher || student) of the maps: its sum with a gradient, and by target token, [N], without one.

    As in Sun et al., "MobileBERT" (arXiv 2004.02984), mean over the student's heads. Where head counts differ, each of
    the student's heads follows one of the teacher's, evenly spread. Rows of target tokens alone count, and a sample's
    row ends at its own tokens. The maps of one layer exist at a time, [S, H, W, W] for each group of samples.
    """
    total, loss_N = _Formed.apply(  # type: ignore[no-untyped-call]
        student.query_HLA, student.key_KLA, student, teacher, segments, targets_N
    )
    return total, loss_N


class _Formed(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        query_HLA: Tensor,
        key_KLA: Tensor,
        student: Heads,
        teacher: Heads,
        segments: Segments,
        targets_N: Tensor,
    ) -> tuple[Tensor, Tensor]:
        leaves = [states.detach().requires_grad_() for states in (query_HLA, key_KLA)]
        with torch.enable_grad(), torch.autocast(query_HLA.device.type, enabled=False):
            ours = Heads(leaves[0], leaves[1], student.scale, student.window)
            loss_N = _by_token(ours, teacher, segments).index_select(0, targets_N)
            total = loss_N.sum()
            ctx.save_for_backward(*torch.autograd.grad(total, leaves))
        by_token_N = loss_N.detach()
        ctx.mark_non_differentiable(by_token_N)
        return total.detach(), by_token_N

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return (*(saved * grads[0].to(saved.dtype) for saved in ctx.saved_tensors), None, None, None, None)


def _by_token(student: Heads, teacher: Heads, segments: Segments) -> Tensor:
    """The divergence of every token's row, [L]."""
    heads = len(student.query_HLA)
    followed_H = torch.arange(heads, device=student.query_HLA.device) * len(teacher.query_HLA) // heads
    parts = []
    for group in segments.groups:
        log_q, visible_WW = _log_maps(student, group, None)
        with torch.no_grad():
            log_p, _ = _log_maps(teacher, group, followed_H)
            p = log_p.exp()
        terms_SHWW = torch.where(visible_WW, p * (log_p - log_q), 0)
        parts.append(group.unpad(terms_SHWW.sum(-1).mean(1)[:, None, :, None])[:, 0, 0])
    return torch.cat(parts).index_select(0, segments.order_L)


def _log_maps(heads: Heads, group: Group, chosen_H: Tensor | None) -> tuple[Tensor, Tensor]:
    """Log-probabilities of a group's maps, [S, H, W, W], for some of the heads, and which of them count."""
    sums = torch.promote_types(heads.query_HLA.dtype, torch.float32)
    count = len(heads.query_HLA)
    all_H = torch.arange(count, device=heads.query_HLA.device) if chosen_H is None else chosen_H
    query_HLA = heads.query_HLA.index_select(0, all_H)
    key_HLA = heads.key_KLA.index_select(0, all_H * len(heads.key_KLA) // count)
    query, key = (group.pad(states).to(sums) for states in (query_HLA, key_HLA))
    window = group.width if heads.window is None else heads.window
    visible_WW = torch.ones(group.width, group.width, dtype=torch.bool, device=query.device).tril().triu(1 - window)
    scores = (query @ key.transpose(-1, -2)) * heads.scale
    lowest = torch.finfo(sums).min
    return scores.masked_fill(~visible_WW, lowest).log_softmax(-1), visible_WW
