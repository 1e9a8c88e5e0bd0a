"""DeepSpeed behind the few calls that the loop makes: forward, backward, step, and whole tensors for checkpoints."""

import logging
import os
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from dram_workers.errors import BadInput, WorkerReason
from dram_workers.stages import DeepSpeedSettings, TrainIdentity
from dram_workers.train.settings import FIELD, deepspeed_config, effective_stage

MOMENTS = ("exp_avg", "exp_avg_sq")
"""AdamW's two running averages, by torch's names."""


def initialize_process_group() -> torch.device:
    """Join the gang, by NCCL where there are GPUs and by gloo elsewhere; returns this rank's device."""
    on_gpu = torch.cuda.is_available()
    os.environ.setdefault("DS_ACCELERATOR", "cuda" if on_gpu else "cpu")
    import deepspeed
    from deepspeed.git_version_info import installed_ops

    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    if not on_gpu:
        # DeepSpeed would compile its shared-memory collectives when the first process group starts, which needs a
        # compiler and a writable file system; without the entry it uses torch's own. A compiled one is kept.
        deepspeed.ops.__compatible_ops__ = {"deepspeed_shm_comm": bool(installed_ops.get("deepspeed_shm_comm"))}
    deepspeed.init_distributed("nccl" if on_gpu else "gloo", verbose=False)
    if not on_gpu:
        return torch.device("cpu")
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    torch.cuda.set_device(device)
    return device


class Engine:
    """A student in training."""

    def __init__(self, module: nn.Module, identity: TrainIdentity, settings: DeepSpeedSettings, world: int) -> None:
        import deepspeed

        self._stage = effective_stage(settings, world)
        self._world = world
        self._rank = torch.distributed.get_rank()
        self._clipping = identity.gradient_clipping
        # One pass over memory instead of a dozen.
        self._adamw = torch.optim.AdamW(
            module.parameters(),
            lr=identity.learning_rate,
            betas=identity.betas,
            weight_decay=identity.weight_decay,
            fused=True,
        )
        config = deepspeed_config(
            settings, world=world, half=identity.precision == "BF16", gradient_clipping=self._clipping
        )
        try:
            self._engine, *_ = deepspeed.initialize(
                model=module, optimizer=self._adamw, config=config, dist_init_required=False
            )
        except (ValueError, AssertionError, TypeError) as error:
            raise BadInput(
                WorkerReason.DEEPSPEED_CONFIG_INVALID,
                f"DeepSpeed refuses its settings: {str(error)[:500]}",
                field=FIELD,
                remedy="correct spec.training.deepspeed",
            ) from error
        # Without ZeRO the gradients are summed by `step` below, before they are clipped.
        self._engine.enable_backward_allreduce = self._stage > 0

    @property
    def device(self) -> torch.device:
        """Where batches must lie."""
        device: torch.device = self._engine.device
        return device

    def losses(self, *inputs: object) -> tuple[Tensor, Tensor, Tensor]:
        """Run the module on a micro-batch."""
        losses: tuple[Tensor, Tensor, Tensor] = self._engine(*inputs)
        return losses

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of a micro-batch to that of the step."""
        self._engine.backward(loss, scale_wrt_gas=False)

    def step(self, learning_rate: float) -> float:
        """Reduce and clip the gradients and update the weights; returns the norm before clipping."""
        for group in self._engine.optimizer.param_groups:
            group["lr"] = learning_rate
        norm = self._reduce_and_clip() if self._stage == 0 else None
        self._engine.step()
        return float(self._engine.get_global_grad_norm() if norm is None else norm)

    def _reduce_and_clip(self) -> Tensor:
        if self._world > 1:
            self._engine.buffered_allreduce_fallback()
        parameters = list(self._engine.module.parameters())
        norm = nn.utils.get_total_norm([given.grad for given in parameters if given.grad is not None])
        if 0 < self._clipping < norm:
            nn.utils.clip_grads_with_norm_(parameters, self._clipping, norm)
        return norm

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """Every parameter, whole and in FP32, by name; every rank must ask, because sharded ones are gathered."""
        from deepspeed.utils import safe_get_full_fp32_param

        for name, parameter in self._engine.module.named_parameters():
            yield name, safe_get_full_fp32_param(parameter) if self._stage == 3 else parameter.detach()

    def moments(self) -> Iterator[tuple[str, Tensor]]:
        """AdamW's averages of every parameter, named `<parameter>/<average>`; every rank must ask."""
        from deepspeed.utils import safe_get_full_optimizer_state

        for name, parameter in self._engine.module.named_parameters():
            for moment in MOMENTS:
                if self._stage == 0:
                    yield f"{name}/{moment}", self._adamw.state[parameter][moment]
                else:
                    yield f"{name}/{moment}", safe_get_full_optimizer_state(parameter, moment)

    def load_moments(self, step: int, read: Callable[[str], Tensor]) -> None:
        """Put AdamW where it was after `step` steps; `read` gives the tensors that `moments` named."""
        for owned in self._owned():
            moments = {moment: torch.zeros_like(owned, requires_grad=False) for moment in MOMENTS}
            self._adamw.state[owned] = {"step": torch.tensor(float(step)), **moments}
        if self._stage in (1, 2):
            # DeepSpeed ties parameters to their part of the state after the first step; there was none in this process.
            self._engine.optimizer._lazy_init_hp_params_optimizer_state()  # noqa: SLF001
        for name, parameter in self._engine.module.named_parameters():
            for moment in MOMENTS:
                self._set_moment(parameter, moment, read(f"{name}/{moment}"))

    def _owned(self) -> list[Tensor]:
        """The tensors that AdamW updates: the parameters themselves, or this rank's flat share of them."""
        if self._stage == 3:
            return list(self._engine.optimizer.fp32_partitioned_groups_flat)
        return [owned for group in self._adamw.param_groups for owned in group["params"]]

    def _set_moment(self, parameter: nn.Parameter, moment: str, value: Tensor) -> None:
        from deepspeed.utils import safe_set_full_optimizer_state, safe_set_local_optimizer_state

        if self._stage == 0:
            self._adamw.state[parameter][moment].copy_(value)
        elif self._stage == 3:
            # Each rank holds an equal share, the last one padded; DeepSpeed's own split expects no padding.
            share = -(-value.numel() // self._world)
            padded = nn.functional.pad(value.flatten(), (0, share * self._world - value.numel()))
            safe_set_local_optimizer_state(parameter, padded.view(self._world, share)[self._rank], moment)
        else:
            safe_set_full_optimizer_state(parameter, value, moment)
