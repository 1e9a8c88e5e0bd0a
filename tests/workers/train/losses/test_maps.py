"""The loss between attention maps against dense maps of each sample alone, in float64."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from dram_workers.train.losses import Heads, attention_loss
from dram_workers.train.losses.maps import map_divergence
from dram_workers.train.segments import Segments

SIZES = [5, 9, 1, 14]
TARGETS_N = torch.tensor([2, 3, 4, 8, 13, 14, 20, 27, 28])


def heads(queries: int, keys: int, size: int, dtype: torch.dtype, seed: int, window: int | None = None) -> Heads:
    made = torch.Generator().manual_seed(seed)

    def random(count: int) -> Tensor:
        return torch.randn(count, sum(SIZES), size, generator=made, dtype=torch.float64).to(dtype)

    return Heads(random(queries).requires_grad_(), random(keys).requires_grad_(), 0.3, window)


def in_double(given: Heads) -> Heads:
    queries, keys = (part.detach().double().requires_grad_() for part in (given.query_HLA, given.key_KLA))
    return replace(given, query_HLA=queries, key_KLA=keys)


def maps(given: Heads, inside: slice) -> Tensor:
    """A sample's attention maps, [H, size, size]."""
    query, key = given.query_HLA[:, inside], given.key_KLA[:, inside]
    key = key.repeat_interleave(len(query) // len(key), 0)
    size = query.shape[1]
    seen = torch.ones(size, size, dtype=torch.bool).tril().triu(1 - (given.window or size))
    return (query @ key.transpose(1, 2) * given.scale).masked_fill(~seen, float("-inf")).softmax(-1)


def dense(student: Heads, teacher: Heads) -> Tensor:
    """The definition, by target token: the mean over heads of the divergence of the row."""
    count, start, rows = len(student.query_HLA), 0, []
    for size in SIZES:
        inside = slice(start, start + size)
        q, p = maps(student, inside), maps(teacher, inside).detach()
        p = torch.stack([p[number * len(p) // count] for number in range(count)])
        rows.append(torch.where(p > 0, p * (p.clamp(min=1e-300).log() - q.clamp(min=1e-300).log()), 0).sum(-1).mean(0))
        start += size
    return torch.cat(rows)[TARGETS_N]


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        pytest.param((4, 2, 8, None), (4, 2, 8, None), id="equal"),
        pytest.param((4, 4, 8, None), (4, 1, 16, None), id="other-shapes"),
        pytest.param((2, 1, 8, None), (6, 3, 8, None), id="fewer-heads"),
        pytest.param((6, 2, 8, None), (4, 2, 8, None), id="more-heads"),
        pytest.param((4, 2, 8, 4), (4, 2, 8, 4), id="windows"),
    ],
)
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5), (torch.bfloat16, 4e-3)]
)
def test_it_is_the_divergence_of_dense_maps(
    dtype: torch.dtype,
    tolerance: float,
    ours: tuple[int, int, int, int | None],
    theirs: tuple[int, int, int, int | None],
) -> None:
    student, teacher = (heads(*given[:3], dtype, seed, given[3]) for seed, given in enumerate((ours, theirs)))
    total, loss_N = map_divergence(student, teacher, Segments.of(SIZES), TARGETS_N)
    oracle = in_double(student)
    want_N = dense(oracle, in_double(teacher))
    assert float((loss_N.double() - want_N.detach()).norm() / want_N.detach().norm()) <= tolerance
    mine = torch.autograd.grad(3 * total, (student.query_HLA, student.key_KLA))
    for got, want in zip(mine, torch.autograd.grad(3 * want_N.sum(), (oracle.query_HLA, oracle.key_KLA)), strict=True):
        assert float((got.double() - want).norm() / want.norm()) <= tolerance


def test_a_target_takes_nothing_from_another_sample_or_from_later_tokens() -> None:
    student, teacher = (heads(4, 2, 8, torch.float64, seed) for seed in (0, 1))
    for target, first in ((8, 5), (13, 5), (14, 14), (20, 15)):
        total, _ = map_divergence(student, teacher, Segments.of(SIZES), torch.tensor([target]))
        query, key = torch.autograd.grad(total, (student.query_HLA, student.key_KLA))
        touched = (query.abs().sum((0, 2)) + key.abs().sum((0, 2))).nonzero().flatten().tolist()
        assert all(first <= position <= target for position in touched)
        assert touched == [] if target == first else target in touched


def test_the_loss_is_the_mean_over_pairs_of_layers() -> None:
    student = tuple(heads(4, 2, 8, torch.float64, seed) for seed in (0, 1))
    teacher = tuple(heads(4, 2, 8, torch.float64, seed) for seed in (2, 3))
    total, loss_N = attention_loss(student, teacher, Segments.of(SIZES), TARGETS_N)
    want_N = (dense(student[0], teacher[0]) + dense(student[1], teacher[1])) / 2
    torch.testing.assert_close(loss_N, want_N.detach())
    torch.testing.assert_close(total, want_N.sum().detach())


def test_scores_of_any_size_stay_finite() -> None:
    student, teacher = (heads(4, 2, 8, torch.float32, seed) for seed in (0, 1))
    loud = replace(student, scale=3000.0)
    total, loss_N = map_divergence(loud, teacher, Segments.of(SIZES), TARGETS_N)
    assert float(loss_N.max()) > 104
    assert all(bool(grad.isfinite().all()) for grad in torch.autograd.grad(total, (student.query_HLA, student.key_KLA)))
