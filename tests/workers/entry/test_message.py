"""The termination message stays within what a container's status holds."""

import json
from pathlib import Path

import pytest

from dram_workers.message import MESSAGE_BYTES, TERMINATION_LOG, fit, write_message
from dram_workers.results import Output, StageMessage, StageResult


def largest_result() -> StageResult:
    outputs = {f"output-{number}": Output(digest="sha256:" + "0" * 64, path="p" * 22) for number in range(15)}
    result = StageResult(key="0" * 64, outputs=outputs)
    assert 1900 < len(result.model_dump_json(exclude_none=True, exclude_defaults=True)) <= 2048
    return result


@pytest.mark.parametrize("letter", ["a", '"', "é", "\n", "🙂", "\x00"])
def test_a_long_text_is_cut_whatever_it_consists_of(letter: str) -> None:
    body = fit(StageMessage(reason="r", message=letter * 9000, remedy=letter * 9000, result=largest_result()))
    assert len(body) <= MESSAGE_BYTES
    message = StageMessage.model_validate_json(body)
    assert message.result == largest_result()
    assert message.message.startswith(letter)
    assert message.message.endswith("…")


def test_a_short_message_is_left_alone() -> None:
    message = StageMessage(reason="Completed", message="fine", field="spec.x", remedy="none")
    assert json.loads(fit(message)) == {"reason": "Completed", "message": "fine", "field": "spec.x", "remedy": "none"}


def test_the_message_replaces_that_of_an_earlier_attempt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "termination-log"
    path.write_text("x" * 10_000)
    monkeypatch.setenv(TERMINATION_LOG, str(path))
    write_message(StageMessage(reason="Completed"))
    assert json.loads(path.read_text()) == {"reason": "Completed"}
