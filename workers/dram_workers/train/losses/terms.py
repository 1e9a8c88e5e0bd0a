"""What goes into the loss on tokens and what comes out.

Legend: N target tokens, D/E width of student/teacher, V/U rows of the student's/teacher's head, K tokens that a cache
keeps.
"""

from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from dram_workers.objective import Divergence
from dram_workers.train.losses.maps import Heads

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
class States:
    """What chosen layers of a model hold for a micro-batch, layer by layer."""

    hidden: tuple[Tensor, ...] = ()
    """Outputs at the targets, each [N, D]."""
    heads: tuple[Heads, ...] = ()
    """What the attention maps of all tokens are made of."""

    @property
    def nbytes(self) -> int:
        """Memory that they take."""
        parts = [part for heads in self.heads for part in (heads.query_HLA, heads.key_KLA)]
        return sum(tensor.nbytes for tensor in (*self.hidden, *parts))

    @classmethod
    def joined(cls, samples: list["States"]) -> "States":
        """Those of several samples as those of the row that they are packed into."""
        hidden = tuple(torch.cat(parts) for parts in zip(*(sample.hidden for sample in samples), strict=True))
        heads = tuple(Heads.joined(parts) for parts in zip(*(sample.heads for sample in samples), strict=True))
        return cls(hidden, heads)


@dataclass(frozen=True)
class TeacherStates:
    """A teacher at hand: its logits are formed from its hidden states tile by tile."""

    projection: Projection
    hidden_NE: Tensor
    states: States | None = None
    """What layers between hold, where they are compared."""


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
    hidden_weight: float = 0.0
    hidden_kind: Literal["MSE", "Cosine"] = "MSE"
    attention_weight: float = 0.0

    @property
    def of_own(self) -> "Objective":
        """The loss on what the student wrote itself: its own words are no labels."""
        return replace(self, alpha=1.0)

    @property
    def weights(self) -> dict[str, float]:
        """Weight of each term in the loss."""
        soft = {"soft": self.alpha, "hard": 1 - self.alpha}
        return {**soft, "hidden": self.hidden_weight, "attention": self.attention_weight}


@dataclass(frozen=True)
class Losses:
    """The loss with a gradient, and its terms by token without."""

    total: Tensor
    soft_N: Tensor
    """T^2 * divergence of each token."""
    hard_N: Tensor
    """Cross-entropy of each token."""
