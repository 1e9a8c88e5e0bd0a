"""Loss and gradient of a step do not depend on how it is cut: tiles, micro-batches, their order, packing, ranks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from dram_workers.data.dataset import Dataset
from dram_workers.objective import AttentionMaps, Divergence, HiddenStates
from dram_workers.train.attention import SEGMENTS
from dram_workers.train.batches import MicroBatch, lay_out, spread
from dram_workers.train.distiller import Distiller, Teacher
from dram_workers.train.intermediate import LayerMap
from dram_workers.train.losses import Objective, Target, TeacherStates, TopK
from dram_workers.train.pretrained import load_model
from tests.models import ModelShape, write_model
from tests.workers.train.test_batches import a_dataset
from tests.workers.train.training import an_identity

LENGTHS = [5, 9, 40, 7, 23, 12]
SAMPLES = tuple(range(len(LENGTHS)))
TARGETS = sum(length - max(1, length // 2) for length in LENGTHS)

OBJECTIVES: dict[str, Objective] = {
    "forward": Objective(2.0, 0.7, TARGETS),
    "reverse": Objective(2.0, 0.7, TARGETS, divergence=Divergence(type="ReverseKL")),
    "jsd": Objective(2.0, 0.7, TARGETS, divergence=Divergence(type="JSD", beta=0.3)),
    "labels": Objective(1.0, 0.0, TARGETS),
    "cached": Objective(1.0, 0.7, TARGETS),
    "hidden-mse": Objective(1.0, 0.0, TARGETS, hidden_weight=1.0),
    "hidden-cosine": Objective(1.0, 0.0, TARGETS, hidden_weight=1.0, hidden_kind="Cosine"),
    "attention": Objective(1.0, 0.0, TARGETS, attention_weight=1.0),
}
TILE = 1024 * 8 * 20


@dataclass
class Step:
    """One step's models and samples."""

    distiller: Distiller
    teacher: Teacher
    dataset: Dataset
    objective: Objective
    cached: bool = False

    def target(self, batch: MicroBatch) -> Target:
        given = self.teacher.target(batch, self.objective.temperature)
        if not self.cached:
            return given
        logits_NV = given.hidden_NE @ given.projection.weight_VD.T
        log_p_NV = logits_NV.log_softmax(-1)
        logs_NK, ids_NK = log_p_NV.topk(16, -1)
        return TopK(ids_NK, logs_NK, log_p_NV.scatter(1, ids_NK, float("-inf")).logsumexp(-1), 1024)

    def gradients(self, parts: Sequence[tuple[int, ...]], *, packed: bool = True) -> tuple[Tensor, list[Tensor]]:
        """The loss of the step and every parameter's gradient, summed over micro-batches."""
        parameters = [given for given in self.distiller.parameters() if given.requires_grad]
        loss = torch.zeros((), dtype=torch.float64)
        sums = [torch.zeros_like(given) for given in parameters]
        for part in parts:
            batch = lay_out(self.dataset, part, packed=packed)
            total, _ = self.distiller(batch, self.target(batch), self.objective)
            loss += total.detach().double()
            found = torch.autograd.grad(total, parameters, materialize_grads=True)
            sums = [given + grad for given, grad in zip(sums, found, strict=True)]
        return loss, sums


def with_exact_norms(model: PreTrainedModel) -> PreTrainedModel:
    """Llama's norms round to FP32 in every precision, which would hide the ninth digit of everything else."""
    for parent in list(model.modules()):
        for name, norm in list(parent.named_children()):
            if isinstance(norm, LlamaRMSNorm):
                exact = nn.RMSNorm(norm.weight.shape, eps=norm.variance_epsilon, dtype=norm.weight.dtype)
                exact.weight = norm.weight
                setattr(parent, name, exact)
    return model


Make = Callable[..., Step]


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    root = tmp_path_factory.mktemp("models")
    teacher = write_model(root / "teacher", ModelShape(vocabulary=1024))
    student = write_model(
        root / "student", ModelShape(layers=2, hidden=48, heads=6, key_value_heads=3, vocabulary=1024), seed=1
    )
    dataset = a_dataset(root / "data", LENGTHS)

    def made(name: str, dtype: torch.dtype, *, packed: bool = True, **more: Any) -> Step:
        attention = SEGMENTS if packed else "sdpa"
        models = [with_exact_norms(load_model(path, dtype, "f", attention=attention)) for path in (student, teacher)]
        objective = replace(OBJECTIVES[name], **more)
        asked = {
            "hidden_states": HiddenStates() if objective.hidden_weight else None,
            "attention": AttentionMaps() if objective.attention_weight else None,
        }
        layers = LayerMap.of(an_identity(**asked), 2, 4)
        frozen = Teacher(models[1], dataset, packed=packed, layers=layers.teacher)
        distiller = Distiller(models[0], layers, 64).to(dtype)
        return Step(distiller, frozen, dataset, objective, cached=name == "cached")

    return made


