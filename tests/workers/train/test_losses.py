"""The tiled loss against a dense one in float64, and what it does not depend on."""

from dataclasses import dataclass, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import cross_entropy

from dram_workers.train.losses import Losses, Objective, Projection, TeacherStates, distillation_loss


@dataclass
class Problem:
    """Hidden states, heads and labels."""

    student: Projection
    hidden_ND: Tensor
    teacher: Projection
    teacher_hidden_NE: Tensor
    labels_N: Tensor

    def loss(self, objective: Objective) -> Losses:
        return distillation_loss(
            self.student, self.hidden_ND, TeacherStates(self.teacher, self.teacher_hidden_NE), self.labels_N, objective
        )

    def leaves(self) -> list[Tensor]:
        found = [self.hidden_ND, self.student.weight_VD]
        return found if self.student.bias_V is None else [*found, self.student.bias_V]

    def gradients(self, total: Tensor) -> list[Tensor]:
        return list(torch.autograd.grad(total, self.leaves()))

    def rows(self, start: int, end: int) -> "Problem":
        return replace(
            self,
            hidden_ND=self.hidden_ND[start:end],
            teacher_hidden_NE=self.teacher_hidden_NE[start:end],
            labels_N=self.labels_N[start:end],
        )


def a_problem(
    *,
    tokens: int = 37,
    vocabulary: int = 101,
    teacher_vocabulary: int = 101,
    dtype: torch.dtype = torch.float64,
    bias: bool = True,
    scale: float = 1.0,
    softcap: float | None = None,
    spread: float = 1.0,
    seed: int = 0,
) -> Problem:
    made = torch.Generator().manual_seed(seed)

    def random(*shape: int, factor: float = 1.0) -> Tensor:
        return (torch.randn(*shape, generator=made, dtype=torch.float64) * factor).to(dtype)

    student = Projection(
        random(vocabulary, 16, factor=spread).requires_grad_(),
        random(vocabulary).requires_grad_() if bias else None,
        scale,
        softcap,
    )
    teacher = Projection(random(teacher_vocabulary, 24), random(teacher_vocabulary), 0.5, softcap)
    labels = torch.randint(0, min(vocabulary, teacher_vocabulary), (tokens,), generator=made)
    return Problem(student, random(tokens, 16).requires_grad_(), teacher, random(tokens, 24, factor=3), labels)


def dense_logits(model: Projection, hidden_ND: Tensor) -> Tensor:
    logits_NV = hidden_ND @ model.weight_VD.T
    if model.bias_V is not None:
        logits_NV = logits_NV + model.bias_V
    logits_NV = logits_NV * model.scale
    return logits_NV if model.softcap is None else model.softcap * torch.tanh(logits_NV / model.softcap)


def dense_loss(problem: Problem, objective: Objective) -> Losses:
    """The definition, with every logit in memory; the teacher's logits of rows it lacks are -inf."""
    temperature, alpha = objective.temperature, objective.alpha
    student_NV = dense_logits(problem.student, problem.hidden_ND)
    teacher_NU = dense_logits(problem.teacher, problem.teacher_hidden_NE)[:, : student_NV.shape[1]]
    missing = student_NV.shape[1] - teacher_NU.shape[1]
    teacher_NV = torch.nn.functional.pad(teacher_NU, (0, missing), value=float("-inf"))
    target_NV = (teacher_NV / temperature).softmax(-1)
    student_log_NV = (student_NV / temperature).log_softmax(-1)
    soft_N = temperature**2 * (torch.special.xlogy(target_NV, target_NV) - target_NV * student_log_NV).sum(-1)
    hard_N = cross_entropy(student_NV, problem.labels_N, reduction="none")
    return Losses((alpha * soft_N + (1 - alpha) * hard_N).sum() / objective.normalizer, soft_N, hard_N)


