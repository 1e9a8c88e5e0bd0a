"""Student and teacher side by side: hidden states of the target tokens, and the loss between them.

Legend: N target tokens, D/E width of student/teacher, V rows of a head.
"""

from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from dram_workers.data.dataset import Dataset
from dram_workers.errors import BadInput, WorkerReason
from dram_workers.train.batches import MicroBatch, lay_out
from dram_workers.train.heap import give_back
from dram_workers.train.intermediate import LayerMap, Layers, Tape, taped
from dram_workers.train.losses import (
    Objective,
    Projection,
    States,
    Target,
    TeacherStates,
    attention_loss,
    distillation_loss,
    hidden_loss,
)
from dram_workers.train.segments import Segments

MEMO_BYTES = 1 << 30
PROBE = (3, 5, 8, 13, 21, 34)
"""Token ids on which a model's logits are compared with our own way to them."""


class LossHead(nn.Module):
    """The student's head: takes hidden states, returns losses. Shares its weight with the model's own head."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        head = model.get_output_embeddings()  # type: ignore[no-untyped-call]
        self.weight_VD = head.weight
        self.bias_V = getattr(head, "bias", None)
        self.scale, self.softcap = scale_of(model), softcap_of(model)

    def forward(
        self, hidden_ND: Tensor, target: Target, labels_N: Tensor, objective: Objective
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Loss with gradient, soft terms, hard terms; see `losses`."""
        student = Projection(self.weight_VD, self.bias_V, self.scale, self.softcap)
        losses = distillation_loss(student, hidden_ND, target, labels_N, objective)
        return losses.total, losses.soft_N, losses.hard_N


class Distiller(nn.Module):
    """What DeepSpeed trains: the student's body, the head that ends in the loss, and what layers are compared through.

    `projections` bring the student's hidden states to the teacher's width, one a pair of layers, where the widths
    differ. They are saved in checkpoints and no part of the student.
    """

    def __init__(
        self, student: PreTrainedModel, layers: LayerMap | None = None, teacher_width: int | None = None
    ) -> None:
        super().__init__()
        self.student = student
        self.head = LossHead(student)
        self.layers = layers or LayerMap()
        width = int(self.head.weight_VD.shape[1])
        wanted = width if teacher_width is None else teacher_width
        pairs = 0 if wanted == width else len(self.layers.student.hidden)
        self.projections = nn.ModuleList(_projection(width, wanted, number) for number in range(pairs))

    def forward(self, batch: MicroBatch, target: Target, objective: Objective) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of one micro-batch, and its terms by target token: `soft`, `hard`, `hidden`, `attention`."""
        states = target.states if isinstance(target, TeacherStates) else None
        with taped(self.student, Layers() if states is None else self.layers.student, batch.targets_N) as tape:
            hidden_ND = target_hidden(self.student, batch, tape)
        if hidden_ND.device.type == "cpu":
            # Here is the peak: what the last step and the teacher left behind must not come on top.
            give_back()
        total, soft_N, hard_N = self.head(hidden_ND, target, batch.labels_N, objective)
        terms = {"soft": soft_N, "hard": hard_N}
        if states is not None:
            for name, (part, part_N) in self._between(tape.states(), states, batch, objective).items():
                total = total + part * (objective.weights[name] / objective.normalizer)
                terms[name] = part_N
        return total, terms

    def _between(
        self, ours: States, theirs: States, batch: MicroBatch, objective: Objective
    ) -> dict[str, tuple[Tensor, Tensor]]:
        found = {}
        if ours.hidden:
            projected = ours.hidden
            if self.projections:
                pairs = zip(self.projections, ours.hidden, strict=True)
                projected = tuple(project(hidden_ND) for project, hidden_ND in pairs)
            found["hidden"] = hidden_loss(projected, theirs.hidden, objective.hidden_kind)
        if ours.heads:
            assert batch.segments is not None, "attention maps are compared in packed rows"
            found["attention"] = attention_loss(ours.heads, theirs.heads, batch.segments, batch.targets_N)
        return found


def _projection(width: int, wanted: int, number: int) -> nn.Linear:
    """From the student's width to the teacher's, the same on every rank and in every attempt."""
    made = nn.Linear(width, wanted, bias=False)
    random = torch.Generator().manual_seed(number)
    with torch.no_grad():
        made.weight.copy_(torch.randn(made.weight.shape, generator=random) * width**-0.5)
    return made


class Teacher:
    """Gives the hidden states of target tokens; the logits are formed from them tile by tile.

    On a CPU every sample runs alone and its states are kept (they are small beside logits), so a sample costs the
    teacher once however many epochs see it, and its targets do not depend on the batch that it is in. On a GPU short
    samples alone would waste the device, so there a micro-batch runs as a whole. So it does, `together`, when the teacher
    is spread over the ranks, which then must call it equally often.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        dataset: Dataset,
        *,
        packed: bool,
        together: bool = False,
        layers: Layers | None = None,
    ) -> None:
        self._model = model
        self._together = together
        self._dataset = dataset
        self._packed = packed
        self._layers = layers or Layers()
        self._memo: dict[int, tuple[Tensor, States]] = {}
        self._memo_bytes = 0
        self.projection = projection_of(model)

    def target(self, batch: MicroBatch, temperature: float) -> TeacherStates:
        """What the batch's targets are compared with."""
        hidden_NE, states = self.hidden(batch)
        return TeacherStates(self.projection, hidden_NE, states if self._layers else None)

    @torch.no_grad()
    def hidden(self, batch: MicroBatch) -> tuple[Tensor, States]:
        """Hidden states of the batch's targets, [N, E], and what the compared layers hold."""
        if self._together or self._model.device.type != "cpu" or not batch.samples or batch.own:
            return self._run(batch)
        found = [self._of_sample(sample) for sample in batch.samples]
        return torch.cat([hidden for hidden, _ in found]), States.joined([states for _, states in found])

    def _of_sample(self, sample: int) -> tuple[Tensor, States]:
        known = self._memo.get(sample)
        if known is None:
            known = self._run(lay_out(self._dataset, (sample,), packed=self._packed))
            self._memo_bytes += known[0].nbytes + known[1].nbytes
            if self._memo_bytes <= MEMO_BYTES:
                self._memo[sample] = known
        return known

    def _run(self, batch: MicroBatch) -> tuple[Tensor, States]:
        with taped(self._model, self._layers, batch.targets_N) as tape:
            return target_hidden(self._model, batch, tape), tape.states()


