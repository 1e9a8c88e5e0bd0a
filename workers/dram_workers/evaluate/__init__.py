"""Answer the golden suite and score the answers. Torch comes in only when the stage really runs."""

from dram_workers.context import StageContext, StageOutcome
from dram_workers.stages import EvaluateConfig


def run(config: EvaluateConfig, context: StageContext) -> StageOutcome:
    """Examine the teacher, the student or a variant; output `evaluation`."""
    from dram_workers.evaluate.stage import evaluate

    return evaluate(config, context)
