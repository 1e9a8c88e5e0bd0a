"""Hidden states, the way from them to logits, and what is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GraniteConfig,
    GraniteForCausalLM,
    PreTrainedModel,
)

from dram_workers.errors import BadInput
from dram_workers.train.attention import SEGMENTS
from dram_workers.train.batches import lay_out
from dram_workers.train.distiller import Distiller, Teacher, check_projection, projection_of, target_hidden
from dram_workers.train.losses import Objective, TeacherStates
from dram_workers.train.pretrained import load_model
from tests.models import ModelShape, write_model
from tests.workers.train.test_batches import a_dataset

SIZES: dict[str, Any] = {
    "vocab_size": 512,
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
}


def saved(model: PreTrainedModel, folder: Path, *, packed: bool) -> PreTrainedModel:
    model.save_pretrained(folder)
    return load_model(folder, torch.float32, "spec.teacher.uri", attention=SEGMENTS if packed else "sdpa")


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(lambda: GraniteForCausalLM(GraniteConfig(**SIZES, logits_scaling=8.0)), id="divided-logits"),
        pytest.param(lambda: CohereForCausalLM(CohereConfig(**SIZES, logit_scale=0.25)), id="scaled-logits"),
        pytest.param(
            lambda: Gemma2ForCausalLM(Gemma2Config(**SIZES, final_logit_softcapping=2.0, attn_logit_softcapping=None)),
            id="soft-capped-logits",
        ),
    ],
)
def test_heads_with_scale_or_cap_are_understood(tmp_path: Path, model: Callable[[], PreTrainedModel]) -> None:
    loaded = saved(model(), tmp_path, packed=True)
    check_projection(loaded, tmp_path, packed=True, field="spec.teacher.uri")


def test_a_head_of_its_own_kind_is_refused(tmp_path: Path) -> None:
    model = saved(GraniteForCausalLM(GraniteConfig(**SIZES, logits_scaling=8.0)), tmp_path, packed=True)
    model.register_forward_hook(lambda _module, _inputs, output: output | {"logits": output.logits + 1})
    with pytest.raises(BadInput, match="forms its logits in a way of its own"):
        check_projection(model, tmp_path, packed=True, field="spec.teacher.uri")


def test_a_model_that_cannot_be_packed_is_refused_and_can_go_unpacked(tmp_path: Path) -> None:
    config = GPT2Config(vocab_size=512, n_embd=32, n_layer=2, n_head=2, n_positions=64)
    unpacked = saved(GPT2LMHeadModel(config), tmp_path, packed=False)
    check_projection(unpacked, tmp_path, packed=False, field="spec.teacher.uri")
    capped = saved(
        Gemma2ForCausalLM(Gemma2Config(**SIZES, attn_logit_softcapping=50.0)), tmp_path / "gemma", packed=True
    )
    with pytest.raises(BadInput, match=r"cannot be run on packed samples.*soft cap"):
        check_projection(capped, tmp_path, packed=True, field="spec.teacher.uri")


def test_a_teachers_states_do_not_depend_on_the_batch(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model", ModelShape(vocabulary=1024))
    dataset = a_dataset(tmp_path / "data", [5, 9, 40, 7])
    teacher = Teacher(load_model(folder, torch.bfloat16, "f", attention=SEGMENTS), dataset, packed=True)
    first, _ = teacher.hidden(lay_out(dataset, (2, 0), packed=True))
    fresh = Teacher(load_model(folder, torch.bfloat16, "f", attention=SEGMENTS), dataset, packed=True)
    second, _ = fresh.hidden(lay_out(dataset, (1, 3, 2), packed=True))
    assert torch.equal(first[:20], second[-20:])


def test_the_loss_of_a_model_is_that_of_its_own_logits(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model", ModelShape(vocabulary=1024))
    dataset = a_dataset(tmp_path / "data", [5, 9, 40, 7])
    model = load_model(folder, torch.float32, "f", attention=SEGMENTS)
    batch = lay_out(dataset, (0, 1, 2, 3), packed=True)
    teacher = load_model(
        write_model(tmp_path / "teacher", ModelShape(vocabulary=1024), seed=1), torch.float32, "f", attention=SEGMENTS
    )
    hidden_NE = target_hidden(teacher, batch).detach()
    total, terms_N = Distiller(model)(
        batch, TeacherStates(projection_of(teacher), hidden_NE), Objective(1.0, 0.5, len(batch.labels_N))
    )
    logits = model(
        input_ids=batch.tokens_RL, position_ids=batch.positions_RL, segments=batch.segments, use_cache=False
    ).logits
    own = torch.nn.functional.cross_entropy(logits[0, batch.targets_N], batch.labels_N, reduction="none")
    torch.testing.assert_close(terms_N["hard"], own.detach(), rtol=1e-5, atol=1e-5)
    assert total.item() == pytest.approx(0.5 * sum(term_N.mean().item() for term_N in terms_N.values()), rel=1e-6)
