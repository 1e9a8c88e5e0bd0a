"""Problems for the loss on tokens, and the same loss with every logit in memory."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, pad

from dram_workers.objective import Divergence
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
        """The tiled loss."""
        target = TeacherStates(self.teacher, self.teacher_hidden_NE)
        return distillation_loss(self.student, self.hidden_ND, target, self.labels_N, objective)

    def leaves(self) -> list[Tensor]:
        """What gets a gradient."""
        found = [self.hidden_ND, self.student.weight_VD]
        return found if self.student.bias_V is None else [*found, self.student.bias_V]

    def gradients(self, total: Tensor) -> list[Tensor]:
        """Gradients of the leaves."""
        return list(torch.autograd.grad(total, self.leaves()))

    def rows(self, start: int, end: int) -> "Problem":
        """Some of the tokens."""
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
    """A problem of random numbers; `spread` widens the student's logits."""
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


def dense_logits(model: Projection, hidden_ND: Tensor, products: torch.dtype | None = None) -> Tensor:
    """Every logit; with `products`, rounded where a matrix product of that type rounds it."""
    logits_NV = hidden_ND @ model.weight_VD.T
    if products is not None:
        logits_NV = logits_NV + (logits_NV.detach().to(products).to(logits_NV.dtype) - logits_NV.detach())
    if model.bias_V is not None:
        logits_NV = logits_NV + model.bias_V
    logits_NV = logits_NV * model.scale
    return logits_NV if model.softcap is None else model.softcap * torch.tanh(logits_NV / model.softcap)


def teacher_log_probabilities(problem: Problem, temperature: float, products: torch.dtype | None = None) -> Tensor:
    """The teacher's, [N, V]; -inf for rows that it lacks."""
    rows = len(problem.student.weight_VD)
    teacher_NU = dense_logits(problem.teacher, problem.teacher_hidden_NE, products)[:, :rows]
    padded_NV = pad(teacher_NU, (0, rows - teacher_NU.shape[1]), value=float("-inf"))
    return (padded_NV / temperature).log_softmax(-1)


def dense_divergence(kind: Divergence, log_q_NV: Tensor, log_p_NV: Tensor) -> Tensor:
    """The definitions, for autograd."""
    p_NV, q_NV = log_p_NV.exp(), log_q_NV.exp()
    there_NV = log_p_NV > float("-inf")

    def kl(a_NV: Tensor, log_a_NV: Tensor, log_b_NV: Tensor) -> Tensor:
        return (a_NV * torch.where(a_NV > 0, log_a_NV - log_b_NV, 0)).sum(-1)

    match kind.type:
        case "ForwardKL":
            return kl(p_NV, torch.where(there_NV, log_p_NV, 0), log_q_NV)
        case "ReverseKL":
            log_mass_N1 = log_q_NV.masked_fill(~there_NV, float("-inf")).logsumexp(-1, keepdim=True)
            given_NV = torch.where(there_NV, log_q_NV - log_mass_N1, 0)
            ratio_NV = torch.where(there_NV, given_NV - torch.where(there_NV, log_p_NV, 0), 0)
            return (torch.where(there_NV, given_NV.exp(), 0) * ratio_NV).sum(-1) - log_mass_N1[:, 0]
        case "JSD":
            beta = torch.tensor(kind.weight, dtype=log_q_NV.dtype)
            log_m_NV = torch.logaddexp(log_p_NV + beta.log(), log_q_NV + (1 - beta).log())
            of_teacher_N = kl(p_NV, torch.where(there_NV, log_p_NV, 0), log_m_NV)
            return beta * of_teacher_N + (1 - beta) * (q_NV * (log_q_NV - log_m_NV)).sum(-1)


def dense_loss(
    problem: Problem, objective: Objective, log_p_NV: Tensor | None = None, products: torch.dtype | None = None
) -> Losses:
    """The definition, with every logit in memory, for a teacher at hand or for given log-probabilities."""
    temperature, alpha = objective.temperature, objective.alpha
    student_NV = dense_logits(problem.student, problem.hidden_ND, products)
    log_q_NV = (student_NV / temperature).log_softmax(-1)
    if log_p_NV is None:
        log_p_NV = teacher_log_probabilities(problem, temperature, products)
    soft_N = temperature**2 * dense_divergence(objective.divergence, log_q_NV, log_p_NV)
    hard_N = cross_entropy(student_NV, problem.labels_N, reduction="none")
    return Losses((alpha * soft_N + (1 - alpha) * hard_N).sum() / objective.normalizer, soft_N, hard_N)


def errors(problem: Problem, ours: Losses, oracle: Problem, dense: Losses) -> list[float]:
    """Relative errors of the loss, of its terms and of every gradient."""
    pairs = [(ours.total, dense.total), (ours.soft_N, dense.soft_N), (ours.hard_N, dense.hard_N)]
    pairs += list(zip(problem.gradients(ours.total), oracle.gradients(dense.total), strict=True))
    return [
        float((mine.detach().double() - want.detach()).norm() / want.detach().norm().clamp(min=1e-30))
        for mine, want in pairs
    ]


def in_double(problem: Problem) -> Problem:
    """The same problem in float64, with leaves of its own."""

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
