"""Divergences between a teacher's distribution p and a student's q, with their gradients, in place.

Each function takes log-probabilities, gives the divergence of every row, and leaves its gradient by the student's
logits where the student's log-probabilities were. Log-probabilities are finite however small a probability is, so
nothing here divides by one or takes its logarithm.

Legend: n rows, V rows of the student's head, C <= V rows that both heads have. The teacher gives the others no
probability.
"""

import math

import torch
from torch import Tensor

from dram_workers.objective import Divergence


def divergence_(kind: Divergence, log_q_nV: Tensor, log_p_nC: Tensor, scratch_nV: Tensor, other_nV: Tensor) -> Tensor:
    """The divergence of each row; overwrites every argument, `log_q_nV` with the gradient."""
    match kind.type:
        case "ForwardKL":
            return forward_kl_(log_q_nV, log_p_nC, scratch_nV)
        case "ReverseKL":
            return reverse_kl_(log_q_nV, log_p_nC, scratch_nV)
        case "JSD":
            return jsd_(log_q_nV, log_p_nC, scratch_nV, other_nV, kind.weight)


def forward_kl_(log_q_nV: Tensor, log_p_nC: Tensor, scratch_nV: Tensor) -> Tensor:
    """KL(p || q), as in Hinton et al., "Distilling the Knowledge in a Neural Network" (arXiv 1503.02531).

    Its gradient is q - p.
    """
    both = log_p_nC.shape[1]
    p_nC = torch.exp(log_p_nC, out=scratch_nV[:, :both])
    log_p_nC -= log_q_nV[:, :both]
    divergence_n: Tensor = torch.linalg.vecdot(p_nC, log_p_nC)
    log_q_nV.exp_()
    log_q_nV[:, :both] -= p_nC
    return divergence_n


def reverse_kl_(log_q_nV: Tensor, log_p_nC: Tensor, scratch_nV: Tensor) -> Tensor:
    """KL(q || p), as in Gu et al., "MiniLLM" (arXiv 2306.08543).

    A student's probability on padding would make it infinite. So q is taken given that the token is no padding, and
    that event costs its own surprise, -log q(C): exactly how padding enters KL(p || q).
    """
    both = log_p_nC.shape[1]
    log_mass_n1 = log_q_nV.new_zeros(len(log_q_nV), 1)
    if both < log_q_nV.shape[1]:
        log_mass_n1 = log_q_nV[:, :both].logsumexp(-1, keepdim=True)
    ratio_nC = torch.sub(log_q_nV[:, :both], log_p_nC, out=log_p_nC).sub_(log_mass_n1)
    given_nC = torch.sub(log_q_nV[:, :both], log_mass_n1, out=scratch_nV[:, :both]).exp_()
    divergence_n: Tensor = torch.linalg.vecdot(given_nC, ratio_nC)
    log_q_nV.exp_()
    log_q_nV[:, :both].addcmul_(given_nC, ratio_nC.sub_(divergence_n[:, None] + 1))
    return divergence_n - log_mass_n1[:, 0]


def jsd_(log_q_nV: Tensor, log_p_nC: Tensor, scratch_nV: Tensor, other_nV: Tensor, beta: float) -> Tensor:
    """JSD(beta) = beta KL(p || m) + (1 - beta) KL(q || m) with m = beta p + (1 - beta) q.

    The generalised Jensen-Shannon divergence of Agarwal et al., "On-Policy Distillation of Language Models"
    (GKD, arXiv 2306.13649): beta near 0 leans to KL(p || q), near 1 to KL(q || p). Its gradient is
    (1 - beta) q (log q/m - KL(q || m)).
    """
    both = log_p_nC.shape[1]
    log_m_nV = torch.add(log_q_nV, math.log1p(-beta), out=scratch_nV)
    log_m_nC = log_m_nV[:, :both]
    torch.logaddexp(log_m_nC, torch.add(log_p_nC, math.log(beta), out=other_nV[:, :both]), out=log_m_nC)
    p_nC = torch.exp(log_p_nC, out=other_nV[:, :both])
    of_teacher_n: Tensor = torch.linalg.vecdot(p_nC, log_p_nC.sub_(log_m_nC))
    ratio_nV = torch.sub(log_q_nV, log_m_nV, out=log_m_nV)
    q_nV = log_q_nV.exp_()
    of_student_n: Tensor = torch.linalg.vecdot(q_nV, ratio_nV)
    q_nV.mul_(ratio_nV.sub_(of_student_n[:, None])).mul_(1 - beta)
    return beta * of_teacher_n + (1 - beta) * of_student_n
