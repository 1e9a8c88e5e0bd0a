"""The loss on cached targets against a dense one, and what a cache may do to its numbers."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from dram_workers.objective import Divergence
from dram_workers.train.losses import Losses, Objective, TopK, distillation_loss
from tests.workers.train.losses.problem import (
    Problem,
    a_problem,
    dense_logits,
    dense_loss,
    errors,
    in_double,
    teacher_log_probabilities,
)


def cached(problem: Problem, temperature: float, kept: int) -> TopK:
    """The teacher's likeliest tokens as a cache would give them."""
    log_p_NV = teacher_log_probabilities(problem, temperature)
    logs_NK, ids_NK = log_p_NV.topk(kept, dim=-1)
    tail_N = log_p_NV.scatter(1, ids_NK, float("-inf")).logsumexp(-1)
    return TopK(ids_NK, logs_NK, tail_N, len(problem.teacher.weight_VD))


def loss(problem: Problem, target: TopK, objective: Objective) -> Losses:
    return distillation_loss(problem.student, problem.hidden_ND, target, problem.labels_N, objective)


def spread_as_the_student(problem: Problem, target: TopK, temperature: float) -> Tensor:
    """The teacher that the cache stands for: its tail is divided as the student divides its own."""
    log_q_NV = (dense_logits(problem.student, problem.hidden_ND).detach() / temperature).log_softmax(-1)
    tail_NV = log_q_NV.scatter(1, target.ids_NK, float("-inf"))
    tail_NV[:, target.vocabulary :] = float("-inf")
    tail_NV = tail_NV - tail_NV.logsumexp(-1, keepdim=True) + target.tail_N[:, None]
    return tail_NV.scatter(1, target.ids_NK, target.logprobs_NK)


TILE = 101 * 8 * (5 + 4) * 8 // 7 + 1


@pytest.mark.parametrize(("temperature", "alpha"), [(1.0, 0.5), (2.0, 0.7), (1.0, 1.0)])
@pytest.mark.parametrize(
    "shape",
    [
        pytest.param({}, id="plain"),
        pytest.param({"scale": 0.3, "bias": False}, id="scaled"),
        pytest.param({"softcap": 5.0, "scale": 1.5}, id="soft-capped"),
        pytest.param({"vocabulary": 101, "teacher_vocabulary": 97}, id="padded-student"),
        pytest.param({"spread": 25.0}, id="probabilities-that-underflow"),
    ],
)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_the_tail_counts_as_one_token(
    dtype: torch.dtype, tolerance: float, shape: dict[str, Any], temperature: float, alpha: float
) -> None:
    problem = a_problem(dtype=dtype, **shape)
    objective = Objective(temperature, alpha, 37.0, tile_bytes=TILE)
    oracle = in_double(problem)
    target = cached(oracle, temperature, 8)
    dense = dense_loss(oracle, objective, spread_as_the_student(oracle, target, temperature))
    assert max(errors(problem, loss(problem, target, objective), oracle, dense)) <= tolerance


def test_a_cache_of_every_token_is_the_teacher() -> None:
    problem = a_problem()
    objective = Objective(2.0, 0.7, 37.0, tile_bytes=TILE)
    ours = loss(problem, cached(problem, 2.0, 101), objective)
    oracle = in_double(problem)
    assert max(errors(problem, ours, oracle, dense_loss(oracle, objective))) <= 1e-10


def test_what_the_cache_rounded_sums_to_one_again() -> None:
    problem = a_problem()
    objective = Objective(1.0, 1.0, 37.0)
    target = cached(problem, 1.0, 8)
    rounded = replace(target, logprobs_NK=target.logprobs_NK.half(), tail_N=target.tail_N.half())
    shifted = replace(target, logprobs_NK=target.logprobs_NK + 0.3, tail_N=target.tail_N + 0.3)
    want = loss(problem, target, objective)
    torch.testing.assert_close(loss(problem, shifted, objective).soft_N, want.soft_N)
    torch.testing.assert_close(loss(problem, rounded, objective).soft_N, want.soft_N, rtol=2e-2, atol=1e-3)
    bias = problem.gradients(loss(problem, rounded, objective).total)[2]
    assert abs(float(bias.sum())) < 1e-12


def test_a_tail_whose_probabilities_underflow_keeps_its_logarithm() -> None:
    problem = a_problem(dtype=torch.float32, spread=300.0)
    losses = loss(problem, cached(problem, 1.0, 8), Objective(1.0, 0.5, 37.0))
    assert float(losses.soft_N.max()) > 104
    assert bool(losses.soft_N.isfinite().all())
    assert all(bool(grad.isfinite().all()) for grad in problem.gradients(losses.total))


@pytest.mark.parametrize("kind", ["ReverseKL", "JSD"])
def test_a_cache_serves_the_forward_divergence_alone(kind: Any) -> None:
    problem = a_problem()
    objective = Objective(1.0, 0.5, 37.0, divergence=Divergence(type=kind))
    with pytest.raises(ValueError, match=f"serve ForwardKL, not {kind}"):
        loss(problem, cached(problem, 1.0, 8), objective)
