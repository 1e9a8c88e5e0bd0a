"""Training text from a teacher behind an endpoint."""

import json
from pathlib import Path
from typing import Any

import pytest

from dram_workers import synthesize
from dram_workers.context import StageOutcome
from dram_workers.errors import BadInput, NoPermission, WorkerReason
from dram_workers.stages import JobRef, SynthesizeConfig, SynthesizeIdentity, TeacherExecution
from dram_workers.synthesize.answers import BATCH
from tests.models import write_jsonl
from tests.workers.chat_server import ChatServer, Fault
from tests.workers.contexts import a_context, store_settings

SYSTEM = {"role": "system", "content": "Be short."}


def run(folder: Path, server: ChatServer, rows: list[dict[str, object]], **identity: Any) -> StageOutcome:
    context = a_context(folder, {"prompts": write_jsonl(folder / "prompts.jsonl", rows)})
    config = SynthesizeConfig(
        stage="synthesize",
        key="b" * 64,
        job=JobRef(namespace="n", name="j"),
        identity=SynthesizeIdentity.model_validate({"endpoint": server.model(), "max_new_tokens": 8, **identity}),
        execution=TeacherExecution(store=store_settings(folder), endpoint_concurrency=4),
    )
    outcome = synthesize.run(config, context)
    assert outcome is not None
    return outcome


def read_rows(outcome: StageOutcome) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (outcome.folders["samples"] / "samples.jsonl").read_text().splitlines()]


def prompts(count: int) -> list[dict[str, object]]:
    return [{"prompt": f"Question {number}?"} for number in range(count)]


def test_conversations_are_asked_as_they_stand_and_answers_keep_their_order(
    tmp_path: Path, chat_server: ChatServer
) -> None:
    turns = [SYSTEM, {"role": "user", "content": "What does it cost?"}]
    outcome = run(tmp_path, chat_server, [*prompts(5), {"messages": turns}])
    found = read_rows(outcome)
    assert [row.get("prompt") for row in found] == [f"Question {number}?" for number in range(5)] + [None]
    assert found[5]["messages"][:2] == turns
    assert turns in [request["messages"] for request in chat_server.requests]
    unfinished = sum(row.get("finished") is False for row in found)
    assert 0 < unfinished == outcome.facts["unfinishedAnswers"]
    assert unfinished * 8 <= int(outcome.facts["tokens"]) <= 6 * 8


def test_responses_to_one_prompt_differ_and_are_the_same_the_next_time(tmp_path: Path, chat_server: ChatServer) -> None:
    same: dict[str, Any] = {"responses_per_prompt": 3, "temperature": 1.5, "seed": 4}
    first, second = (read_rows(run(tmp_path / name, chat_server, prompts(2), **same)) for name in ("1", "2"))
    assert first == second
    assert len({row["completion"] for row in first[:3]}) > 1


def test_answers_that_were_paid_for_are_kept(tmp_path: Path, chat_server: ChatServer) -> None:
    many = prompts(2 * BATCH)
    chat_server.refuse_from = BATCH + 8
    with pytest.raises(NoPermission):
        run(tmp_path, chat_server, many)
    chat_server.refuse_from = None
    asked_before = len(chat_server.requests)
    assert len(read_rows(run(tmp_path, chat_server, many))) == 2 * BATCH
    assert len(chat_server.requests) - asked_before == BATCH


def test_a_teacher_that_says_nothing_is_refused(tmp_path: Path, chat_server: ChatServer) -> None:
    silent = {"choices": [{"message": {"content": None}, "finish_reason": "length"}]}
    chat_server.faults += [Fault(200, silent)] * 2
    with pytest.raises(BadInput, match="every prompt with no text") as caught:
        run(tmp_path, chat_server, prompts(2))
    assert (caught.value.reason, caught.value.field) == (
        WorkerReason.EMPTY_ANSWER, "spec.dataset.synthetic.maxNewTokens",
    )  # fmt: skip
