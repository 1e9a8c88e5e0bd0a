"""Students cut from their teacher."""

import json
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, Qwen3Config, Qwen3ForCausalLM

from dram_workers.errors import BadInput, WorkerReason
from dram_workers.layers import kept_layers
from dram_workers.train.pretrained import load_model
from dram_workers.train.student import cut_from, save_student
from tests.models import ModelShape, write_model, write_tokenizer


@given(teacher=st.integers(1, 200), data=st.data())
def test_kept_layers_are_evenly_spaced(teacher: int, data: st.DataObject) -> None:
    layers = data.draw(st.integers(1, teacher))
    kept = kept_layers(teacher, layers)
    assert len(set(kept)) == layers
    assert kept[0] == 0
    assert layers == 1 or kept[-1] == teacher - 1
    gaps = {after - before for before, after in pairwise(kept)}
    assert not gaps or max(gaps) - min(gaps) <= 1


def test_known_cuts() -> None:
    assert kept_layers(30, 4) == (0, 10, 19, 29)
    assert kept_layers(5, 5) == (0, 1, 2, 3, 4)


def test_more_layers_than_the_teacher_has_are_refused() -> None:
    with pytest.raises(BadInput, match="asks for 31 layers, the teacher has 30") as caught:
        kept_layers(30, 31)
    assert caught.value.reason == WorkerReason.TOO_MANY_LAYERS
    assert caught.value.field == "spec.student.fromTeacher.layers"


@pytest.mark.parametrize("tied", [True, False])
def test_all_layers_are_the_teacher_itself(tmp_path: Path, tied: bool) -> None:
    folder = write_model(tmp_path / "teacher", ModelShape(tied=tied))
    teacher = load_model(folder, "auto", "spec.teacher.uri")
    student = cut_from(teacher, 4, "sdpa")
    student.train(mode=False)
    tokens = torch.arange(3, 30)[None]
    with torch.no_grad():
        assert torch.equal(student(tokens).logits, teacher(tokens).logits)


@pytest.mark.parametrize("tied", [True, False])
def test_a_saved_student_loads_as_it_was(tmp_path: Path, tied: bool) -> None:
    folder = write_model(tmp_path / "teacher", ModelShape(tied=tied))
    student = cut_from(load_model(folder, "auto", "spec.teacher.uri"), 2, "sdpa")
    student.train(mode=False)
    weights = {name: value.detach() for name, value in student.named_parameters()}
    save_student(student, weights, folder, tmp_path / "student")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "student")
    tokens = torch.arange(3, 30)[None]
    with torch.no_grad():
        assert torch.equal(again(tokens).logits, student(tokens).logits)
    assert again.generation_config.eos_token_id == 2
    assert (tmp_path / "student" / "tokenizer.json").read_bytes() == (folder / "tokenizer.json").read_bytes()
    assert not list((tmp_path / "student").glob("*.bin"))


def test_lists_with_an_entry_a_layer_are_cut_too(tmp_path: Path) -> None:
    config = Qwen3Config(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=4,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        layer_types=["full_attention", "sliding_attention", "full_attention", "sliding_attention"],
        sliding_window=8,
        use_sliding_window=True,
    )
    Qwen3ForCausalLM(config).save_pretrained(write_tokenizer(tmp_path))
    student = cut_from(load_model(tmp_path, "auto", "spec.teacher.uri"), 2, "sdpa")
    assert student.config.layer_types == ["full_attention", "sliding_attention"]


def test_a_folder_that_is_no_causal_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vit"}))
    with pytest.raises(BadInput, match="does not load as a causal language model") as caught:
        load_model(tmp_path, torch.float32, "spec.teacher.uri")
    assert caught.value.reason == WorkerReason.UNSUPPORTED_MODEL


def test_pickled_weights_are_never_read(tmp_path: Path) -> None:
    folder = write_model(tmp_path)
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(BadInput, match="does not load"):
        load_model(folder, torch.float32, "spec.teacher.uri")
