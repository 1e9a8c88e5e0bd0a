"""Packed samples never see each other."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from dram_workers.train import attention
from dram_workers.train.attention import SEGMENTS, segment_attention
from dram_workers.train.batches import lay_out
from dram_workers.train.distiller import target_hidden
from dram_workers.train.pretrained import load_model
from dram_workers.train.segments import Segments
from tests.models import ModelShape, write_model
from tests.workers.train.test_batches import a_dataset


def one_by_one(query: Tensor, key: Tensor, value: Tensor, sizes: list[int], window: int | None) -> Tensor:
    """Each sample alone, by torch's own attention; [1, L, H, D]."""
    parts, start = [], 0
    for size in sizes:
        inside = slice(start, start + size)
        seen = torch.ones(size, size, dtype=torch.bool).tril()
        seen = seen if window is None else seen.triu(1 - window)
        groups = query.shape[1] // key.shape[1]
        wide_key, wide_value = (states[:, :, inside].repeat_interleave(groups, 1) for states in (key, value))
        parts.append(scaled_dot_product_attention(query[:, :, inside], wide_key, wide_value, attn_mask=seen))
        start += size
    return torch.cat(parts, dim=2).transpose(1, 2)


@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=6),
    window=st.one_of(st.none(), st.integers(1, 20)),
    explicit=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_packed_attention_is_that_of_each_sample_alone(sizes: list[int], window: int | None, explicit: bool) -> None:
    made = torch.Generator().manual_seed(sum(sizes))
    query, key, value = (
        torch.randn(1, heads, sum(sizes), 8, generator=made, dtype=torch.float64, requires_grad=True)
        for heads in (6, 2, 2)
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "EXPLICIT_WIDTH", 1024 if explicit else 0)
        ours, _ = segment_attention(
            nn.Identity(), query, key, value, None, sliding_window=window, segments=Segments.of(sizes)
        )
    want = one_by_one(query, key, value, sizes, window)
    torch.testing.assert_close(ours, want)
    weight = torch.randn(want.shape, generator=made, dtype=torch.float64)
    mine = torch.autograd.grad((ours * weight).sum(), (query, key, value))
    for grad, expected in zip(mine, torch.autograd.grad((want * weight).sum(), (query, key, value)), strict=True):
        torch.testing.assert_close(grad, expected)


def test_no_attention_map_is_kept_for_the_backward_pass(tmp_path: Path) -> None:
    width = 97
    folder = write_model(tmp_path / "model", ModelShape(vocabulary=1024))
    model = load_model(folder, torch.float32, "spec.student.uri", attention=SEGMENTS)
    batch = lay_out(a_dataset(tmp_path / "data", [width]), (0,), packed=True)
    kept: list[tuple[int, ...]] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tuple(tensor.shape))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        target_hidden(model, batch)
    assert kept
    assert not [shape for shape in kept if shape[-2:] == (width, width)]


def test_packing_does_not_change_what_a_model_says(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model", ModelShape(vocabulary=1024))
    dataset = a_dataset(tmp_path / "data", [5, 9, 40, 7])
    packed = load_model(folder, torch.float32, "spec.teacher.uri", attention=SEGMENTS)
    padded = load_model(folder, torch.float32, "spec.teacher.uri")
    samples = (2, 0, 3, 1)
    with torch.no_grad():
        together = target_hidden(packed, lay_out(dataset, samples, packed=True))
        in_rows = target_hidden(padded, lay_out(dataset, samples, packed=False))
        alone = torch.cat([target_hidden(packed, lay_out(dataset, (sample,), packed=True)) for sample in samples])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(together, in_rows, rtol=1e-5, atol=1e-5)


def test_a_model_that_loses_the_boundaries_is_refused() -> None:
    states = torch.zeros(1, 2, 4, 8)
    with pytest.raises(ValueError, match="boundaries"):
        segment_attention(nn.Identity(), states, states, states, None)
