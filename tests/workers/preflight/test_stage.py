"""The untrained student of a tiny teacher, exported and measured for real."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from dram_workers import preflight
from dram_workers.context import StageContext
from dram_workers.errors import BadInput, WorkerReason
from dram_workers.stages import (
    BenchIdentity,
    Execution,
    ExportIdentity,
    GgufType,
    JobRef,
    PreflightConfig,
    PreflightIdentity,
)
from tests.models import ModelShape, write_jsonl, write_model
from tests.workers.contexts import a_context, store_settings
from tests.workers.export.exporting import exported

GOLDEN: list[dict[str, object]] = [{"id": str(n), "prompt": "Where is my bill? " * (n + 1)} for n in range(3)]


def a_preflight(folder: Path, model: Path, layers: int | None) -> tuple[PreflightConfig, StageContext]:
    golden = write_jsonl(folder / "golden.jsonl", GOLDEN)
    execution = Execution(store=store_settings(folder), threads=1)
    identity = PreflightIdentity(
        layers=layers,
        export=ExportIdentity(variant="v", gguf=GgufType.Q8_0, model_name="support-bot"),
        bench=BenchIdentity(variant="v", threads=1, context_tokens=256, answer_tokens=4, timings=5, processes=1),
    )
    config = PreflightConfig(
        stage="preflight-v", key="f" * 64, job=JobRef(namespace="n", name="j"), identity=identity, execution=execution
    )
    source = "student" if layers is None else "teacher"
    return config, a_context(folder, {source: model, "golden": golden}, execution)


def test_the_figures_of_a_cut_student_are_those_that_the_gates_ask_for(tmp_path: Path, tiny_teacher: Path) -> None:
    config, context = a_preflight(tmp_path, tiny_teacher, 2)
    outcome = preflight.run(config, context)
    found = {measure.name: measure for measure in outcome.measures}
    assert found.keys() == {"sizeMiB", "p95LatencyMs", "p99LatencyMs", "peakMemoryMiB", "tokensPerSecond"}
    assert found["tokensPerSecond"].high is not None, "a speed that is certainly too low can be told"
    assert found["p95LatencyMs"].low is not None, "a latency that is certainly too high can be told"
    assert found["p95LatencyMs"].high is None, "a latency is never proven good enough"
    timings = json.loads((outcome.folders["bench"] / "timings.json").read_text())
    assert len(timings["load_seconds"]) == 1
    assert set(outcome.folders) == {"bench"}, "the untrained file is not kept"


def test_it_exports_the_very_file_that_training_by_no_step_would(tmp_path: Path, tiny_teacher: Path) -> None:
    """The student that training cuts, saved and exported, byte for byte."""
    import torch

    from dram_workers.train.pretrained import load_model
    from dram_workers.train.student import cut_from, save_student

    student = cut_from(load_model(tiny_teacher, torch.float32, "spec.teacher.uri"), 2, "sdpa")
    weights = {name: value.detach() for name, value in student.named_parameters()}
    save_student(student, weights, tiny_teacher, tmp_path / "student")
    want = exported(tmp_path / "want", tmp_path / "student", "Q8_0")
    config, context = a_preflight(tmp_path / "got", tiny_teacher, 2)
    preflight.run(config, context)
    (got,) = (context.work / "artifact").glob("*.gguf")
    assert got.name == want.name
    assert hashlib.sha256(got.read_bytes()).digest() == hashlib.sha256(want.read_bytes()).digest()


def test_a_student_of_its_own_is_taken_as_it_is(tmp_path: Path, tiny_teacher: Path) -> None:
    config, context = a_preflight(tmp_path, tiny_teacher, None)
    sizes = [measure.value for measure in preflight.run(config, context).measures if measure.name == "sizeMiB"]
    cut, cut_context = a_preflight(tmp_path / "cut", tiny_teacher, 2)
    smaller = [measure.value for measure in preflight.run(cut, cut_context).measures if measure.name == "sizeMiB"]
    assert sizes > smaller


def test_a_family_that_the_format_does_not_know_is_refused(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model", ModelShape(layers=2))
    config_file = model / "config.json"
    content = json.loads(config_file.read_text())
    content["architectures"] = ["GPT2LMHeadModel"]
    content["n_layer"] = content.pop("num_hidden_layers")
    config_file.write_text(json.dumps(content))
    config, context = a_preflight(tmp_path, model, 1)
    with pytest.raises(BadInput) as caught:
        preflight.run(config, context)
    assert caught.value.reason == WorkerReason.UNSUPPORTED_MODEL
    assert "GPT2LMHeadModel" in caught.value.message


def test_more_layers_than_the_teacher_has_are_refused(tmp_path: Path, tiny_teacher: Path) -> None:
    config, context = a_preflight(tmp_path, tiny_teacher, 9)
    with pytest.raises(BadInput) as caught:
        preflight.run(config, context)
    assert caught.value.reason == WorkerReason.TOO_MANY_LAYERS


def test_it_loads_no_torch(tmp_path: Path, tiny_teacher: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from tests.workers.preflight.test_stage import a_preflight;"
        "from dram_workers import preflight;"
        "preflight.run(*a_preflight(Path(sys.argv[1]), Path(sys.argv[2]), 2));"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path), str(tiny_teacher)], check=True)