def assert_same(ours: tuple[Tensor, list[Tensor]], want: tuple[Tensor, list[Tensor]], tolerance: float) -> None:
    assert float(want[0]) > 0
    assert abs(float(ours[0] - want[0])) <= tolerance * float(want[0])
    mine, other = (torch.cat([grad.flatten().double() for grad in found[1]]) for found in (ours, want))
    assert float(other.norm()) > 0
    assert float((mine - other).norm() / other.norm()) <= tolerance


PRECISIONS = [
    pytest.param(torch.float64, 1e-10, id="float64"),
    pytest.param(torch.float32, 1e-5, id="float32"),
]


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
@pytest.mark.parametrize("name", OBJECTIVES)
def test_how_a_step_is_cut_does_not_matter(make: Make, name: str, dtype: torch.dtype, tolerance: float) -> None:
    step = make(name, dtype)
    whole = step.gradients([SAMPLES])
    tiled = make(name, dtype, tile_bytes=TILE)
    assert_same(tiled.gradients([SAMPLES]), whole, tolerance)
    assert_same(step.gradients([(number,) for number in SAMPLES]), whole, tolerance)
    assert_same(tiled.gradients([(4, 1), (), (0, 5, 3), (2,)]), whole, tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_number_of_ranks_does_not_matter(make: Make, name: str, dtype: torch.dtype, tolerance: float) -> None:
    """As a gang shares a step: each rank divides by the step's targets a rank, and gradients are averaged."""
    whole = make(name, dtype).gradients([SAMPLES])
    for world in (2, 3, 7):
        rank = make(name, dtype, normalizer=TARGETS / world)
        shares = spread(SAMPLES, rank.dataset.lengths, world, 30)
        found = [rank.gradients(share) for share in shares]
        loss = torch.stack([loss for loss, _ in found]).mean()
        grads = [torch.stack(parts).mean(0) for parts in zip(*(grads for _, grads in found), strict=True)]
        assert_same((loss, grads), whole, tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
@pytest.mark.parametrize("name", [name for name in OBJECTIVES if name != "attention"])
def test_packing_does_not_matter(make: Make, name: str, dtype: torch.dtype, tolerance: float) -> None:
    """Attention maps are compared in packed rows alone; there, a row with one sample stands for no packing above."""
    packed = make(name, dtype).gradients([SAMPLES])
    rows = make(name, dtype, packed=False)
    assert_same(rows.gradients([SAMPLES], packed=False), packed, tolerance)
    assert_same(rows.gradients([SAMPLES[:4], SAMPLES[4:]], packed=False), packed, tolerance)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_sample_takes_nothing_from_those_that_it_is_packed_with(make: Make, name: str) -> None:
    """Terms of each token, bit for bit what they are in other company, are those of the sample alone."""
    step = make(name, torch.float64)
    with torch.no_grad():
        batch = lay_out(step.dataset, SAMPLES, packed=True)
        _, together = step.distiller(batch, step.target(batch), step.objective)
        for number in SAMPLES:
            alone = lay_out(step.dataset, (number,), packed=True)
            _, terms = step.distiller(alone, step.target(alone), step.objective)
            for term, values_N in terms.items():
                theirs = together[term][batch.sample_of_N == number]
                torch.testing.assert_close(theirs, values_N, rtol=1e-10, atol=1e-12)


def test_the_projections_belong_to_the_distiller_and_not_to_the_student(make: Make) -> None:
    distiller = make("hidden-mse", torch.float32).distiller
    names = {name for name, _ in distiller.named_parameters() if not name.startswith("student.")}
    assert names == {"projections.0.weight", "projections.1.weight"}


def test_a_teacher_without_compared_layers_keeps_its_last_states_alone(make: Make) -> None:
    step = make("forward", torch.float32)
    batch = lay_out(step.dataset, SAMPLES, packed=True)
    given = step.target(batch)
    assert isinstance(given, TeacherStates)
    assert given.states is None
