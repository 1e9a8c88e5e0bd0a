"""The distillation loss, tiled, with its gradients formed in the forward pass.

    L = alpha * T^2 * KL(p_teacher^T || p_student^T) + (1 - alpha) * CE

after Hinton et al., "Distilling the Knowledge in a Neural Network" (arXiv 1503.02531). The logits of neither model are
ever held for all tokens: a tile of rows is projected, its loss and gradient are formed in place, and the gradient is
folded into that of the hidden states and of the head at once.

Legend: N target tokens, n rows of a tile, D/E width of student/teacher, V/U rows of the student's/teacher's head,
C = min(V, U) rows that both have. Rows that only one head has are padding: the teacher gives them no probability.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

MIB = 1024 * 1024


@dataclass(frozen=True)
class Projection:
    """How a model turns hidden states into logits: `softcap(scale * (hidden @ weight.T + bias))`."""

    weight_VD: Tensor
    bias_V: Tensor | None = None
    scale: float = 1.0
    softcap: float | None = None
    """Logits become `softcap * tanh(logits / softcap)`."""


@dataclass(frozen=True)
class Objective:
    """The loss at one step, and how it is computed."""

    temperature: float
    alpha: float
    normalizer: float
    """The loss is the sum over tokens divided by this: the targets of the whole step over all ranks."""
    tile_bytes: int = 64 * MIB
    compute: torch.dtype | None = None
    """Type of the matrix products; None is that of the student's head. Sums and softmaxes stay in at least FP32."""


@dataclass(frozen=True)
class Losses:
    """The loss with a gradient, and its terms by token without."""

    total: Tensor
    soft_N: Tensor
    """T^2 * KL of each token."""
    hard_N: Tensor
    """Cross-entropy of each token."""


def distillation_loss(
    student: Projection,
    hidden_ND: Tensor,
    teacher: Projection,
    teacher_hidden_NE: Tensor,
    labels_N: Tensor,
    objective: Objective,
) -> Losses:
    """The loss of N target tokens; gradients reach `hidden_ND` and the student's weight and bias.

    Extra memory beside the gradients is at most `1.5 * tile_bytes`; ValueError when not even one row fits into that.
    """
    total, soft_N, hard_N = _Fused.apply(  # type: ignore[no-untyped-call]
        hidden_ND, student.weight_VD, student.bias_V, student, teacher, teacher_hidden_NE, labels_N, objective
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
        teacher: Projection,
        teacher_hidden_NE: Tensor,
        labels_N: Tensor,
        objective: Objective,
    ) -> tuple[Tensor, Tensor, Tensor]:
        with torch.autocast(hidden_ND.device.type, enabled=False):
            work = _Work.create(hidden_ND, student, objective)
            grad_hidden_ND = torch.empty_like(hidden_ND)
            grad_weight_VD = torch.zeros_like(weight_VD) if ctx.needs_input_grad[1] else None
            grad_bias_V = torch.zeros_like(bias_V) if bias_V is not None and ctx.needs_input_grad[2] else None
            soft_N, hard_N = (hidden_ND.new_zeros(len(hidden_ND), dtype=work.sums) for _ in range(2))
            for start in range(0, len(hidden_ND), work.rows):
                tile = slice(start, start + work.rows)
                hidden_nD = hidden_ND[tile].to(work.compute)
                grad_nV = _tile(
                    work, student, hidden_nD, teacher, teacher_hidden_NE[tile], labels_N[tile], objective,
                    soft_N[tile], hard_N[tile],
                )  # fmt: skip
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
        return (*saved, None, None, None, None, None)


