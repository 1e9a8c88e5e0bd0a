"""Parts of the loss, as the spec and the stages say them. Import-light, as `stages` is."""

from typing import Annotated, Literal

from pydantic import Field

from dram_workers.model import Model

ObjectiveMode = Literal["Logits", "Sequence"]
"""Logits: match the teacher's distributions. Sequence: cross-entropy on text, which the teacher may have written."""


class Schedule(Model):
    """A value over the steps: `start` at the first step, `end` at the last."""

    start: Annotated[float, Field(ge=0, le=100)]
    """Value at the first step."""
    end: Annotated[float, Field(ge=0, le=100)]
    """Value at the last step; Constant needs the same as start."""
    schedule: Literal["Constant", "Linear", "Cosine"] = "Constant"
    """How the value goes from start to end."""


class Divergence(Model):
    """How the student's distribution q is compared with the teacher's p."""

    type: Literal["ForwardKL", "ReverseKL", "JSD"] = "ForwardKL"
    """ForwardKL: KL(p || q), covers all that the teacher might say. ReverseKL: KL(q || p), keeps to what the teacher is
    sure of. JSD: beta KL(p || m) + (1 - beta) KL(q || m) with m = beta p + (1 - beta) q, between the two."""
    beta: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Teacher's share of m, for JSD only; 0.5 where absent. Near 0 it leans to ForwardKL, near 1 to ReverseKL."""

    @property
    def weight(self) -> float:
        """Beta, with its default."""
        return 0.5 if self.beta is None else self.beta


class LayerPair(Model):
    """A layer of the student and the teacher's layer that it follows; both are counted from 0."""

    student: Annotated[int, Field(ge=0, le=511)]
    """The student's layer."""
    teacher: Annotated[int, Field(ge=0, le=511)]
    """The teacher's layer."""


class HiddenStates(Model):
    """Compare what layers of the two models put out. Where widths differ, a projection is learned beside the student."""

    weight: Schedule = Schedule(start=0.1, end=0.1)
    """Weight of this term in the loss, over the steps."""
    loss: Literal["MSE", "Cosine"] = "MSE"
    """MSE: squared distance as a share of the teacher's own square. Cosine: 1 - cosine."""
    layers: Annotated[tuple[LayerPair, ...], Field(max_length=512)] = ()
    """Pairs of layers; empty takes every layer of the shallower model with evenly spaced ones of the deeper, which for a
    student cut from the teacher are the kept ones."""


class AttentionMaps(Model):
    """Compare where layers of the two models attend: the divergence of the student's attention maps from the teacher's.

    Needs dataset.packing.
    """

    weight: Schedule = Schedule(start=0.1, end=0.1)
    """Weight of this term in the loss, over the steps."""
    layers: Annotated[tuple[LayerPair, ...], Field(max_length=512)] = ()
    """Pairs of layers, as in hiddenStates."""


class OnPolicy(Model):
    """Which samples the student completes itself, and how."""

    fraction: float
    """Share of each step's samples, between 0 and 1."""
    temperature: float = 1.0
    """Sampling temperature; 0 takes the likeliest token."""
    max_new_tokens: int = 128
    """Longest completion in tokens; maxLength bounds it too."""
