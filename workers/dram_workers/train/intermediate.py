"""What chosen layers of a model hold: their hidden states at the targets, and what their attention maps are made of.

Legend as in `losses.maps`; D width of the model.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from dram_workers.train.losses.maps import Heads


@dataclass(frozen=True)
class Layers:
    """Numbers of the layers of one model, counted from 0, whose states are compared."""

    hidden: tuple[int, ...] = ()
    attention: tuple[int, ...] = ()


@dataclass
class Tape:
    """What one call of a model leaves behind."""

    layers: Layers
    targets_N: Tensor
    hidden_ND: dict[int, Tensor] = field(default_factory=dict)
    heads: dict[int, Heads] = field(default_factory=dict)

    def take_heads(self, module: nn.Module, heads: Heads) -> None:
        """Keep the queries and keys of a chosen layer's attention."""
        number = getattr(module, "layer_idx", None)
        if number in self.layers.attention:
            self.heads[number] = heads

    def states(self) -> "States":
        """What was kept, in the order of the layers; KeyError for a layer that did not pass by."""
        return States(
            tuple(self.hidden_ND[number] for number in self.layers.hidden),
            tuple(self.heads[number] for number in self.layers.attention),
        )


@dataclass(frozen=True)
class States:
    """Hidden states and heads of the chosen layers, in their order."""

    hidden_ND: tuple[Tensor, ...] = ()
    heads: tuple[Heads, ...] = ()

    @property
    def nbytes(self) -> int:
        """Memory that they take."""
        tensors = [*self.hidden_ND, *(part for heads in self.heads for part in (heads.query_HLA, heads.key_KLA))]
        return sum(tensor.nbytes for tensor in tensors)

    @classmethod
    def joined(cls, samples: list["States"]) -> "States":
        """Those of several samples as those of the row that they are packed into."""
        hidden = tuple(torch.cat(parts) for parts in zip(*(sample.hidden_ND for sample in samples), strict=True))
        heads = tuple(
            Heads(
                torch.cat([part.query_HLA for part in parts], dim=1),
                torch.cat([part.key_KLA for part in parts], dim=1),
                parts[0].scale,
                parts[0].window,
            )
            for parts in zip(*(sample.heads for sample in samples), strict=True)
        )
        return cls(hidden, heads)


@contextmanager
def taped(model: PreTrainedModel, layers: Layers, targets_N: Tensor) -> Iterator[Tape]:
    """Let the layers' outputs at the targets be kept while the model is called with `tape=`."""
    tape = Tape(layers, targets_N)
    stack = layer_stack(model) if layers.hidden else ()

    def keep(number: int) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            states_RLD = output if isinstance(output, Tensor) else output[0]
            tape.hidden_ND[number] = states_RLD.flatten(0, 1).index_select(0, targets_N)

        return hook

    handles = [stack[number].register_forward_hook(keep(number)) for number in set(layers.hidden)]
    try:
        yield tape
    finally:
        for handle in handles:
            handle.remove()


def layer_stack(model: PreTrainedModel) -> nn.ModuleList:
    """The model's layers, one after the other."""
    count = model.config.num_hidden_layers
    found = [
        (name, part) for name, part in model.named_modules() if isinstance(part, nn.ModuleList) and len(part) == count
    ]
    if not found:
        raise ValueError(f"{type(model).__name__} has no stack of {count} layers")
    return min(found, key=lambda item: len(item[0]))[1]
