"""Values over the steps, as pure functions."""

import math
from typing import Literal

from dram_workers.objective import Schedule
from dram_workers.stages import TrainIdentity

Shape = Literal["Constant", "Linear", "Cosine"]


def interpolate(start: float, end: float, shape: Shape, progress: float) -> float:
    """The value at `progress` in [0, 1] on the way from start to end; Constant stays at the start."""
    match shape:
        case "Constant":
            return start
        case "Linear":
            return start + (end - start) * progress
        case "Cosine":
            return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2


def value_at(schedule: Schedule, step: int, total_steps: int) -> float:
    """The value at a step, counted from 0: `start` at the first step, `end` at the last."""
    return interpolate(schedule.start, schedule.end, schedule.schedule, step / max(1, total_steps - 1))


def learning_rate_at(identity: TrainIdentity, step: int, total_steps: int) -> float:
    """Rises linearly over the warm-up, reaches its highest value behind it and falls towards 0 after the last step."""
    peak, warmup = identity.learning_rate, identity.warmup_steps
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    progress = (step - warmup) / max(1, total_steps - warmup)
    return interpolate(peak, 0.0, identity.learning_rate_schedule, progress)
