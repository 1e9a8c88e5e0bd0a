"""Distances of hidden states against their definitions in float64."""

import pytest
import torch
from torch import Tensor

from dram_workers.train.losses import hidden_loss
from dram_workers.train.losses.hidden import hidden_distance


def states(dtype: torch.dtype, count: int = 2) -> tuple[Tensor, ...]:
    made = torch.Generator().manual_seed(count)
    return tuple(
        (torch.randn(19, 12, generator=made, dtype=torch.float64) * 3).to(dtype).requires_grad_() for _ in range(count)
    )


def defined(ours_ND: Tensor, theirs_ND: Tensor, kind: str) -> Tensor:
    if kind == "MSE":
        return (ours_ND - theirs_ND).pow(2).sum(-1) / theirs_ND.pow(2).sum(-1)
    norms_N = ours_ND.pow(2).sum(-1).sqrt() * theirs_ND.pow(2).sum(-1).sqrt()
    return 1 - (ours_ND * theirs_ND).sum(-1) / norms_N


@pytest.mark.parametrize("kind", ["MSE", "Cosine"])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5), (torch.bfloat16, 4e-3)]
)
def test_it_is_the_definition_and_the_mean_over_pairs(dtype: torch.dtype, tolerance: float, kind: str) -> None:
    ours, theirs = states(dtype), tuple(given.detach() for given in states(dtype, 3)[1:])
    doubles = [given.detach().double().requires_grad_() for given in ours]
    total, loss_N = hidden_loss(ours, theirs, kind)  # type: ignore[arg-type]
    pairs = zip(doubles, theirs, strict=True)
    want_N = torch.stack([defined(mine, other.double(), kind) for mine, other in pairs]).mean(0)
    torch.testing.assert_close(loss_N.double(), want_N.detach(), rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(total.double(), want_N.sum(), rtol=tolerance, atol=tolerance)
    for mine, want in zip(torch.autograd.grad(total, ours), torch.autograd.grad(want_N.sum(), doubles), strict=True):
        assert float((mine.double() - want).norm() / want.norm()) <= tolerance


def test_a_huge_activation_of_one_token_is_no_more_than_that_token() -> None:
    ours, theirs = (given.detach() for given in states(torch.float64))
    huge = theirs.clone()
    huge[3] *= 1e4
    before, after = (hidden_distance(ours, other, "MSE") for other in (theirs, huge))
    assert float(after[3]) == pytest.approx(1, abs=1e-3)
    assert torch.equal(before[4:], after[4:])


@pytest.mark.parametrize("kind", ["MSE", "Cosine"])
def test_states_of_zeros_and_no_tokens_at_all_stay_finite(kind: str) -> None:
    nothing = torch.zeros(2, 4, requires_grad=True)
    total, _ = hidden_loss((nothing,), (torch.zeros(2, 4),), kind)  # type: ignore[arg-type]
    assert bool(torch.autograd.grad(total, nothing)[0].isfinite().all())
    empty = torch.zeros(0, 4, requires_grad=True)
    assert hidden_loss((empty,), (torch.zeros(0, 4),), kind)[0].item() == 0  # type: ignore[arg-type]
