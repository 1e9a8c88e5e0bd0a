"""A frozen teacher under ZeRO 3: every rank holds a share of its body, and layers are gathered as they run."""

import torch
from torch import nn
from transformers import PreTrainedModel

from dram_workers.deepspeed_settings import DeepSpeedSettings


def partitions(settings: DeepSpeedSettings, world: int) -> bool:
    """Whether the teacher is spread: like the student's parameters, at stage 3, where there are ranks to spread over."""
    return settings.zero_stage == 3 and world > 1


def partition(teacher: PreTrainedModel, settings: DeepSpeedSettings, device: torch.device) -> None:
    """Leave this rank its share of the body, in place. The head stays whole, because the loss reads it tile by tile.

    From here on all ranks must call the body equally often: each call gathers.
    """
    import deepspeed

    head = teacher.get_output_embeddings()  # type: ignore[no-untyped-call]
    # A tied head gets a copy of its own, since the embeddings are spread.
    head.weight = nn.Parameter(head.weight.detach().to(device, copy=True), requires_grad=False)
    if getattr(head, "bias", None) is not None:
        head.bias.data = head.bias.data.to(device)
    body = teacher.base_model
    for buffer in body.buffers():
        buffer.data = buffer.data.to(device)
    zero = {**settings.config.get("zero_optimization", {}), "stage": 3}
    if settings.offload == "OptimizerAndParameters":
        zero["offload_param"] = {"device": "cpu"}
    config = {"train_micro_batch_size_per_gpu": 1, "zero_optimization": zero, "steps_per_print": None}
    # Shared out before the engine sees it, which would move all of it to the device first.
    deepspeed.zero.Init(module=body, config_dict_or_path=config, dtype=next(body.parameters()).dtype)
    deepspeed.initialize(model=body, config=config, dist_init_required=False)


def local_elements(teacher: PreTrainedModel) -> int:
    """Elements of the body that this rank holds when no layer is at work."""
    return sum(
        given.ds_tensor.numel() + given.data.numel() if hasattr(given, "ds_tensor") else given.numel()
        for given in teacher.base_model.parameters()
    )
