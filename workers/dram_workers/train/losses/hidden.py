"""Distances between hidden states of student and teacher, token by token.

Legend: N target tokens, D width of the teacher.
"""

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity


def hidden_distance(student_ND: Tensor, teacher_ND: Tensor, kind: Literal["MSE", "Cosine"]) -> Tensor:
    """How far the student's states are from the teacher's, [N], in FP32 or better.

    MSE as in Jiao et al., "TinyBERT" (arXiv 1909.10351), as a share of the teacher's mean square: 1 for a student that
    says nothing. Without that the few tokens and layers with huge activations would be all of the loss. Cosine is
    1 - cos, as in Sanh et al., "DistilBERT" (arXiv 1910.01108).
    """
    sums = torch.promote_types(student_ND.dtype, torch.float32)
    ours_ND, want_ND = student_ND.to(sums), teacher_ND.to(sums)
    match kind:
        case "MSE":
            square_N = want_ND.square().mean(-1).clamp(min=torch.finfo(sums).tiny)
            return (ours_ND - want_ND).square().mean(-1) / square_N
        case "Cosine":
            return 1 - cosine_similarity(ours_ND, want_ND, dim=-1)
