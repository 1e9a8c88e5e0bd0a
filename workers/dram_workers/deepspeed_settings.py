"""What a job may say to DeepSpeed. Import-light, as `stages` is."""

from typing import Any, Literal

from dram_workers.model import Model

OWNED_DEEPSPEED_KEYS: dict[str, tuple[str, str]] = {
    "optimizer": ("object", "spec.training.learningRate, weightDecay and betas"),
    "scheduler": ("object", "spec.training.learningRateSchedule and warmupSteps"),
    "train_batch_size": ("integer", "spec.training.batchTokens"),
    "train_micro_batch_size_per_gpu": ("integer", "spec.training.batchTokens"),
    "gradient_accumulation_steps": ("integer", "spec.training.batchTokens"),
    "gradient_clipping": ("number", "spec.training.gradientClipping"),
    "zero_optimization": ("object", "spec.training.deepspeed.zeroStage and offload"),
    "zero_allow_untested_optimizer": ("boolean", "nothing: the optimizer is AdamW"),
    "fp16": ("object", "spec.training.precision"),
    "bf16": ("object", "spec.training.precision"),
    "amp": ("object", "spec.training.precision"),
    "torch_autocast": ("object", "spec.training.precision"),
    "data_types": ("object", "spec.training.precision"),
    "checkpoint": ("object", "spec.training.checkpoint"),
    "elasticity": ("object", "spec.training.workers"),
    "tensor_parallel": ("object", "spec.training.workers"),
    "data_efficiency": ("object", "spec.dataset"),
    "curriculum_learning": ("object", "spec.dataset"),
    "progressive_layer_drop": ("object", "spec.student"),
    "compression_training": ("object", "spec.exports"),
    "autotuning": ("object", "nothing: a tuned run could not be reproduced"),
}
"""Keys of DeepSpeed's configuration that Dram sets or rules out: their JSON type, and what to use instead."""


class DeepSpeedSettings(Model):
    """What is passed to DeepSpeed; `config` may hold only keys that Dram does not own."""

    zero_stage: Literal[0, 1, 2, 3] = 1
    offload: Literal["None", "Optimizer", "OptimizerAndParameters"] = "None"
    config: dict[str, Any] = {}