def target_hidden(model: PreTrainedModel, batch: MicroBatch, tape: Tape | None = None) -> Tensor:
    """The body's last hidden states at the batch's target positions, [N, D]."""
    more: dict[str, Segments | Tape] = {} if batch.segments is None else {"segments": batch.segments}
    if tape is not None and tape.layers.attention:
        more["tape"] = tape
    hidden_RLD: Tensor = model.base_model(
        input_ids=batch.tokens_RL,
        position_ids=batch.positions_RL,
        attention_mask=batch.mask_RL,
        use_cache=False,
        **more,
    ).last_hidden_state
    return hidden_RLD.flatten(0, 1).index_select(0, batch.targets_N)


def projection_of(model: PreTrainedModel) -> Projection:
    """How the model turns hidden states into logits."""
    head = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    return Projection(head.weight, getattr(head, "bias", None), scale_of(model), softcap_of(model))


def scale_of(model: PreTrainedModel) -> float:
    """The factor on the logits: Cohere multiplies, Granite divides."""
    config = model.config
    return float(getattr(config, "logit_scale", None) or 1.0) / float(getattr(config, "logits_scaling", None) or 1.0)


def softcap_of(model: PreTrainedModel) -> float | None:
    """Gemma's soft cap on the logits."""
    cap = getattr(model.config, "final_logit_softcapping", None)
    return None if cap is None else float(cap)


@torch.no_grad()
def check_projection(model: PreTrainedModel, folder: Path, *, packed: bool, field: str) -> None:
    """Prove on a few tokens that our way from tokens to logits is the model's own; BadInput when it is not."""
    batch = _probe(model, packed=packed)
    try:
        hidden_ND = target_hidden(model, batch)
        more = {} if batch.segments is None else {"segments": batch.segments}
        wanted_NV = model(input_ids=batch.tokens_RL, use_cache=False, **more).logits[0].double()
    except (TypeError, ValueError, AttributeError) as error:
        raise _unsupported(folder, f"cannot be run on packed samples: {error}", field) from error
    if not wanted_NV.isfinite().all():
        raise BadInput(
            WorkerReason.LOSS_NOT_FINITE,
            f"{folder.name} answers plain tokens with logits that are no numbers",
            field=field,
            remedy="its weights hold NaN or infinite values, or overflow in this precision: use another checkpoint",
        )
    projection = projection_of(model)
    logits_NV = hidden_ND.double() @ projection.weight_VD.double().T
    if projection.bias_V is not None:
        logits_NV += projection.bias_V.double()
    logits_NV *= projection.scale
    if projection.softcap is not None:
        logits_NV = projection.softcap * torch.tanh(logits_NV / projection.softcap)
    error_size = float((logits_NV - wanted_NV).norm() / wanted_NV.norm())
    if not error_size < 0.02:
        raise _unsupported(folder, f"forms its logits in a way of its own (they differ by {error_size:.0%})", field)


@torch.no_grad()
def check_layers(model: PreTrainedModel, layers: Layers, *, packed: bool, field: str) -> None:
    """Prove on a few tokens that what is compared of the layers can be taken; BadInput when it cannot."""
    if not layers:
        return
    batch = _probe(model, packed=packed)
    try:
        with taped(model, layers, batch.targets_N) as tape:
            target_hidden(model, batch, tape)
        tape.states()
    except KeyError as error:
        raise BadInput(
            WorkerReason.UNSUPPORTED_MODEL,
            f"{type(model).__name__} does not let layer {error} be compared",
            field=field,
            remedy="leave out spec.objective.hiddenStates and attention, or name other layers",
        ) from error


def width_of(model: PreTrainedModel) -> int:
    """Size of the model's hidden states."""
    return int(model.get_input_embeddings().weight.shape[1])  # type: ignore[index]


def _probe(model: PreTrainedModel, *, packed: bool) -> MicroBatch:
    """A micro-batch of the probe's tokens."""
    length = len(PROBE)
    tokens_RL = torch.tensor([PROBE])
    return MicroBatch(
        samples=(),
        tokens_RL=tokens_RL,
        positions_RL=torch.arange(length)[None],
        segments=Segments.of([length]) if packed else None,
        mask_RL=None if packed else torch.ones_like(tokens_RL),
        targets_N=torch.arange(length),
        labels_N=tokens_RL[0],
        sample_of_N=torch.zeros(length, dtype=torch.long),
    ).to(model.device)


def _unsupported(folder: Path, what: str, field: str) -> BadInput:
    return BadInput(
        WorkerReason.UNSUPPORTED_MODEL,
        f"{folder.name} {what}",
        field=field,
        remedy="use a decoder-only model whose head is a matrix with optional bias, scale or soft cap; "
        "dataset.packing: false serves models whose attention does not know packed rows",
    )
