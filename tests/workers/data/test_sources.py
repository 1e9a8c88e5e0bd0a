"""Training text as users write it, and how its mistakes are named."""

from pathlib import Path

import pytest

from dram_workers.data.sources import Record, read_prompts, read_source
from dram_workers.errors import BadInput, WorkerReason

GOOD = '{"prompt": "a", "completion": "b"}'


def read(path: Path) -> list[Record]:
    return list(read_source(path, source="s3://b/s", weight=2.0, field="spec.dataset.sources[0].uri"))


def test_both_forms_give_conversations(tmp_path: Path) -> None:
    chat = '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "id": 7}'
    (tmp_path / "x.jsonl").write_text(f"{GOOD}\n\n{chat}\n")
    first, second = read(tmp_path / "x.jsonl")
    assert first.messages == second.messages == (("user", "a"), ("assistant", "b"))
    assert first.content == second.content
    assert (first.place, second.place) == ("x.jsonl, line 1", "x.jsonl, line 3")


def test_a_folder_is_read_in_the_order_of_its_paths(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "1.jsonl").write_text(GOOD)
    (tmp_path / "a.txt").write_text("Plain text.")
    (tmp_path / "LICENSE").write_text("not training text")
    assert [record.place for record in read(tmp_path)] == ["a.txt", "b/1.jsonl, line 1"]


@pytest.mark.parametrize(
    ("line", "want_message"),
    [
        ("{", "not JSON"),
        ("[]", "a line is a JSON object, not list"),
        ('{"prompt": "a"}', "completion must be a text that is not empty, found null"),
        ('{"prompt": 3, "completion": "b"}', "prompt must be a text that is not empty, found 3"),
        ('{"prompt": "a", "completion": "  "}', "completion must be a text"),
        ('{"messages": []}', "messages must be a list that is not empty"),
        ('{"messages": [3]}', r"messages\[0\].role must be one of system, user, assistant, found null"),
        ('{"messages": [{"role": "bot", "content": "x"}]}', 'found "bot"'),
        ('{"messages": [{"role": "user", "content": 1}]}', r"messages\[0\].content must be a text, found 1"),
        ('{"messages": [{"role": "user", "content": "x"}]}', "no assistant turn"),
        ('{"messages": [{"role": "assistant", "content": "x"}]}', "must not begin with an assistant turn"),
    ],
)
def test_a_malformed_line_is_named_by_file_and_number(tmp_path: Path, line: str, want_message: str) -> None:
    (tmp_path / "x.jsonl").write_text(f"{GOOD}\n{line}\n{GOOD}\n")
    with pytest.raises(BadInput, match=want_message) as caught:
        read(tmp_path / "x.jsonl")
    assert caught.value.reason == WorkerReason.MALFORMED_LINE
    assert caught.value.message.startswith("x.jsonl, line 2: ")
    assert caught.value.field == "spec.dataset.sources[0].uri"


def test_bytes_that_are_no_text_are_a_malformed_line(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_bytes(GOOD.encode() + b"\n\xff\xfe\n")
    with pytest.raises(BadInput, match=r"x\.jsonl, line 2: not UTF-8"):
        read(tmp_path / "x.jsonl")


def test_a_source_without_text_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data.parquet").write_bytes(b"PAR1")
    with pytest.raises(BadInput, match=r"no \.jsonl and no \.txt") as caught:
        read(tmp_path)
    assert caught.value.reason == WorkerReason.SOURCE_NOT_FOUND


def test_prompts_come_in_both_forms(tmp_path: Path) -> None:
    chat = '{"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "a"}]}'
    (tmp_path / "p.jsonl").write_text('{"prompt": "a"}\n' + chat)
    first, second = read_prompts(tmp_path / "p.jsonl", field="spec.dataset.synthetic.promptsUri")
    assert first.messages == (("user", "a"),)
    assert second.messages == (("system", "s"), ("user", "a"))


@pytest.mark.parametrize(
    ("line", "want_message"),
    [
        ('{"completion": "a"}', "p.jsonl, line 2: prompt must be a text"),
        (
            '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}',
            "end with a user turn",
        ),
    ],
)
def test_a_malformed_prompt_is_named(tmp_path: Path, line: str, want_message: str) -> None:
    (tmp_path / "p.jsonl").write_text('{"prompt": "a"}\n' + line)
    with pytest.raises(BadInput, match=want_message) as caught:
        list(read_prompts(tmp_path, field="spec.dataset.synthetic.promptsUri"))
    assert caught.value.field == "spec.dataset.synthetic.promptsUri"
