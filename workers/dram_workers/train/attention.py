"""Attention for packed rows: every sample attends to itself alone.

Legend as in `segments`; G = H / K heads of queries share one of keys and values.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint
from transformers import AttentionInterface

from dram_workers.train.intermediate import Tape
from dram_workers.train.losses.maps import Heads
from dram_workers.train.segments import Group, Segments

SEGMENTS = "dram_segments"
"""Name under which transformers finds this attention; models pass on `segments` from their call."""
EXPLICIT_WIDTH = 1024
"""On a CPU the fused kernel's backward pass is several times slower than plain matrix products up to about here."""


def segment_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,  # noqa: ARG001 -- the same
    *,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    segments: Segments | None = None,
    tape: Tape | None = None,
    **_others: object,
) -> tuple[Tensor, None]:
    """Causal attention inside each sample of one row; query is [1, H, L, D], the result [1, L, H, D].

    ValueError for a model that does not hand `segments` on, as its samples would see each other, or that caps scores.
    """
    if softcap is not None:
        raise ValueError("the model's attention has a soft cap")
    if segments is None:
        raise ValueError("the model does not pass the samples' boundaries to its attention")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if tape is not None:
        tape.take_heads(module, Heads(query[0], key[0], scale, sliding_window))
    # Rotary positions widen queries and keys under autocast, and the products would narrow them again.
    rows = tuple(row[0].to(value.dtype) for row in (query, key, value))
    parts = []
    for group in segments.groups:
        window = group.width if sliding_window is None else sliding_window
        explicit = query.device.type == "cpu" and group.width <= EXPLICIT_WIDTH
        if explicit:
            parts.append(_recomputed(_explicit, group, rows, scale, window))
        else:
            parts.append(_attend(_fused, group, rows, scale, window))
    attended_LHD = parts[0] if len(parts) == 1 else torch.cat(parts).index_select(0, segments.order_L)
    return attended_LHD[None], None


def _attend(
    kernel: Callable[[Tensor, Tensor, Tensor, float, int], Tensor],
    group: Group,
    rows_HLD: tuple[Tensor, ...],
    scale: float,
    window: int,
) -> Tensor:
    """A group's tokens, attended: [n, H, D]."""
    query, key, value = (group.pad(row) for row in rows_HLD)
    return group.unpad(kernel(query, key, value, scale, window))


def _recomputed(*arguments: Any) -> Tensor:
    """The same, and made again in the backward pass instead of being kept (Dao et al., arXiv 2205.14135, section 3.1).

    Maps are the largest activations of a layer, and the products that make them some of its cheapest.
    """
    attended: Tensor = checkpoint(_attend, *arguments, use_reentrant=False, preserve_rng_state=False)
    return attended


def _explicit(query_SHWD: Tensor, key_SKWD: Tensor, value_SKWD: Tensor, scale: float, window: int) -> Tensor:
    """Plain products; the queries that share a head of keys lie under each other in one matrix."""
    samples, heads, width, size = query_SHWD.shape
    shared = key_SKWD.shape[1]
    stacked = query_SHWD.reshape(samples * shared, -1, size)
    key, value = (states.reshape(samples * shared, width, size) for states in (key_SKWD, value_SKWD))
    hidden_WW = torch.full((width, width), float("-inf"), dtype=query_SHWD.dtype)
    hidden_WW = torch.where(_visible(width, window, query_SHWD.device), torch.zeros_like(hidden_WW), hidden_WW)
    scores = torch.bmm(stacked, key.transpose(1, 2)).view(samples * shared, -1, width, width) * scale + hidden_WW
    attended = torch.bmm(scores.softmax(-1).flatten(1, 2), value)
    return attended.view(samples, heads, width, size)


def _fused(query_SHWD: Tensor, key_SKWD: Tensor, value_SKWD: Tensor, scale: float, window: int) -> Tensor:
    """Torch's fused kernel."""
    width, shared = query_SHWD.shape[2], query_SHWD.shape[1] // key_SKWD.shape[1]
    key, value = (states.repeat_interleave(shared, dim=1) for states in (key_SKWD, value_SKWD))
    visible = _visible(width, window, query_SHWD.device) if window < width else None
    return scaled_dot_product_attention(
        query_SHWD, key, value, attn_mask=visible, is_causal=visible is None, scale=scale
    )


def _visible(width: int, window: int, device: torch.device) -> Tensor:
    """Which positions a position sees: itself and those before it, as far as the window reaches."""
    return torch.ones(width, width, dtype=torch.bool, device=device).tril().triu(1 - window)


AttentionInterface.register(SEGMENTS, segment_attention)
