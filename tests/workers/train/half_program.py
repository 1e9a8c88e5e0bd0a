"""An engine in FP16 on a processor, which `train` itself refuses: `python -m tests.workers.train.half_program`.

For every ZeRO setting it prints the weights after two good steps and one that overflows, and the norms of all three.
"""

import json
import os
import sys
from typing import Any

import torch
from torch import Tensor, nn

from dram_workers.deepspeed_settings import DeepSpeedSettings
from dram_workers.stages import TrainIdentity
from dram_workers.train.engine import Engine, initialize_process_group
from tests.workers.train.training import be_the_only_rank

SETTINGS: dict[str, dict[str, Any]] = {
    "0": {"zeroStage": 0},
    "1": {"zeroStage": 1, "offload": "Optimizer"},
    "2": {"zeroStage": 2, "offload": "Optimizer"},
    "3": {"zeroStage": 3},
}
SCALE = 1024.0


class Scaled(nn.Module):
    """A loss whose gradient carries the scale that it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 1, bias=False)
        with torch.no_grad():
            self.layer.weight.copy_(torch.tensor([[0.5, -0.25, 1.0, 2.0]]))

    def forward(self, inputs: Tensor, scale: float) -> tuple[Tensor, dict[str, Tensor]]:
        answers = self.layer(inputs)
        self.arithmetic = answers.dtype
        return answers.float().square().sum() * scale, {}


def main() -> dict[str, object]:
    """Train everywhere; FP32 without a scale is what the others are compared with."""
    initialize_process_group()
    found: dict[str, object] = {"FP32": trained("FP32", {"zeroStage": 0}, 1.0)}
    return found | {name: trained("FP16", given, SCALE) for name, given in SETTINGS.items()}


def trained(precision: str, settings: dict[str, Any], scale: float) -> dict[str, object]:
    """Three steps, the last with a gradient that FP16 cannot hold; the moments' sum tells whether it left a trace."""
    identity = TrainIdentity.model_validate(
        {
            "temperature": {"start": 1, "end": 1},
            "alpha": {"start": 1, "end": 1},
            "precision": precision,
            "max_steps": 3,
            "batch_tokens": 16,
            "max_length": 16,
            "packing": True,
            "learning_rate": 0.1,
            "weight_decay": 0.1,
        }
    )
    module = Scaled()
    engine = Engine(module, identity, DeepSpeedSettings.model_validate(settings), world=1)
    engine.loss_scale = scale
    norms = []
    for factor in (1.0, 2.0):
        total, _ = engine.losses(torch.full((2, 4), factor), scale)
        engine.backward(total)
        norms.append(engine.step(0.1))
    before = [(name, value.flatten().tolist()) for name, value in (*engine.weights(), *engine.moments())]
    total, _ = engine.losses(torch.full((2, 4), 3.0), float("inf"))
    engine.backward(total)
    norms.append(engine.step(0.1))
    after = [(name, value.flatten().tolist()) for name, value in (*engine.weights(), *engine.moments())]
    return {"norms": norms, "before": before, "after": after, "arithmetic": str(module.arithmetic)}


if __name__ == "__main__":
    be_the_only_rank()
    sys.stdout.write("\n" + json.dumps(main()))
    sys.stdout.flush()
    os._exit(0)
