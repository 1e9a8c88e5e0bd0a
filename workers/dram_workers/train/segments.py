"""Where the samples of a packed row lie, and how they are brought into rows of their own for attention.

Legend: L tokens of the packed row, S samples of a group, W width of the group (its longest sample), H heads, K heads of
keys and values, D size of a head.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Group:
    """Samples of similar length, so that padding them to the longest costs little."""

    tokens_n: Tensor
    """Positions of the group's n tokens in the packed row."""
    slots_n: Tensor
    """Positions of the same tokens in [S * W]."""
    samples: int
    width: int

    def pad(self, row_HLD: Tensor) -> Tensor:
        """The group's tokens as [S, H, W, D], zeros behind each sample."""
        tokens_nHD = row_HLD.transpose(0, 1).index_select(0, self.tokens_n)
        padded = tokens_nHD.new_zeros(self.samples * self.width, *tokens_nHD.shape[1:])
        padded = padded.index_copy(0, self.slots_n, tokens_nHD)
        return padded.view(self.samples, self.width, *tokens_nHD.shape[1:]).transpose(1, 2)

    def unpad(self, padded_SHWD: Tensor) -> Tensor:
        """The way back: [n, H, D] in the order of `tokens_n`."""
        flat = padded_SHWD.transpose(1, 2).flatten(0, 1)
        unpadded: Tensor = _Unpad.apply(flat, self.slots_n)  # type: ignore[no-untyped-call]
        return unpadded


@dataclass(frozen=True)
class Segments:
    """The samples of a packed row."""

    groups: tuple[Group, ...]
    order_L: Tensor
    """Where each token of the row stands in the groups' tokens one after the other."""

    @classmethod
    def of(cls, sizes: list[int]) -> "Segments":
        """Samples of these lengths, one after the other; those between two powers of two form a group."""
        starts = [sum(sizes[:number]) for number in range(len(sizes))]
        groups = []
        for bits in sorted({size.bit_length() for size in sizes}):
            chosen = [number for number, size in enumerate(sizes) if size.bit_length() == bits]
            width = max(sizes[number] for number in chosen)
            tokens = torch.cat([torch.arange(starts[number], starts[number] + sizes[number]) for number in chosen])
            slots = torch.cat([torch.arange(sizes[number]) + row * width for row, number in enumerate(chosen)])
            groups.append(Group(tokens, slots, len(chosen), width))
        return cls(tuple(groups), torch.cat([group.tokens_n for group in groups]).argsort())

    def to(self, device: torch.device) -> "Segments":
        """The same segments on another device."""
        groups = tuple(
            Group(group.tokens_n.to(device), group.slots_n.to(device), group.samples, group.width)
            for group in self.groups
        )
        return Segments(groups, self.order_L.to(device))


class _Unpad(torch.autograd.Function):
    """`index_select` whose gradient is a copy: every slot is taken at most once, and summing would be slow on a CPU."""

    @staticmethod
    def forward(ctx: Any, flat: Tensor, slots_n: Tensor) -> Tensor:
        ctx.save_for_backward(slots_n)
        ctx.slots = len(flat)
        return flat.index_select(0, slots_n)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (slots_n,) = ctx.saved_tensors
        return grads[0].new_zeros((ctx.slots, *grads[0].shape[1:])).index_copy_(0, slots_n, grads[0]), None
