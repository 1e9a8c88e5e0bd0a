"""The export stage as a whole."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGUFReader
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from dram_workers.errors import BadInput, Interrupted, WorkerReason
from dram_workers.export import file_name
from dram_workers.export.checkpoint import Checkpoint
from dram_workers.export.gguf_file import plan_tensors
from dram_workers.export.proof import fuzz_texts
from dram_workers.llamacpp import LlamaModel, LlamaSession
from dram_workers.stages import Execution, ExportConfig, ExportIdentity, GgufType, JobRef
from dram_workers.store.manifest import file_sha256
from tests.models import ModelShape, write_model
from tests.tools.quantizer_models import MADE_MODELS, write_made_model
from tests.workers.contexts import a_context, store_settings
from tests.workers.export.exporting import exported, run_export


def test_the_file_is_named_sized_and_described(tmp_path: Path, tiny_teacher: Path) -> None:
    outcome = run_export(tmp_path, tiny_teacher, "Q4_K_M", name="support bot/v7")
    path = outcome.folders["artifact"] / "support-bot-v7-Q4_K_M.gguf"
    size, bits = outcome.measures
    assert (size.name, size.value, size.unit) == ("sizeMiB", path.stat().st_size / 2**20, "MiB")
    assert (bits.name, bits.unit) == ("bitsPerWeight", "bit")
    reader = GGUFReader(path)
    weights = sum(int(each.n_elements) for each in reader.tensors)
    assert bits.value == pytest.approx(8 * sum(int(each.n_bytes) for each in reader.tensors) / weights)
    assert outcome.facts["tensors"] == len(reader.tensors)
    assert outcome.facts["preTokenizer"] == "smollm"
    fields = {key: field.contents() for key, field in reader.fields.items()}
    assert fields["general.name"] == "support bot/v7"
    assert fields["general.file_type"] == 15
    assert fields["llama.block_count"] == 4


def test_tied_weights_are_stored_once_and_untied_twice(tmp_path: Path, tiny_teacher: Path) -> None:
    untied = write_model(tmp_path / "untied", ModelShape(tied=False))
    for folder, want in ((tiny_teacher, False), (untied, True)):
        reader = GGUFReader(exported(tmp_path / f"out-{want}", folder, "Q8_0"))
        assert ("output.weight" in {each.name for each in reader.tensors}) is want


@pytest.mark.parametrize("kind", ["F16", "Q4_K_M"])
def test_the_same_student_gives_the_same_bytes_whatever_the_threads(
    tmp_path: Path, tiny_teacher: Path, kind: str
) -> None:
    again = shutil.copytree(tiny_teacher, tmp_path / "moved")
    first = run_export(tmp_path / "a", tiny_teacher, kind, threads=1)
    second = run_export(tmp_path / "b", again, kind, threads=2)
    digests = {file_sha256(next(outcome.folders["artifact"].iterdir())) for outcome in (first, second)}
    assert len(digests) == 1


def test_shards_and_narrow_floats_give_the_same_file(tmp_path: Path) -> None:
    whole = write_model(tmp_path / "whole")
    tensors = {name: tensor.to(torch.bfloat16) for name, tensor in load_file(whole / "model.safetensors").items()}
    save_file(tensors, whole / "model.safetensors")
    sharded = shutil.copytree(whole, tmp_path / "sharded")
    (sharded / "model.safetensors").unlink()
    for number, names in enumerate((sorted(tensors)[:7], sorted(tensors)[7:])):
        save_file({name: tensors[name] for name in names}, sharded / f"model-{number}.safetensors")
    wide = shutil.copytree(whole, tmp_path / "wide")
    save_file({name: tensor.float() for name, tensor in tensors.items()}, wide / "model.safetensors")
    assert (
        len({file_sha256(exported(tmp_path / path.name / "out", path, "Q8_0")) for path in (whole, sharded, wide)}) == 1
    )


@pytest.mark.parametrize("name", ["wide", "untied", "qwen2", "qwen3", "llama3-rope"])
def test_the_runtime_computes_what_torch_computes(tmp_path: Path, name: str) -> None:
    folder = write_made_model(tmp_path / name, MADE_MODELS[name])
    tokens = list(range(5, 300, 3))
    with torch.inference_mode():
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        want_TV = model(torch.tensor([tokens])).logits[0, :-1].numpy()
    path = exported(tmp_path, folder, "F16")
    with LlamaModel(path) as loaded, LlamaSession(loaded, context_tokens=256, threads=1) as session:
        got_TV = session.answer_logits(tokens[:1], tokens[1:])
    assert np.abs(got_TV - want_TV).max() < 0.02 * np.abs(want_TV).max()
    assert (got_TV.argmax(1) == want_TV.argmax(1)).mean() > 0.95


def test_the_runtime_reads_text_as_transformers_does(tmp_path: Path, tiny_teacher: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_teacher)
    with LlamaModel(exported(tmp_path, tiny_teacher, "Q8_0")) as model:
        for text in fuzz_texts(("<|im_start|>", "<|im_end|>"), composed=False):
            assert model.tokenize(text) == tokenizer(text, add_special_tokens=False)["input_ids"], text
        assert (model.bos, model.eos) == (tokenizer.bos_token_id, tokenizer.eos_token_id)
        assert model.chat_template == tokenizer.chat_template


def test_embedding_rows_beyond_the_tokenizer_are_padding(tmp_path: Path) -> None:
    padded = write_model(tmp_path / "padded", ModelShape(vocabulary=1024))
    with LlamaModel(exported(tmp_path, padded, "Q8_0")) as model:
        assert model.vocabulary == 1024
        assert model.text_of(1023) == "[PAD1023]"


def change_json(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("changes", "want"),
    [
        ({"architectures": ["GPT2LMHeadModel"]}, "GPT2LMHeadModel"),
        ({"hidden_act": "gelu"}, "gelu"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 4.0}}, "yarn"),
        ({"tie_word_embeddings": False}, "no lm_head.weight"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantized already"),
    ],
)
def test_a_model_that_llama_cpp_would_read_wrongly_is_refused(
    tmp_path: Path, tiny_teacher: Path, changes: dict[str, object], want: str
) -> None:
    folder = shutil.copytree(tiny_teacher, tmp_path / "changed")
    change_json(folder / "config.json", **changes)
    with pytest.raises(BadInput, match=want) as caught:
        run_export(tmp_path, folder, "Q8_0")
    assert caught.value.reason == WorkerReason.UNSUPPORTED_MODEL
    assert caught.value.remedy


def test_the_refusal_names_what_is_supported(tmp_path: Path, tiny_teacher: Path) -> None:
    folder = shutil.copytree(tiny_teacher, tmp_path / "changed")
    change_json(folder / "config.json", architectures=["GPT2LMHeadModel"])
    with pytest.raises(BadInput) as caught:
        run_export(tmp_path, folder, "Q8_0")
    assert caught.value.remedy == "use one of LlamaForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM"


def test_an_unknown_tensor_is_refused(tmp_path: Path, tiny_teacher: Path) -> None:
    folder = shutil.copytree(tiny_teacher, tmp_path / "changed")
    tensors = load_file(folder / "model.safetensors")
    save_file(tensors | {"model.layers.0.mlp.experts.0.weight": torch.zeros(2, 2)}, folder / "model.safetensors")
    with pytest.raises(BadInput, match=r"mlp\.experts\.0\.weight"):
        run_export(tmp_path, folder, "Q8_0")


@pytest.mark.parametrize(("kind", "value"), [("F16", 1e6), ("Q8_0", float("nan")), ("Q4_K_M", float("inf"))])
def test_values_that_do_not_fit_are_refused(tmp_path: Path, tiny_teacher: Path, kind: str, value: float) -> None:
    folder = shutil.copytree(tiny_teacher, tmp_path / "changed")
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"][3, 5] = value
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(BadInput, match=r"blk\.1\.ffn_up\.weight .* not finite") as caught:
        run_export(tmp_path, folder, kind)
    assert caught.value.reason == WorkerReason.CONVERSION_UNPROVEN


def test_a_folder_without_weights_is_no_model(tmp_path: Path, tiny_teacher: Path) -> None:
    folder = shutil.copytree(tiny_teacher, tmp_path / "empty")
    (folder / "model.safetensors").unlink()
    with pytest.raises(BadInput) as caught:
        run_export(tmp_path, folder, "Q8_0")
    assert caught.value.reason == WorkerReason.MODEL_NOT_FOUND


def test_it_stops_between_two_tensors_when_told(tmp_path: Path, tiny_teacher: Path) -> None:
    execution = Execution(store=store_settings(tmp_path))
    context = a_context(tmp_path, {"student": tiny_teacher}, execution)
    context.stopping.set()
    identity = ExportIdentity(variant="v", gguf=GgufType.Q8_0, model_name="m")
    from dram_workers import export

    config = ExportConfig(
        stage="e", key="0" * 64, job=JobRef(namespace="n", name="j"), identity=identity, execution=execution
    )
    with pytest.raises(Interrupted):
        export.run(config, context)


def test_export_and_bench_need_no_torch_and_no_kind_needs_it_to_be_found() -> None:
    """Imports alone, in a process of their own: what a cached stage and a torch-free stage pay."""
    program = """
import sys
import dram_workers.evaluate
import dram_workers.bench.child
import dram_workers.export.gguf_file, dram_workers.export.proof
sys.exit(" ".join({"torch", "transformers", "scipy"} & sys.modules.keys()) or 0)
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize(
    ("name", "want"),
    [
        ("support-bot", "support-bot-F16.gguf"),
        ("a b/c", "a-b-c-F16.gguf"),
        ("..", "model-F16.gguf"),
        ("é", "model-F16.gguf"),
    ],
)
def test_file_names_are_plain(name: str, want: str) -> None:
    assert file_name(name, "F16") == want


def test_bits_per_weight_show_the_fallback(tmp_path: Path) -> None:
    wide = plan_tensors(Checkpoint(write_made_model(tmp_path / "wide", MADE_MODELS["wide"])), GgufType.Q4_K_M)
    narrow = plan_tensors(Checkpoint(write_made_model(tmp_path / "fallback", MADE_MODELS["fallback"])), GgufType.Q4_K_M)
    assert wide.bits_per_weight < 5.1
    assert narrow.bits_per_weight > 5.9
