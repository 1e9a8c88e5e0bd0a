"""From the job's DeepSpeed settings to the configuration that DeepSpeed reads. No torch."""

from typing import Any

from dram_workers.deepspeed_settings import DeepSpeedSettings
from dram_workers.errors import BadInput, WorkerReason

FIELD = "spec.training.deepspeed.config"

RESERVED = frozenset(
    {
        "amp",
        "bf16",
        "checkpoint",
        "communication_data_type",
        "compression_training",
        "curriculum_learning",
        "data_efficiency",
        "data_types",
        "elasticity",
        "fp16",
        "gradient_accumulation_steps",
        "gradient_clipping",
        "managed_gradient_accumulation",
        "optimizer",
        "progressive_layer_drop",
        "scheduler",
        "sparse_gradients",
        "steps_per_print",
        "torch_autocast",
        "train_batch_size",
        "train_micro_batch_size_per_gpu",
        "zero_allow_untested_optimizer",
        "zero_force_ds_cpu_optimizer",
    }
)
"""Settings that would change the recipe, or that other fields of the job say."""
RESERVED_ZERO = frozenset(
    {"elastic_checkpoint", "load_from_fp32_weights", "offload_optimizer", "offload_param", "stage"}
)
"""The same inside `zero_optimization`."""


def check_settings(settings: DeepSpeedSettings) -> None:
    """BadInput for keys that Dram owns and for an offload that the ZeRO stage cannot do."""
    zero = settings.config.get("zero_optimization", {})
    if not isinstance(zero, dict):
        raise _reserved("zero_optimization", "it must be a mapping")
    for key in sorted(RESERVED & settings.config.keys()):
        raise _reserved(key, "Dram sets it from the job's own fields")
    for key in sorted(RESERVED_ZERO & zero.keys()):
        raise _reserved(f"zero_optimization.{key}", "Dram sets it from the job's own fields")
    needed = {"None": 0, "Optimizer": 1, "OptimizerAndParameters": 3}[settings.offload]
    if settings.zero_stage < needed:
        raise BadInput(
            WorkerReason.DEEPSPEED_CONFIG_INVALID,
            f"offload {settings.offload} needs ZeRO stage {needed} or higher, zeroStage is {settings.zero_stage}",
            field="spec.training.deepspeed.offload",
            remedy=f"set zeroStage to {needed}, or offload to None",
        )


def effective_stage(settings: DeepSpeedSettings, world: int) -> int:
    """The ZeRO stage that does something: stages 1 and 2 spread over ranks, so a single rank has nothing to spread."""
    if world == 1 and settings.zero_stage in (1, 2) and settings.offload == "None":
        return 0
    return settings.zero_stage


def deepspeed_config(
    settings: DeepSpeedSettings, *, world: int, half: bool, gradient_clipping: float
) -> dict[str, Any]:
    """The whole configuration. The weights stay in FP32; with `half`, autocast runs the layers in BF16."""
    stage = effective_stage(settings, world)
    zero: dict[str, Any] = {**settings.config.get("zero_optimization", {}), "stage": stage}
    if settings.offload != "None":
        zero["offload_optimizer"] = {"device": "cpu"}
    if settings.offload == "OptimizerAndParameters":
        zero["offload_param"] = {"device": "cpu"}
    return {
        **settings.config,
        "zero_optimization": zero,
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        # The number of micro-batches differs from step to step, so the loop says where a step ends.
        "managed_gradient_accumulation": False,
        # Without ZeRO the loop clips, because DeepSpeed would not tell the norm.
        "gradient_clipping": gradient_clipping if stage else 0.0,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": None,
        # No module is "safe" to reduce in half precision: gradients are summed in FP32 over ranks and micro-batches.
        "torch_autocast": {"enabled": half, "dtype": "bfloat16", "lower_precision_safe_modules": []},
    }


def _reserved(key: str, why: str) -> BadInput:
    return BadInput(
        WorkerReason.RESERVED_DEEPSPEED_KEY,
        f"{key} cannot be set in deepspeed.config: {why}",
        field=f"{FIELD}.{key}",
        remedy="remove the key; spec.training and spec.training.deepspeed have fields for what a job may choose",
    )
