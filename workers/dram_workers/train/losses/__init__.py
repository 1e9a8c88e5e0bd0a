"""The losses of distillation: pure functions, gradients formed where memory would not hold the autograd graph.

`tiled` has the loss on tokens, `divergences` and `cached` what it compares, `hidden` and `maps` compare layers between,
`terms` has the values that go in and out.
"""

from dram_workers.train.losses.intermediate import attention_loss, hidden_loss
from dram_workers.train.losses.maps import Heads
from dram_workers.train.losses.terms import Losses, Objective, Projection, States, Target, TeacherStates, TopK
from dram_workers.train.losses.tiled import distillation_loss

__all__ = [
    "Heads",
    "Losses",
    "Objective",
    "Projection",
    "States",
    "Target",
    "TeacherStates",
    "TopK",
    "attention_loss",
    "distillation_loss",
    "hidden_loss",
]
