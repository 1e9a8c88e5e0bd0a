"""What goes into the loss on tokens and what comes out.

Legend: N target tokens, D/E width of student/teacher, V/U rows of the student's/teacher's head, K tokens that a cache
keeps.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from dram_workers.stages import Divergence

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
class TeacherStates:
    """A teacher at hand: its logits are formed from its hidden states tile by tile."""

    projection: Projection
    hidden_NE: Tensor


@dataclass(frozen=True)
class TopK:
    """What a cache keeps of the teacher's distribution at the temperature of the step."""

    ids_NK: Tensor
    """The likeliest tokens, int64, different from each other in a row and below both heads' rows."""
    logprobs_NK: Tensor
    """Their log-probabilities among all tokens. Any float type; rows are normalised again together with the tail."""
    tail_N: Tensor
    """Log of the probability of all other tokens; -inf where there is none."""
    vocabulary: int
    """Rows of the teacher's head that count; rows of the student's beyond them are padding."""

    def rows(self, part: slice) -> "TopK":
        """The same for some of the tokens."""
        return TopK(self.ids_NK[part], self.logprobs_NK[part], self.tail_N[part], self.vocabulary)


Target = TeacherStates | TopK | None
"""What the student is compared with; None leaves only the hard labels."""


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
    divergence: Divergence = field(default_factory=Divergence)


@dataclass(frozen=True)
class Losses:
    """The loss with a gradient, and its terms by token without."""

    total: Tensor
    soft_N: Tensor
    """T^2 * divergence of each token."""
    hard_N: Tensor
    """Cross-entropy of each token."""
