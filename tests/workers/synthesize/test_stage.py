"""The synthesize stage as a whole."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from dram_workers import synthesize
from dram_workers.context import StageOutcome
from dram_workers.data.sources import read_source
from dram_workers.data.tokenizer import ChatTokenizer
from dram_workers.errors import BadInput, Interrupted, Transient, WorkerReason
from dram_workers.results import Progress
from dram_workers.stages import JobRef, SynthesizeConfig, SynthesizeIdentity, TeacherExecution
from dram_workers.store.manifest import digest_of
from tests.models import write_jsonl, write_model
from tests.workers.contexts import Remembered, a_context, store_settings
from tests.workers.running import a_stage, run_stage, start_stage

ROWS: list[dict[str, object]] = [
    {"prompt": "How do I reset the router?"},
    {"messages": [{"role": "system", "content": "Be short."}, {"role": "user", "content": "What does it cost?"}]},
    {"prompt": "Where is my bill?"},
]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("teacher"))


def run(
    folder: Path, teacher: Path, rows: list[dict[str, object]], *, stopping: bool = False, **identity: object
) -> StageOutcome:
    context = a_context(folder, {"teacher": teacher, "prompts": write_jsonl(folder / "prompts.jsonl", rows)})
    if stopping:
        context.stopping.set()
    config = SynthesizeConfig(
        stage="synthesize",
        key="b" * 64,
        job=JobRef(namespace="n", name="j"),
        identity=SynthesizeIdentity.model_validate({"max_new_tokens": 12, **identity}),
        execution=TeacherExecution(store=store_settings(folder)),
    )
    outcome = synthesize.run(config, context)
    assert outcome is not None
    assert isinstance(context.reporter, Remembered)
    assert context.reporter.reports[-1][1] == outcome.facts["prompts"] * config.identity.responses_per_prompt
    return outcome


def read_rows(outcome: StageOutcome) -> list[dict[str, object]]:
    return [json.loads(line) for line in (outcome.folders["samples"] / "samples.jsonl").read_text().splitlines()]


def test_answers_come_in_the_order_and_form_of_their_prompts(tmp_path: Path, teacher: Path) -> None:
    outcome = run(tmp_path, teacher, ROWS)
    first, second, third = read_rows(outcome)
    assert (first["prompt"], third["prompt"]) == (ROWS[0]["prompt"], ROWS[2]["prompt"])
    messages = second["messages"]
    assert isinstance(messages, list)
    assert messages[:2] == ROWS[1]["messages"]
    assert messages[2]["role"] == "assistant"
    assert outcome.facts["answers"] == 3


def test_the_data_stage_reads_what_the_teacher_wrote(tmp_path: Path, teacher: Path) -> None:
    outcome = run(tmp_path, teacher, ROWS)
    records = list(read_source(outcome.folders["samples"], source="synthetic", weight=1, field="spec.dataset"))
    assert len(records) == 3
    unfinished = sum(not record.finished for record in records)
    assert unfinished > 0
    assert unfinished == outcome.facts["unfinishedAnswers"]


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path, teacher: Path) -> None:
    same: dict[str, Any] = {"temperature": 0.8, "responses_per_prompt": 3, "seed": 5}
    first = run(tmp_path / "1", teacher, ROWS, **same)
    second = run(tmp_path / "2", teacher, ROWS, **same)
    other = run(tmp_path / "3", teacher, ROWS, **{**same, "seed": 6})
    assert len(read_rows(first)) == 9
    assert digest_of(first.folders["samples"]) == digest_of(second.folders["samples"])
    assert digest_of(first.folders["samples"]) != digest_of(other.folders["samples"])


def test_an_answer_begins_where_the_prompt_ends(tmp_path: Path, teacher: Path) -> None:
    tokenizer = ChatTokenizer.load(teacher)
    ids = tokenizer.prompt_ids([{"role": "user", "content": "Hi"}])
    assert tokenizer.backend.decode(ids, skip_special_tokens=False).endswith("<|im_start|>assistant\n")


def test_a_prompts_file_without_prompts_is_refused(tmp_path: Path, teacher: Path) -> None:
    with pytest.raises(BadInput, match="holds no prompt") as caught:
        run(tmp_path, teacher, [])
    assert caught.value.reason == WorkerReason.EMPTY_DATASET
    assert caught.value.field == "spec.dataset.synthetic.promptsUri"


def test_an_answer_beyond_the_teachers_context_is_refused(tmp_path: Path, teacher: Path) -> None:
    with pytest.raises(BadInput, match="the teacher has 512"):
        run(tmp_path, teacher, ROWS, max_new_tokens=600)


def test_a_stop_is_obeyed(tmp_path: Path, teacher: Path) -> None:
    with pytest.raises(Interrupted):
        run(tmp_path, teacher, ROWS, stopping=True)


def test_finished_batches_are_not_written_again(tmp_path: Path, teacher: Path) -> None:
    first = run(tmp_path, teacher, ROWS)
    shutil.rmtree(first.folders["samples"])
    (part,) = (tmp_path / "store").rglob("000000.*")
    (teacher_gone := tmp_path / "teacher").mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "config.json"):
        if (teacher / name).is_file():
            shutil.copyfile(teacher / name, teacher_gone / name)
    again = run(tmp_path, teacher_gone, ROWS)
    assert again.facts == first.facts
    part.write_bytes(part.read_bytes().replace(b"true", b"null").replace(b"false", b"true "))
    shutil.rmtree(again.folders["samples"])
    with pytest.raises(Transient, match="was damaged, and is removed") as caught:
        run(tmp_path, teacher_gone, ROWS)
    assert caught.value.reason == WorkerReason.PART_LOST
    assert not part.exists()
    assert run(tmp_path, teacher, ROWS).facts == first.facts


@pytest.mark.long
def test_pods_write_side_by_side_what_one_writes_alone(tmp_path: Path, teacher: Path) -> None:
    """The first of two pods is killed in its second batch, which alone is written again."""
    prompts = write_jsonl(tmp_path / "prompts.jsonl", [{"prompt": f"Question {number}?"} for number in range(70)])
    paths = {"teacher": teacher, "prompts": prompts}
    inputs = {name: {"uri": path.as_uri(), "digest": digest_of(path)} for name, path in paths.items()}
    identity = {"maxNewTokens": 8, "temperature": 0.7}
    alone = run_stage(a_stage("synthesize", identity, tmp_path / "alone", inputs=inputs), tmp_path / "alone/run")
    assert alone.message.result is not None, alone.log

    together = a_stage("synthesize", identity, tmp_path / "two", inputs=inputs, execution={"workers": 2})
    folders = [tmp_path / f"two/pod-{number}" for number in range(2)]
    configs = [together | {"execution": together["execution"] | {"scratch": str(folder)}} for folder in folders]
    pods = [{"JOB_COMPLETION_INDEX": str(number)} for number in range(2)]
    os.mkfifo(progress := tmp_path / "progress")
    with (
        start_stage(configs[0], folders[0], pods[0] | {"DRAM_PROGRESS_FILE": str(progress)}) as process,
        # open for writing too: a pipe whose writer closes it after every line would seem to end
        os.fdopen(os.open(progress, os.O_RDWR)) as reports,
    ):
        next(line for line in reports if Progress.model_validate_json(line).metrics["tokens"] > 32 * 8)
        process.kill()
    written = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "two/store").rglob("parts/*")}
    assert [name[:6] for name in written] == ["000000"]

    second = run_stage(configs[1], folders[1], pods[1])
    assert (second.code, second.message.reason, second.message.result) == (0, "Completed", None), second.log
    first = run_stage(configs[0] | {"attempt": 2}, folders[0], pods[0])
    assert first.message.result is not None, first.log
    assert first.message.result.outputs == alone.message.result.outputs
    assert first.message.result.facts == alone.message.result.facts
    kept = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "two/store").rglob("parts/*")}
    assert len(kept) == 3
    assert written.items() <= kept.items()
    late = run_stage(configs[1] | {"attempt": 2}, folders[1], pods[1])
    assert late.message.result == first.message.result.model_copy(update={"cached": True})
