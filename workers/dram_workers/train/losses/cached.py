"""KL(p || q) where only the teacher's likeliest tokens are known.

Legend: n rows, V rows of the student's head, C <= V rows that both heads have, K tokens that the cache keeps.
"""

import torch
from torch import Tensor

from dram_workers.train.losses.terms import TopK


def cached_kl_(log_q_nV: Tensor, target: TopK) -> Tensor:
    """The divergence of each row; its gradient by the student's logits takes the place of `log_q_nV`.

    The tokens that the cache left out count as one: the teacher's probability of all of them against the student's.
    That is also the divergence from a teacher that spreads its tail as the student spreads its own, so no token of the
    tail is pulled to a place of which nothing is known.
    """
    both = min(target.vocabulary, log_q_nV.shape[1])
    log_p_nK, log_rest_n1 = _normalised(target, log_q_nV.dtype)
    p_nK, rest_n1 = log_p_nK.exp(), log_rest_n1.exp()
    log_q_nK = log_q_nV.gather(1, target.ids_NK)
    log_q_nV.scatter_(1, target.ids_NK, float("-inf"))
    tail_nC, padding_nP = log_q_nV[:, :both], log_q_nV[:, both:]
    # The largest of the tail, so that a tail whose every probability underflows still has its logarithm.
    top_n1 = tail_nC.amax(-1, keepdim=True).clamp_(min=torch.finfo(log_q_nV.dtype).min)
    sum_n1 = tail_nC.sub_(top_n1).exp_().sum(-1, keepdim=True)
    log_ratio_n1 = torch.where(rest_n1 > 0, log_rest_n1 - (top_n1 + sum_n1.log()), 0)
    tail_nC.mul_(top_n1.exp() - torch.where(rest_n1 > 0, rest_n1 / sum_n1, 0))
    padding_nP.exp_()
    log_q_nV.scatter_(1, target.ids_NK, log_q_nK.exp() - p_nK)
    known_n = (p_nK * torch.where(p_nK > 0, log_p_nK - log_q_nK, 0)).sum(-1)
    return known_n + (rest_n1 * log_ratio_n1)[:, 0]


def _normalised(target: TopK, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Log-probabilities of the known tokens and of all others: what the cache rounded sums to 1 again."""
    logs = torch.cat([target.logprobs_NK.to(dtype), target.tail_N.to(dtype)[:, None]], dim=1).log_softmax(-1)
    return logs[:, :-1], logs[:, -1:]
