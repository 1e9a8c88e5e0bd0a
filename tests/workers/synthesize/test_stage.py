"""The synthesize stage as a whole."""

import json
from pathlib import Path
from typing import Any

import pytest

from dram_workers import synthesize
from dram_workers.context import StageOutcome
from dram_workers.data.sources import read_source
from dram_workers.data.tokenizer import ChatTokenizer
from dram_workers.errors import BadInput, Interrupted, WorkerReason
from dram_workers.stages import Execution, JobRef, SynthesizeConfig, SynthesizeIdentity
from dram_workers.store.manifest import digest_of
from tests.models import write_jsonl, write_model
from tests.workers.contexts import Remembered, a_context, store_settings

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
        execution=Execution(store=store_settings(folder)),
    )
    outcome = synthesize.run(config, context)
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
