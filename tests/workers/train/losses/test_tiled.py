"""The tiled loss against a dense one in float64, and what it does not depend on."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dram_workers.objective import Divergence
from dram_workers.train.losses import Objective, distillation_loss
from tests.workers.train.losses.problem import a_problem, dense_loss, errors, in_double

SMALL_TILES = 101 * 8 * (2 * 5 + 4) * 8 // 7 + 1
"""Five rows of float64, with a chunk of one row."""


DIVERGENCES = [
    pytest.param(Divergence(), id="forward"),
    pytest.param(Divergence(type="ReverseKL"), id="reverse"),
    pytest.param(Divergence(type="JSD"), id="jsd"),
    pytest.param(Divergence(type="JSD", beta=0.1), id="jsd-0.1"),
]
SHAPES = [
    pytest.param({}, id="plain"),
    pytest.param({"bias": False}, id="no-bias"),
    pytest.param({"scale": 0.3}, id="scaled"),
    pytest.param({"softcap": 5.0, "scale": 1.5}, id="soft-capped"),
    pytest.param({"vocabulary": 101, "teacher_vocabulary": 97}, id="padded-student"),
    pytest.param({"vocabulary": 97, "teacher_vocabulary": 101}, id="padded-teacher"),
    pytest.param({"spread": 25.0}, id="probabilities-that-underflow"),
]


@pytest.mark.parametrize(("temperature", "alpha"), [(1.0, 0.5), (2.0, 0.7), (0.5, 0.0), (3.0, 1.0)])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_it_is_the_dense_loss(
    dtype: torch.dtype,
    tolerance: float,
    divergence: Divergence,
    shape: dict[str, Any],
    temperature: float,
    alpha: float,
) -> None:
    problem = a_problem(dtype=dtype, **shape)
    objective = Objective(temperature, alpha, normalizer=37.0, tile_bytes=SMALL_TILES, divergence=divergence)
    oracle = in_double(problem)
    assert max(errors(problem, problem.loss(objective), oracle, dense_loss(oracle, objective))) <= tolerance


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape.id != "probabilities-that-underflow"])
@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_half_precision_products_are_the_only_rounding(divergence: Divergence, shape: dict[str, Any]) -> None:
    """Against the dense loss of the same rounded weights, states and logits. Logits are rounded as in any BF16 model."""
    problem = a_problem(tokens=200, dtype=torch.bfloat16, **{"spread": 0.3, **shape})
    objective = Objective(2.0, 0.7, 200.0, tile_bytes=SMALL_TILES * 4, divergence=divergence)
    oracle = in_double(problem)
    dense = dense_loss(oracle, objective, products=torch.bfloat16)
    assert max(errors(problem, problem.loss(objective), oracle, dense)) <= 4e-3


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_in_half_precision_the_loss_stays_close_to_the_exact_one(divergence: Divergence) -> None:
    problem = a_problem(tokens=200, dtype=torch.bfloat16, spread=0.3)
    objective = Objective(2.0, 0.7, 200.0, tile_bytes=SMALL_TILES * 4, divergence=divergence)
    oracle = in_double(problem)
    *losses, _, _, _ = found = errors(problem, problem.loss(objective), oracle, dense_loss(oracle, objective))
    assert max(losses) <= 4e-3
    assert max(found) <= 1e-2


def test_the_ends_of_jsd_are_the_two_divergences() -> None:
    """JSD(beta) / beta goes to the forward and JSD(beta) / (1 - beta) to the reverse divergence."""
    problem = a_problem(spread=0.1)
    problem.teacher_hidden_NE *= 0.1
    near = {end: Divergence(type="JSD", beta=end) for end in (1e-6, 1 - 1e-6)}
    soft = {end: problem.loss(Objective(1.0, 1.0, 37.0, divergence=kind)).soft_N for end, kind in near.items()}
    forward, reverse = (
        problem.loss(Objective(1.0, 1.0, 37.0, divergence=Divergence(type=kind))).soft_N
        for kind in ("ForwardKL", "ReverseKL")
    )
    torch.testing.assert_close(soft[1e-6] / 1e-6, forward, rtol=1e-2, atol=1e-4)
    torch.testing.assert_close(soft[1 - 1e-6] / 1e-6, reverse, rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_padding_of_the_student_is_pushed_down(divergence: Divergence) -> None:
    """Rows that the teacher lacks: a device runs the student with them, so they must lose."""
    problem = a_problem(vocabulary=101, teacher_vocabulary=97)
    with torch.no_grad():
        problem.student.bias_V[97:] += 5  # type: ignore[index]
    total = problem.loss(Objective(1.0, 1.0, 37.0, divergence=divergence)).total
    assert bool((problem.gradients(total)[2][97:] > 0).all())


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_log_probabilities_below_the_range_of_fp32_stay_finite(divergence: Divergence) -> None:
    problem = a_problem(dtype=torch.float32, spread=200.0, vocabulary=103)
    losses = problem.loss(Objective(1.0, 0.5, 37.0, divergence=divergence))
    assert bool(losses.soft_N.isfinite().all())
    assert float(losses.hard_N.max()) > 104
    assert all(bool(grad.isfinite().all()) for grad in problem.gradients(losses.total))


def test_a_loss_that_is_no_number_is_not_hidden() -> None:
    problem = a_problem()
    with torch.no_grad():
        problem.hidden_ND[3, 0] = float("nan")
    finite_N = problem.loss(Objective(1.0, 0.5, 37.0)).soft_N.isfinite()
    assert finite_N.tolist() == [number != 3 for number in range(37)]


def test_a_batch_without_targets_has_no_loss_and_no_gradient() -> None:
    problem = a_problem().rows(0, 0)
    losses = problem.loss(Objective(1.0, 0.5, 37.0))
    assert losses.total.item() == 0
    assert all(float(grad.abs().sum()) == 0 for grad in problem.gradients(losses.total))


def test_a_tile_that_cannot_hold_a_row_is_refused() -> None:
    with pytest.raises(ValueError, match="a row of the loss needs 4040 bytes"):
        a_problem().loss(Objective(1.0, 0.5, 37.0, tile_bytes=2000))


def test_gradients_scale_with_what_comes_behind() -> None:
    problem = a_problem()
    objective = Objective(2.0, 0.7, 37.0)
    once = problem.gradients(problem.loss(objective).total)
    thrice = problem.gradients(3 * problem.loss(objective).total)
    for one, three in zip(once, thrice, strict=True):
        torch.testing.assert_close(three, 3 * one)


@given(
    rows=st.integers(1, 40),
    cut=st.integers(0, 37),
    seed=st.integers(0, 1000),
    temperature=st.floats(0.3, 5),
    divergence=st.sampled_from([Divergence(type=kind) for kind in ("ForwardKL", "ReverseKL", "JSD")]),
)
@settings(max_examples=60, deadline=None)
def test_tiles_and_micro_batches_do_not_matter(
    rows: int, cut: int, seed: int, temperature: float, divergence: Divergence
) -> None:
    problem = a_problem(seed=seed)
    objective = Objective(temperature, 0.6, 37.0, divergence=divergence)
    whole = problem.loss(objective)
    tiled = replace(objective, tile_bytes=101 * 8 * (2 * rows + 4) * 8 // 7 + 1)
    parts = [problem.rows(0, cut).loss(tiled).total, problem.rows(cut, 37).loss(tiled).total]
    split = parts[0] + parts[1]
    torch.testing.assert_close(split, whole.total, rtol=1e-10, atol=0)
    for ours, want in zip(problem.gradients(split), problem.gradients(whole.total), strict=True):
        torch.testing.assert_close(ours, want, rtol=1e-9, atol=1e-12)


@given(
    permutation=st.permutations(range(37)),
    alpha=st.floats(0, 1),
    temperature=st.floats(0.5, 4),
)
@settings(max_examples=25, deadline=None)
def test_losses_are_never_negative_and_follow_their_tokens(
    permutation: list[int], alpha: float, temperature: float
) -> None:
    problem = a_problem()
    objective = Objective(temperature, alpha, 37.0, tile_bytes=SMALL_TILES)
    losses = problem.loss(objective)
    assert float(losses.soft_N.min()) >= -1e-12
    assert float(losses.hard_N.min()) >= 0
    moved = replace(
        problem,
        hidden_ND=problem.hidden_ND[permutation],
        teacher_hidden_NE=problem.teacher_hidden_NE[permutation],
        labels_N=problem.labels_N[permutation],
    ).loss(objective)
    torch.testing.assert_close(moved.soft_N, losses.soft_N[permutation])
    torch.testing.assert_close(moved.total, losses.total)


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_a_student_that_is_its_teacher_has_nothing_to_learn(divergence: Divergence) -> None:
    problem = a_problem(bias=False)
    same = replace(problem, teacher=problem.student, teacher_hidden_NE=problem.hidden_ND.detach())
    losses = same.loss(Objective(2.0, 1.0, 37.0, divergence=divergence))
    torch.testing.assert_close(losses.total, torch.zeros_like(losses.total), atol=1e-12, rtol=0)
    assert all(float(grad.abs().max()) < 1e-12 for grad in same.gradients(losses.total))


def test_without_a_teacher_only_the_labels_count() -> None:
    problem = a_problem()
    objective = Objective(2.0, 0.0, 37.0, tile_bytes=SMALL_TILES)
    alone = distillation_loss(problem.student, problem.hidden_ND, None, problem.labels_N, objective)
    oracle = in_double(problem)
    dense = dense_loss(oracle, objective)
    assert max(errors(problem, alone, oracle, replace(dense, soft_N=torch.zeros(37)))) <= 1e-10
