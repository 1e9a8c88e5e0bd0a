"""The losses of distillation: pure functions, gradients formed where memory would not hold the autograd graph.

`tiled` has the loss on tokens, `divergences` and `cached` what it compares, `terms` the values that go in and out.
"""

from dram_workers.train.losses.terms import Losses, Objective, Projection, Target, TeacherStates, TopK
from dram_workers.train.losses.tiled import distillation_loss

__all__ = ["Losses", "Objective", "Projection", "Target", "TeacherStates", "TopK", "distillation_loss"]