@dataclass(frozen=True)
class _Work:
    """Buffers of one tile, made once and used for every tile."""

    rows: int
    block: int
    """Rows of a head that are cast to the compute type at a time."""
    compute: torch.dtype
    sums: torch.dtype
    student_nV: Tensor
    teacher_nV: Tensor
    scratch_nV: Tensor
    slope_nV: Tensor | None
    """The soft-cap's derivative."""

    @classmethod
    def create(cls, hidden_ND: Tensor, student: Projection, objective: Objective) -> "_Work":
        rows_V, width = student.weight_VD.shape
        sums = torch.float64 if student.weight_VD.dtype == torch.float64 else torch.float32
        buffers = 3 if student.softcap is None else 4
        row_bytes = buffers * rows_V * sums.itemsize
        # A quarter is left for what the matrix products need themselves.
        rows = min(objective.tile_bytes * 3 // 4 // row_bytes, max(1, len(hidden_ND)))
        if rows == 0:
            raise ValueError(
                f"a row of the loss needs {row_bytes} bytes, a tile of {objective.tile_bytes} is too small"
            )
        made = [hidden_ND.new_empty((rows, rows_V), dtype=sums) for _ in range(buffers)]
        compute = objective.compute or student.weight_VD.dtype
        block = max(16, objective.tile_bytes // 16 // (max(width, rows) * sums.itemsize))
        return cls(rows, block, compute, sums, made[0], made[1], made[2], made[3] if buffers == 4 else None)


def _tile(
    work: _Work,
    student: Projection,
    hidden_nD: Tensor,
    teacher: Projection,
    teacher_hidden_nE: Tensor,
    labels_n: Tensor,
    objective: Objective,
    soft_n: Tensor,
    hard_n: Tensor,
) -> Tensor:
    """Losses of a tile into `soft_n` and `hard_n`; returns the gradient of the unscaled, uncapped logits."""
    n, temperature, alpha = len(hidden_nD), objective.temperature, objective.alpha
    common = min(student.weight_VD.shape[0], teacher.weight_VD.shape[0])
    student_nV, other_nV, scratch_nV = work.student_nV[:n], work.teacher_nV[:n], work.scratch_nV[:n]
    _project(work, student, hidden_nD, student_nV)
    if student.softcap is not None:
        assert work.slope_nV is not None
        torch.div(student_nV, student.softcap, out=work.slope_nV[:n]).square_().neg_().add_(1)
    _log_softmax_(student_nV.div_(temperature), scratch_nV)
    teacher_nC, target_nC = other_nV[:, :common], scratch_nV[:, :common]
    _project(work, teacher, teacher_hidden_nE.to(work.compute), teacher_nC)
    _log_softmax_(teacher_nC.div_(temperature), target_nC)
    torch.exp(teacher_nC, out=target_nC)
    teacher_nC -= student_nV[:, :common]
    torch.linalg.vecdot(target_nC, teacher_nC, out=soft_n).mul_(temperature**2)
    # other_nV is free now: the student at temperature 1, for the hard labels.
    torch.mul(student_nV, temperature, out=other_nV)
    other_nV -= other_nV.amax(-1, keepdim=True)
    chosen_n1 = other_nV.gather(1, labels_n[:, None])
    sum_n1 = other_nV.exp_().sum(-1, keepdim=True)
    torch.sub(sum_n1.log(), chosen_n1, out=hard_n[:, None])
    other_nV.mul_((1 - alpha) / sum_n1)
    other_nV.scatter_add_(1, labels_n[:, None], torch.full_like(chosen_n1, alpha - 1))
    student_nV.exp_()
    student_nV[:, :common] -= target_nC
    grad_nV = other_nV.add_(student_nV, alpha=alpha * temperature)
    if student.softcap is not None and work.slope_nV is not None:
        grad_nV *= work.slope_nV[:n]
    return grad_nV.mul_(student.scale / objective.normalizer)


def _project(work: _Work, model: Projection, hidden_nD: Tensor, out_nV: Tensor) -> None:
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


def _fold(
    work: _Work, student: Projection, grad_nV: Tensor, hidden_nD: Tensor, grad_weight_VD: Tensor | None
) -> Tensor:
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


def _blocks(work: _Work, weight_VD: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """A head in the compute type, a block of rows at a time, or whole where it has that type already."""
    size = len(weight_VD) if weight_VD.dtype == work.compute == work.sums else work.block
    for start in range(0, len(weight_VD), size):
        rows = slice(start, min(start + size, len(weight_VD)))
        yield rows, weight_VD[rows].to(work.compute)


def _log_softmax_(values_nV: Tensor, scratch_nV: Tensor) -> None:
    """Log-softmax in place; stays finite where probabilities underflow."""
    values_nV -= values_nV.amax(-1, keepdim=True)
    torch.exp(values_nV, out=scratch_nV)
    values_nV -= scratch_nV.sum(-1, keepdim=True).log_()
