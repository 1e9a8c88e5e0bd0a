"""The loss on tokens, tiled, with its gradients formed in the forward pass.

    L = alpha * T^2 * D(p_teacher^T, p_student^T) + (1 - alpha) * CE

after Hinton et al., "Distilling the Knowledge in a Neural Network" (arXiv 1503.02531). The logits of neither model are
ever held for all tokens: a tile of rows is projected, its loss and gradient are formed in place, a chunk at a time that
fits into the processor's cache, and the gradient is folded into that of the hidden states and of the head at once.

Legend: N target tokens, n rows of a tile, c rows of a chunk, D/E width of student/teacher, V/U rows of the
student's/teacher's head, C = min(V, U) rows that both have, b rows of a block of a head. Rows that only one head has are
padding: the teacher gives them no probability.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from dram_workers.train.losses.cached import cached_kl_
from dram_workers.train.losses.divergences import divergence_
from dram_workers.train.losses.terms import Losses, Objective, Projection, Target, TopK
from dram_workers.train.losses.work import Work


def distillation_loss(
    student: Projection, hidden_ND: Tensor, target: Target, labels_N: Tensor, objective: Objective
) -> Losses:
    """The loss of N target tokens; gradients reach `hidden_ND` and the student's weight and bias.

    Extra memory beside the gradients is at most `1.5 * tile_bytes`; ValueError when not even one row fits into that, or
    when a cache is to serve another divergence than forward KL.
    """
    if isinstance(target, TopK) and objective.divergence.type != "ForwardKL":
        raise ValueError(f"cached top-k targets serve ForwardKL, not {objective.divergence.type}")
    total, soft_N, hard_N = _Fused.apply(  # type: ignore[no-untyped-call]
        hidden_ND, student.weight_VD, student.bias_V, student, target, labels_N, objective
    )
    return Losses(total, soft_N, hard_N)


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_ND: Tensor,
        weight_VD: Tensor,
        bias_V: Tensor | None,
        student: Projection,
        target: Target,
        labels_N: Tensor,
        objective: Objective,
    ) -> tuple[Tensor, Tensor, Tensor]:
        with torch.autocast(hidden_ND.device.type, enabled=False):
            work = Work.create(hidden_ND, student, target, objective)
            grad_hidden_ND = torch.empty_like(hidden_ND)
            grad_weight_VD = torch.zeros_like(weight_VD) if ctx.needs_input_grad[1] else None
            grad_bias_V = torch.zeros_like(bias_V) if bias_V is not None and ctx.needs_input_grad[2] else None
            soft_N, hard_N = (hidden_ND.new_zeros(len(hidden_ND), dtype=work.sums) for _ in range(2))
            for start in range(0, len(hidden_ND), work.rows):
                tile = slice(start, start + work.rows)
                hidden_nD = hidden_ND[tile].to(work.compute)
                grad_nV = work.student_nV[: len(hidden_nD)]
                _project(work, student, hidden_nD, grad_nV)
                given = _of_tile(work, target, tile)
                for chunk in work.chunks(len(hidden_nD)):
                    here = slice(start + chunk.start, start + chunk.stop)
                    soft_c, hard_c = _chunk_(
                        work, grad_nV[chunk], _rows_of(given, chunk), labels_N[here], objective, student
                    )
                    soft_N[here], hard_N[here] = soft_c, hard_c
                grad_hidden_ND[tile] = _fold(work, student, grad_nV, hidden_nD, grad_weight_VD)
                if grad_bias_V is not None:
                    grad_bias_V += grad_nV.sum(0)
        ctx.save_for_backward(grad_hidden_ND, grad_weight_VD, grad_bias_V)
        ctx.mark_non_differentiable(soft_N, hard_N)
        total = (objective.alpha * soft_N.double() + (1 - objective.alpha) * hard_N.double()).sum()
        return (total / objective.normalizer).to(work.sums), soft_N, hard_N

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        saved: tuple[Tensor | None, ...] = ctx.saved_tensors
        if grads[0] != 1:
            saved = tuple(None if grad is None else grad * grads[0].to(grad.dtype) for grad in saved)
        return (*saved, None, None, None, None)


def _of_tile(work: Work, target: Target, tile: slice) -> Tensor | TopK | None:
    """A tile's part of the target: the teacher's logits, or what the cache has of its rows."""
    if isinstance(target, TopK):
        return target.rows(tile)
    if target is None:
        return None
    assert work.teacher_nC is not None, "made for a teacher at hand"
    hidden_nE = target.hidden_NE[tile].to(work.compute)
    teacher_nC = work.teacher_nC[: len(hidden_nE)]
    _project(work, target.projection, hidden_nE, teacher_nC)
    return teacher_nC


def _rows_of(given: Tensor | TopK | None, chunk: slice) -> Tensor | TopK | None:
    return given.rows(chunk) if isinstance(given, TopK) else None if given is None else given[chunk]


def _chunk_(
    work: Work,
    logits_cV: Tensor,
    given: Tensor | TopK | None,
    labels_c: Tensor,
    objective: Objective,
    student: Projection,
) -> tuple[Tensor, Tensor]:
    """Soft and hard losses of a chunk; `logits_cV` becomes the gradient of the unscaled, uncapped logits."""
    temperature, alpha = objective.temperature, objective.alpha
    hard_cV, log_cV, other_cV = (buffer[: len(logits_cV)] for buffer in work.scratch_cV[:3])
    if student.softcap is not None:
        slope_cV = work.scratch_cV[3][: len(logits_cV)]
        torch.div(logits_cV, student.softcap, out=slope_cV).square_().neg_().add_(1)
    torch.log_softmax(logits_cV, -1, out=log_cV)
    hard_c = -log_cV.gather(1, labels_c[:, None])[:, 0]
    torch.exp(log_cV, out=hard_cV)
    hard_cV.scatter_add_(1, labels_c[:, None], torch.full_like(hard_c, -1)[:, None])
    factor = student.scale / objective.normalizer
    if given is None:
        soft_c = torch.zeros_like(hard_c)
        torch.mul(hard_cV, (1 - alpha) * factor, out=logits_cV)
    else:
        if temperature != 1:
            torch.log_softmax(logits_cV.div_(temperature), -1, out=log_cV)
        soft_c = _soft_(given, objective, log_cV, logits_cV, other_cV)
        torch.mul(hard_cV, (1 - alpha) * factor, out=logits_cV)
        logits_cV.add_(log_cV, alpha=alpha * temperature * factor)
    if student.softcap is not None:
        logits_cV *= slope_cV
    return soft_c, hard_c


def _soft_(given: Tensor | TopK, objective: Objective, log_cV: Tensor, scratch_cV: Tensor, other_cV: Tensor) -> Tensor:
    """T^2 * divergence of each row; `log_cV`, the student's log-probabilities, becomes the divergence's gradient."""
    square = objective.temperature**2
    if isinstance(given, TopK):
        return cached_kl_(log_cV, given) * square
    if objective.temperature != 1:
        given /= objective.temperature
    log_cC = torch.log_softmax(given, -1, out=other_cV[:, : given.shape[1]])
    return divergence_(objective.divergence, log_cV, log_cC, scratch_cV, given) * square


def _project(work: Work, model: Projection, hidden_nD: Tensor, out_nV: Tensor) -> None:
    """The first `out_nV.shape[1]` logits of a model, in FP32 or better."""
    for rows, weight_bD in _blocks(work, model.weight_VD[: out_nV.shape[1]]):
        if work.compute == out_nV.dtype:
            torch.mm(hidden_nD, weight_bD.T, out=out_nV[:, rows])
        else:
            out_nV[:, rows] = hidden_nD @ weight_bD.T
    if model.bias_V is not None:
        out_nV += model.bias_V[: out_nV.shape[1]]
    if model.scale != 1:
        out_nV *= model.scale
    if model.softcap is not None:
        out_nV.div_(model.softcap).tanh_().mul_(model.softcap)


def _fold(work: Work, student: Projection, grad_nV: Tensor, hidden_nD: Tensor, grad_weight_VD: Tensor | None) -> Tensor:
    """The gradient of the hidden states; that of the head is added to `grad_weight_VD`."""
    grad_hidden_nD = hidden_nD.new_zeros(hidden_nD.shape, dtype=work.sums)
    for rows, weight_bD in _blocks(work, student.weight_VD):
        grad_nb = grad_nV[:, rows].to(work.compute)
        grad_hidden_nD += grad_nb @ weight_bD
        if grad_weight_VD is None:
            continue
        if work.compute == grad_weight_VD.dtype:
            grad_weight_VD[rows].addmm_(grad_nb.T, hidden_nD)
        else:
            grad_weight_VD[rows] += grad_nb.T @ hidden_nD
    return grad_hidden_nD


def _blocks(work: Work, weight_VD: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """A head in the compute type, a block of rows at a time: one that fits into the cache is also multiplied faster."""
    for start in range(0, len(weight_VD), work.block):
        rows = slice(start, min(start + work.block, len(weight_VD)))
        yield rows, weight_VD[rows].to(work.compute)
