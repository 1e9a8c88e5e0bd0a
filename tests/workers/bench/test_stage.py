"""The benchmark of a tiny file in real processes."""

import json
from pathlib import Path
from typing import Any

import pytest

from dram_workers import bench
from dram_workers.context import StageContext
from dram_workers.errors import BadInput, Interrupted, WorkerReason
from dram_workers.stages import BenchConfig, BenchIdentity, Execution, JobRef
from tests.models import write_jsonl
from tests.workers.contexts import Remembered, a_context, store_settings
from tests.workers.export.exporting import run_export

GOLDEN: list[dict[str, object]] = [
    {"id": str(number), "prompt": "Where is my bill? " * (number + 1)} for number in range(4)
]


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory, tiny_teacher: Path) -> Path:
    return run_export(tmp_path_factory.mktemp("bench"), tiny_teacher, "Q8_0").folders["artifact"]


def a_bench(folder: Path, artifact: Path, **identity: Any) -> tuple[BenchConfig, StageContext]:
    golden = write_jsonl(folder / "golden.jsonl", GOLDEN)
    execution = Execution(store=store_settings(folder))
    chosen = {"threads": 1, "context_tokens": 256, "answer_tokens": 4, "timings": 7} | identity
    config = BenchConfig(
        stage="bench",
        key="e" * 64,
        job=JobRef(namespace="n", name="j"),
        identity=BenchIdentity(variant="v", **chosen),
        execution=execution,
    )
    return config, a_context(folder, {"artifact": artifact, "golden": golden}, execution)


def test_every_figure_is_measured_and_described(tmp_path: Path, artifact: Path) -> None:
    config, context = a_bench(tmp_path, artifact)
    outcome = bench.run(config, context)
    found = {measure.name: measure for measure in outcome.measures}
    names = ("p50LatencyMs", "p95LatencyMs", "p99LatencyMs", "timeToFirstTokenMs", "tokensPerSecond")
    more = ("promptTokensPerSecond", "loadMs", "peakMemoryMiB")
    assert found.keys() - {"energyPerAnswerJ"} == {*names, *more}
    assert all(measure.value > 0 for measure in found.values())
    assert all(found[name].n == 7 for name in names)
    assert found["p95LatencyMs"].high is None
    assert found["loadMs"].n == 3
    timings = json.loads((outcome.folders["bench"] / "timings.json").read_text())
    assert timings["answer_tokens"] == [4] * 7
    assert len(set(timings["prompt_tokens"])) == 4
    assert timings["target"]["name"] == "worker"
    assert timings["target"]["cpu"]
    assert outcome.facts["processes"] == 3
    assert outcome.facts["answerTokens"] == 4
    assert isinstance(context.reporter, Remembered)
    assert context.reporter.reports[-1][:2] == (7, 7)


def test_memory_is_the_fresh_processes_own(tmp_path: Path, artifact: Path) -> None:
    """A process that once held much more starts the benchmark: none of that may be counted."""
    ballast = bytearray(800 * 2**20)
    ballast[:: 2**12] = b"x" * (len(ballast) // 2**12)
    config, context = a_bench(tmp_path, artifact, timings=1)
    peak = next(measure for measure in bench.run(config, context).measures if measure.name == "peakMemoryMiB")
    assert len(ballast) > 0
    assert 20 < peak.value < 400


def test_59_timings_prove_a_p95(tmp_path: Path, artifact: Path) -> None:
    config, context = a_bench(tmp_path, artifact, timings=59, answer_tokens=2)
    found = {measure.name: measure for measure in bench.run(config, context).measures}
    assert found["p95LatencyMs"].high is not None
    assert found["p99LatencyMs"].high is None


def test_a_prompt_longer_than_the_context_is_shortened(tmp_path: Path, artifact: Path) -> None:
    config, context = a_bench(tmp_path, artifact, timings=1)
    write_jsonl(tmp_path / "golden.jsonl", [{"id": "long", "prompt": "Where is my bill? " * 500}])
    bench.run(config, context)
    timings = json.loads((context.work / "bench" / "timings.json").read_text())
    assert timings["prompt_tokens"] == [252]


def test_a_broken_file_is_refused(tmp_path: Path) -> None:
    broken = tmp_path / "artifact"
    broken.mkdir()
    (broken / "model.gguf").write_bytes(b"GGUF")
    config, context = a_bench(tmp_path, broken)
    with pytest.raises(BadInput) as caught:
        bench.run(config, context)
    assert caught.value.reason == WorkerReason.RUNTIME_REFUSED


def test_it_stops_when_told(tmp_path: Path, artifact: Path) -> None:
    config, context = a_bench(tmp_path, artifact)
    context.stopping.set()
    with pytest.raises(Interrupted):
        bench.run(config, context)
