"""The sample of `dram selftest`: a real model, tokenizer and data, made without torch."""

import json
from pathlib import Path
from typing import Any

import pytest

from dram_operator.local.sample import GOLDEN_ROWS, TRAINING_ROWS, sample_spec, write_sample
from tests.builders import AJob
from tests.operator.local.tiny import TinyJob
from tests.workers.export.exporting import exported


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sample")
    write_sample(folder)
    return folder


def test_it_is_the_same_every_time(sample: Path, tmp_path: Path) -> None:
    write_sample(tmp_path)
    files = [path.relative_to(sample) for path in sorted(sample.rglob("*")) if path.is_file()]
    assert len(files) == 6
    for file in files:
        assert (tmp_path / file).read_bytes() == (sample / file).read_bytes()


def test_transformers_loads_every_weight_and_the_tokenizer_returns_its_text(sample: Path) -> None:
    from transformers import AutoTokenizer, LlamaForCausalLM

    loaded: Any = LlamaForCausalLM.from_pretrained(sample / "teacher", output_loading_info=True)
    model, told = loaded
    assert not any(told.values())
    tokenizer = AutoTokenizer.from_pretrained(sample / "teacher")
    text = "the round router, 42 äöü – ñ"
    tokens = tokenizer.encode(text, add_special_tokens=False)
    assert tokenizer.decode(tokens) == text
    assert len(tokens) < len(text.encode())
    assert max(tokens) < model.config.vocab_size


def test_it_becomes_a_file_that_llama_cpp_reads_alike(sample: Path, tmp_path: Path) -> None:
    assert exported(tmp_path, sample / "teacher", "Q8_0").stat().st_size < 1 << 20


def test_its_golden_questions_are_not_among_its_data(sample: Path) -> None:
    data, golden = (
        [json.loads(line)["prompt"] for line in (sample / name).read_text().splitlines()]
        for name in ("data.jsonl", "golden.jsonl")
    )
    assert (len(set(data)), len(set(golden))) == (TRAINING_ROWS, GOLDEN_ROWS)
    assert not set(data) & set(golden)


@pytest.mark.long
def test_a_job_with_it_goes_through_every_stage(sample: Path, tmp_path: Path) -> None:
    uri = "s3://site/dram-selftest-1"
    job = TinyJob(tmp_path, AJob(sample_spec(uri, {"uri": uri}), {"name": "tiny"}))
    done = job.run("--map", f"{uri}={sample}")
    assert done.exit_code == 0, done.output
