"""DeepSpeed behind the few calls that the loop makes: forward, backward, step, and whole tensors for checkpoints."""

import logging
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from dram_workers.deepspeed_settings import DeepSpeedSettings
from dram_workers.errors import BadInput, WorkerReason
from dram_workers.stages import TrainIdentity
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

    def __init__(
        self,
        module: nn.Module,
        identity: TrainIdentity,
        settings: DeepSpeedSettings,
        world: int,
        embeddings: nn.Parameter | None = None,
    ) -> None:
        """`embeddings` is the parameter that `frozen` freezes; it then needs a group of its own in the optimizer."""
        import deepspeed

        self._stage = effective_stage(settings, world)
        self._world = world
        self._rank = torch.distributed.get_rank()
        self._clipping = identity.gradient_clipping
        self._embeddings = embeddings
        self.frozen = False
        """Whether the embeddings are not to change: then they get no gradient, no decay and no step of their moments."""
        self.loss_scale = 1.0
        """The factor that the gradients carry, so that FP16 can hold them; `step` takes it out."""
        # One pass over memory instead of a dozen.
        self._adamw = torch.optim.AdamW(
            self._groups(module),
            lr=identity.learning_rate,
            betas=identity.betas,
            weight_decay=identity.weight_decay,
            fused=True,
        )
        config = deepspeed_config(
            settings, world=world, half=identity.precision == "BF16", gradient_clipping=self._clipping
        )
        if identity.precision == "FP16":
            # Not DeepSpeed's own: its scalers clip before they take the scale out, and forget it in a checkpoint.
            device = "cuda" if torch.cuda.is_available() else "cpu"
            module.forward = torch.autocast(device, torch.float16)(module.forward)
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

    def _groups(self, module: nn.Module) -> list[dict[str, list[nn.Parameter]]]:
        """The optimizer's groups: all parameters, or the embeddings behind the others."""
        if self._embeddings is None:
            return [{"params": list(module.parameters())}]
        # A gradient is dropped before it is reduced, so it counts for no norm, whatever the ZeRO stage.
        self._embeddings.register_hook(lambda grad: torch.zeros_like(grad) if self.frozen else grad)  # type: ignore[no-untyped-call]
        others = [given for given in module.parameters() if given is not self._embeddings]
        return [{"params": others}, {"params": [self._embeddings]}]

    @property
    def student(self) -> PreTrainedModel:
        """The model itself, with its weights as they are now; whole on every rank up to ZeRO 2."""
        student: PreTrainedModel = self._engine.module.student
        return student

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Within this, layers behave as they do on a device: nothing is dropped at random."""
        self._engine.eval()
        try:
            yield
        finally:
            self._engine.train()

    def losses(self, *inputs: object) -> tuple[Tensor, dict[str, Tensor]]:
        """Run the module on a micro-batch."""
        losses: tuple[Tensor, dict[str, Tensor]] = self._engine(*inputs)
        return losses

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of a micro-batch to that of the step."""
        self._engine.backward(loss, scale_wrt_gas=False)

    def step(self, learning_rate: float) -> float:
        """Reduce and clip the gradients and update the weights; returns the norm before clipping.

        A norm that is no number means that nothing was updated.
        """
        for group in self._engine.optimizer.param_groups:
            group["lr"] = learning_rate
        if self.frozen:
            self._engine.optimizer.param_groups[1]["lr"] = 0.0
        norm = self._plain_step() if self._stage == 0 else self._sharded_step()
        if self.frozen:
            # A gradient of zero leaves moments of zero; only the count for the bias correction has moved.
            for owned in self._owned(1):
                if "step" in self._adamw.state[owned]:
                    self._adamw.state[owned]["step"].zero_()
        return norm

    def _plain_step(self) -> float:
        if self._world > 1:
            self._engine.buffered_allreduce_fallback()
        parameters = list(self._engine.module.parameters())
        grads = [given.grad for given in parameters if given.grad is not None]
        if self.loss_scale != 1:
            torch._foreach_div_(grads, self.loss_scale)
        norm = nn.utils.get_total_norm(grads)
        if not norm.isfinite():
            self._engine.module.zero_grad(set_to_none=True)
            return math.inf
        if 0 < self._clipping < norm:
            nn.utils.clip_grads_with_norm_(parameters, self._clipping, norm)
        self._engine.step()
        return float(norm)

    def _sharded_step(self) -> float:
        zero = self._engine.optimizer
        if self.loss_scale != 1:
            zero.override_loss_scale(self.loss_scale)
        self._engine.step()
        # The loss came scaled, so DeepSpeed must not scale it as well.
        zero.custom_loss_scaler = False
        return math.inf if zero.overflow else float(self._engine.get_global_grad_norm())

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """Every parameter, whole and in FP32, by name; every rank must ask, because sharded ones are gathered."""
        from deepspeed.utils import safe_get_full_fp32_param

        for name, parameter in self._engine.module.named_parameters():
            yield name, safe_get_full_fp32_param(parameter) if self._stage == 3 else parameter.detach()

    def moments(self) -> Iterator[tuple[str, Tensor]]:
        """AdamW's averages of every parameter, named `<parameter>/<average>`; every rank must ask."""
        from deepspeed.utils import safe_get_full_optimizer_state

        self._create_moments()
        for name, parameter in self._engine.module.named_parameters():
            for moment in MOMENTS:
                if self._stage == 0:
                    yield f"{name}/{moment}", self._adamw.state[parameter][moment]
                else:
                    yield f"{name}/{moment}", safe_get_full_optimizer_state(parameter, moment)

    def load_moments(self, updates: int, of_embeddings: int, read: Callable[[str], Tensor]) -> None:
        """Put AdamW where it was after so many updates, of the embeddings and of all else.

        `read` gives the tensors that `moments` named.
        """
        self._create_moments(updates, of_embeddings)
        for name, parameter in self._engine.module.named_parameters():
            for moment in MOMENTS:
                self._set_moment(parameter, moment, read(f"{name}/{moment}"))

    def _create_moments(self, *updates: int) -> None:
        """Give moments of zero to what has none, before the first step of this process, and tie DeepSpeed to them.

        It ties parameters to their part of the state after the first step, but only those of the first group.
        """
        for group in range(len(self._adamw.param_groups)):
            for owned in self._owned(group):
                if MOMENTS[0] not in self._adamw.state[owned]:
                    done = torch.tensor(float(updates[group] if updates else 0))
                    zeros = {moment: torch.zeros_like(owned, requires_grad=False) for moment in MOMENTS}
                    self._adamw.state[owned] = {"step": done, **zeros}
        if self._stage in (1, 2):
            zero = self._engine.optimizer
            zero._hp_optimizer_states_linked = False  # noqa: SLF001
            zero._lazy_init_hp_params_optimizer_state()  # noqa: SLF001

    def _owned(self, group: int) -> list[Tensor]:
        """The tensors of a group that AdamW updates: the parameters themselves, or this rank's flat share of them."""
        if self._stage == 3:
            zero = self._engine.optimizer
            groups = zero.sub_group_to_group_id
            return [flat for number, flat in enumerate(zero.fp32_partitioned_groups_flat) if groups[number] == group]
        return list(self._adamw.param_groups[group]["params"])

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