def assert_same(problem: Problem, objective: Objective, tolerance: float, oracle: Problem | None = None) -> None:
    ours, dense = problem.loss(objective), dense_loss(oracle or problem, objective)
    pairs = [(ours.total, dense.total), (ours.soft_N, dense.soft_N), (ours.hard_N, dense.hard_N)]
    pairs += list(zip(problem.gradients(ours.total), (oracle or problem).gradients(dense.total), strict=True))
    for mine, want in pairs:
        error = (mine.detach().double() - want.detach()).norm() / want.detach().norm().clamp(min=1e-30)
        assert float(error) <= tolerance


def in_double(problem: Problem) -> Problem:
    def up(model: Projection) -> Projection:
        bias = None if model.bias_V is None else model.bias_V.detach().double().requires_grad_()
        return replace(model, weight_VD=model.weight_VD.detach().double().requires_grad_(), bias_V=bias)

    return replace(
        problem,
        student=up(problem.student),
        teacher=up(problem.teacher),
        hidden_ND=problem.hidden_ND.detach().double().requires_grad_(),
        teacher_hidden_NE=problem.teacher_hidden_NE.double(),
    )


SMALL_TILES = 101 * 8 * (2 * 5 + 4)
"""Five rows of float64, with a chunk of one row."""


@pytest.mark.parametrize(("temperature", "alpha"), [(1.0, 0.5), (2.0, 0.7), (0.5, 0.0), (3.0, 1.0), (1.0, 1.0)])
@pytest.mark.parametrize(
    "shape",
    [
        pytest.param({}, id="plain"),
        pytest.param({"bias": False}, id="no-bias"),
        pytest.param({"scale": 0.3}, id="scaled"),
        pytest.param({"softcap": 5.0, "scale": 1.5}, id="soft-capped"),
        pytest.param({"vocabulary": 101, "teacher_vocabulary": 97}, id="padded-student"),
        pytest.param({"vocabulary": 97, "teacher_vocabulary": 101}, id="padded-teacher"),
        pytest.param({"spread": 60.0}, id="probabilities-that-underflow"),
    ],
)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_it_is_the_dense_loss(
    dtype: torch.dtype, tolerance: float, shape: dict[str, float], temperature: float, alpha: float
) -> None:
    problem = a_problem(dtype=dtype, **shape)  # type: ignore[arg-type]
    objective = Objective(temperature, alpha, normalizer=37.0, tile_bytes=SMALL_TILES)
    assert_same(problem, objective, tolerance, oracle=in_double(problem) if dtype == torch.float32 else None)


def test_half_precision_products_stay_close() -> None:
    problem = a_problem(tokens=200, dtype=torch.float32, spread=0.3)
    objective = Objective(2.0, 0.7, 200.0, tile_bytes=SMALL_TILES * 4, compute=torch.bfloat16)
    with torch.no_grad():
        ours, dense = problem.loss(objective), dense_loss(in_double(problem), objective)
    assert abs(float(ours.total) - float(dense.total)) / float(dense.total) < 4e-3


def test_log_probabilities_below_the_range_of_fp32_stay_finite() -> None:
    problem = a_problem(dtype=torch.float32, spread=200.0)
    losses = problem.loss(Objective(1.0, 0.5, 37.0))
    assert float(losses.soft_N.max()) > 104
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


@given(rows=st.integers(1, 40), cut=st.integers(0, 37), seed=st.integers(0, 1000), temperature=st.floats(0.3, 5))
@settings(max_examples=40, deadline=None)
def test_tiles_and_micro_batches_do_not_matter(rows: int, cut: int, seed: int, temperature: float) -> None:
    problem = a_problem(seed=seed)
    whole = problem.loss(Objective(temperature, 0.6, 37.0))
    tiled = Objective(temperature, 0.6, 37.0, tile_bytes=101 * 8 * (2 * rows + 4))
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


def test_a_student_that_is_its_teacher_has_nothing_to_learn() -> None:
    problem = a_problem(bias=False)
    same = replace(problem, teacher=problem.student, teacher_hidden_NE=problem.hidden_ND.detach())
    losses = same.loss(Objective(2.0, 1.0, 37.0))
    torch.testing.assert_close(losses.total, torch.zeros_like(losses.total), atol=1e-12, rtol=0)
    assert all(float(grad.abs().max()) < 1e-12 for grad in same.gradients(losses.total))
