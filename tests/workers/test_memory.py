"""The estimate of a training's memory."""

from pathlib import Path
from typing import Any

import pytest

from dram_workers.memory import ModelSize, TrainingSetup, estimate
from tests.models import ModelShape, write_model
from tests.study.memory import Case, compare

SMOLLM2: dict[str, Any] = {
    "num_hidden_layers": 30,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "vocab_size": 49152,
    "tie_word_embeddings": True,
}
SIZE = ModelSize.of(SMOLLM2, 134_515_008)


def a_setup(**changes: Any) -> TrainingSetup:
    return TrainingSetup.model_validate({"batch_tokens": 800, "max_length": 100, "max_steps": 2} | changes)


def test_a_model_is_read_from_the_config_of_any_family() -> None:
    gpt2 = ModelSize.of({"n_layer": 12, "n_embd": 768, "n_head": 12, "vocab_size": 50257}, 124_000_000)
    assert (gpt2.layers, gpt2.hidden, gpt2.intermediate, gpt2.key_value_heads, gpt2.head_size) == (
        12,
        768,
        3072,
        12,
        64,
    )
    assert ModelSize.of({"text_config": SMOLLM2}, 1).layers == 30


def test_a_cut_student_has_the_parameters_of_the_layers_that_it_keeps() -> None:
    assert SIZE.cut(20).parameters == pytest.approx(99_114_048, rel=1e-5), "as a real cut of SmolLM2-135M counts them"
    assert SIZE.cut(None) is SIZE


@pytest.mark.parametrize(
    ("stage", "want"),
    [
        (0, {"weights": 4, "gradients": 4, "optimizer": 8}),
        (1, {"weights": 4, "gradients": 4, "optimizer": 2}),
        (2, {"weights": 4, "gradients": 1, "optimizer": 2}),
        (3, {"weights": 1, "gradients": 1, "optimizer": 2}),
    ],
)
def test_zero_shares_what_its_stage_says_over_four_ranks(stage: int, want: dict[str, int]) -> None:
    found = estimate(SIZE, SIZE, a_setup(zero_stage=stage, world=4)).certain
    share = {name: found[name] / SIZE.parameters for name in want}
    assert share == pytest.approx(want)


def test_ranks_of_one_pod_share_its_limit() -> None:
    one, two = (estimate(SIZE, SIZE, a_setup(world=2, ranks_in_pod=ranks)).total_bytes for ranks in (1, 2))
    assert two == 2 * one


def test_a_cached_teacher_is_not_loaded() -> None:
    online, cached = (estimate(SIZE, SIZE, a_setup(without_teacher=without)) for without in (False, True))
    assert online.certain["teacher"] == 2 * SIZE.parameters
    assert cached.certain["teacher"] == 0


@pytest.mark.parametrize("loss", ["attention_maps", "hidden_states"])
def test_a_loss_on_the_layers_inside_needs_more(loss: str) -> None:
    without, with_it = (estimate(SIZE, SIZE, a_setup(**{loss: on})).total_bytes for on in (False, True))
    assert with_it > without


def test_attention_maps_grow_with_the_square_of_the_length() -> None:
    def maps(length: int) -> int:
        setup = a_setup(attention_maps=True, batch_tokens=16, max_length=length, micro_batch_tokens=length)
        return estimate(SIZE, SIZE, setup).expected["attention maps"]

    assert maps(400) == pytest.approx(16 * maps(100), rel=0.5)


def test_the_sentence_names_every_part_with_its_size() -> None:
    found = estimate(SIZE, SIZE.cut(20), a_setup())
    assert found.sentence().startswith("weights 378 MiB, gradients 378 MiB, optimizer 756 MiB, teacher 257 MiB")
    assert "activations" in found.sentence()
    assert "ZeRO" not in found.sentence(), "what takes nothing is left out"


@pytest.mark.long
@pytest.mark.parametrize(
    "case",
    [
        Case(length=256, batch_tokens=4096),
        Case(length=256, batch_tokens=4096, precision="FP32"),
        Case(length=100, batch_tokens=800, world=2, zero_stage=2),
    ],
    ids=["autocast", "fp32", "two ranks"],
)
def test_the_estimate_is_near_the_peak_of_a_real_training(case: Case, medium_teacher: Path) -> None:
    want, got = compare(case, medium_teacher, 6)
    assert want == pytest.approx(got, rel=0.2), f"estimated {want:.0f} MiB, measured {got:.0f} MiB"


@pytest.fixture(scope="module")
def medium_teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Large enough that its weights and activations weigh as much as the libraries."""
    shape = ModelShape(layers=8, hidden=512, intermediate=1408, heads=8, key_value_heads=4)
    return write_model(tmp_path_factory.mktemp("models") / "medium", shape)
