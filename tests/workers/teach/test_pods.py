"""Pods of an Indexed Job write the logits side by side: real processes, a real store, one of them killed."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from dram_workers.results import Progress
from dram_workers.store.manifest import digest_of
from dram_workers.teach.shards import SHARD_TARGETS
from tests.workers.running import a_stage, run_stage, start_stage
from tests.workers.teach.teaching import IDENTITY, models, write_data


def long_rows(count: int) -> list[dict[str, object]]:
    """Completions of about a hundred tokens, no two alike."""
    words = ["the", "router", "bill", "plan", "signal", "light", "account", "contract", "roaming", "network"]
    texts = (" ".join(words[(n * 7 + i * i) % 10] for i in range(60)) for n in range(count))
    return [{"prompt": f"Question {n}?", "completion": f"{n} {text}"} for n, text in enumerate(texts)]


@pytest.mark.long
def test_pods_write_side_by_side_what_one_writes_alone(tmp_path: Path, tiny_teacher: Path) -> None:
    """The first of two pods is killed in its second shard, which alone is written again."""
    dataset = write_data(tmp_path, tiny_teacher, long_rows(700))
    targets = sum(json.loads(line)["targets"] for line in (dataset / "samples.jsonl").read_text().splitlines())
    assert 3 * SHARD_TARGETS < targets < 4 * SHARD_TARGETS
    inputs = {
        name: {"uri": path.as_uri(), "digest": digest_of(path)} for name, path in models(tiny_teacher, dataset).items()
    }
    execution = {"threads": 1}
    alone = run_stage(
        a_stage("teach", IDENTITY, tmp_path / "alone", inputs=inputs, execution=execution), tmp_path / "alone/run"
    )
    assert alone.message.result is not None, alone.log

    together = a_stage("teach", IDENTITY, tmp_path / "two", inputs=inputs, execution=execution | {"workers": 2})
    folders = [tmp_path / f"two/pod-{number}" for number in range(2)]
    configs = [together | {"execution": together["execution"] | {"scratch": str(folder)}} for folder in folders]
    pods = [{"JOB_COMPLETION_INDEX": str(number)} for number in range(2)]
    os.mkfifo(progress := tmp_path / "progress")
    with (
        start_stage(configs[0], folders[0], pods[0] | {"DRAM_PROGRESS_FILE": str(progress)}) as process,
        # open for writing too: a pipe whose writer closes it after every line would seem to end
        os.fdopen(os.open(progress, os.O_RDWR)) as reports,
    ):
        next(line for line in reports if Progress.model_validate_json(line).step > SHARD_TARGETS + 1000)
        process.kill()
    written = shards_in(tmp_path / "two")
    assert len(written) == 1

    second = run_stage(configs[1], folders[1], pods[1])
    assert (second.code, second.message.reason, second.message.result) == (0, "Completed", None), second.log
    first = run_stage(configs[0] | {"attempt": 2}, folders[0], pods[0])
    assert first.message.result is not None, first.log
    assert first.message.result.outputs == alone.message.result.outputs
    assert first.message.result.facts == alone.message.result.facts
    assert shards_in(tmp_path / "two").keys() == shards_in(tmp_path / "alone").keys()
    assert len(shards_in(tmp_path / "two")) == 4
    assert written.items() <= shards_in(tmp_path / "two").items()
    late = run_stage(configs[1] | {"attempt": 2}, folders[1], pods[1])
    assert late.message.result == first.message.result.model_copy(update={"cached": True})


def shards_in(folder: Path) -> dict[str, Any]:
    """Names of the shards and when they were written."""
    return {path.name: path.stat().st_mtime_ns for path in (folder / "store/cache").rglob("*.*") if path.is_file()}
