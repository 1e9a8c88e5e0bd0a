"""The layers of student and teacher that are compared, and how their states are taken while a model runs."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from dram_workers.errors import BadInput, WorkerReason
from dram_workers.layers import kept_layers
from dram_workers.objective import LayerPair
from dram_workers.stages import TrainIdentity
from dram_workers.train.losses.maps import Heads
from dram_workers.train.losses.terms import States


@dataclass(frozen=True)
class Layers:
    """Numbers of the layers of one model, counted from 0, whose states are compared."""

    hidden: tuple[int, ...] = ()
    attention: tuple[int, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.hidden or self.attention)


@dataclass(frozen=True)
class LayerMap:
    """Which layers of the two models are compared, pair by pair."""

    student: Layers = Layers()
    teacher: Layers = Layers()

    @classmethod
    def of(cls, identity: TrainIdentity, student_layers: int, teacher_layers: int) -> "LayerMap":
        """What the job asks for; BadInput when it names a layer that a model does not have."""
        chosen: list[tuple[LayerPair, ...]] = []
        for field_name, wanted in (("hiddenStates", identity.hidden_states), ("attention", identity.attention)):
            pairs = () if wanted is None else (wanted.layers or even_pairs(student_layers, teacher_layers))
            _check(pairs, student_layers, teacher_layers, f"spec.objective.{field_name}.layers")
            chosen.append(pairs)
        student, teacher = (
            Layers(*(tuple(getattr(pair, side) for pair in pairs) for pairs in chosen))
            for side in ("student", "teacher")
        )
        return cls(student, teacher)


def even_pairs(student_layers: int, teacher_layers: int) -> tuple[LayerPair, ...]:
    """Every layer of the shallower model with an evenly spaced one of the deeper: for a cut, those that were kept."""
    count = min(student_layers, teacher_layers)
    pairs = zip(kept_layers(student_layers, count), kept_layers(teacher_layers, count), strict=True)
    return tuple(LayerPair(student=ours, teacher=theirs) for ours, theirs in pairs)


def _check(pairs: Sequence[LayerPair], student_layers: int, teacher_layers: int, where: str) -> None:
    for side, count in (("student", student_layers), ("teacher", teacher_layers)):
        highest = max((getattr(pair, side) for pair in pairs), default=0)
        if highest >= count:
            raise BadInput(
                WorkerReason.TOO_MANY_LAYERS,
                f"layer {highest} of the {side} is to be compared, which has layers 0 to {count - 1}",
                field=where,
                remedy="name layers that both models have, or leave the list out for an even map",
            )


@dataclass
class Tape:
    """What one call of a model leaves behind."""

    layers: Layers
    hidden: dict[int, Tensor] = field(default_factory=dict)
    heads: dict[int, Heads] = field(default_factory=dict)

    def take_heads(self, module: nn.Module, heads: Heads) -> None:
        """Keep the queries and keys of a chosen layer's attention."""
        number = getattr(module, "layer_idx", None)
        if number in self.layers.attention:
            self.heads[number] = heads

    def states(self) -> States:
        """What was kept, in the order of the layers; KeyError for a layer that did not come by."""
        return States(
            tuple(self.hidden[number] for number in self.layers.hidden),
            tuple(self.heads[number] for number in self.layers.attention),
        )


@contextmanager
def taped(model: PreTrainedModel, layers: Layers, targets_N: Tensor) -> Iterator[Tape]:
    """Take the layers' outputs at the targets, and heads where the model is called with `tape=`."""
    tape = Tape(layers)

    def keep(number: int) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            states_RLD = output if isinstance(output, Tensor) else output[0]
            tape.hidden[number] = states_RLD.flatten(0, 1).index_select(0, targets_N)

        return hook

    stack = layer_stack(model)[1] if layers.hidden else ()
    handles = [stack[number].register_forward_hook(keep(number)) for number in sorted(set(layers.hidden))]
    try:
        yield tape
    finally:
        for handle in handles:
            handle.remove()


def layer_stack(model: PreTrainedModel) -> tuple[str, nn.ModuleList]:
    """The name of the model's layers and themselves, one after the other; BadInput when it has no such list."""
    count = model.config.num_hidden_layers
    parts = model.named_modules()
    found = [(name, part) for name, part in parts if isinstance(part, nn.ModuleList) and len(part) == count]
    if not found:
        raise BadInput(
            WorkerReason.UNSUPPORTED_MODEL,
            f"{type(model).__name__} has no stack of {count} layers to cut or to compare",
            field="spec.student",
            remedy="name a student of its own by spec.student.uri, and leave out hiddenStates and attention",
        )
    return min(found, key=lambda item: len(item[0]))
