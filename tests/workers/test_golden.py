"""Golden files: what is read, and how each mistake is named."""

from pathlib import Path

import pytest

from dram_workers.errors import BadInput, GateInputMissing, StageError, WorkerReason
from dram_workers.golden import read_golden


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "golden.jsonl"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_items_keep_their_order_and_every_key_is_read(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        '\ufeff{"id": "b", "prompt": "Hi", "reference": "Hello", "minSimilarity": 0.5, "exact": "Hello", "contains": "ell",'
        ' "regex": "^H", "maxTokens": 7, "tags": ["greeting"]}\r\n\n'
        '{"id": "a", "messages": [{"role": "system", "content": "Be brief"}, {"role": "user", "content": "Größe?"}]}\n',
    )
    first, second = read_golden(path)
    assert (first.id, first.min_similarity, first.contains, first.max_tokens) == ("b", 0.5, ("ell",), 7)
    assert first.conversation == [{"role": "user", "content": "Hi"}]
    assert second.conversation[1] == {"role": "user", "content": "Größe?"}
    assert second.reference is None


GOOD = '{"id": "a", "prompt": "x"}\n'


@pytest.mark.parametrize(
    ("text", "want_reason", "want_words"),
    [
        (GOOD + '{"id": "b", "prompt": }', WorkerReason.MALFORMED_LINE, "line 2"),
        (GOOD + "\n\n[1]", WorkerReason.MALFORMED_LINE, "line 4: an item is a JSON object"),
        (b'{"id": "b", "prompt": "\xff"}', WorkerReason.MALFORMED_LINE, "line 1: 'utf-8' codec"),
        ('{"id": "b", "prompt": "x", "promt": 1}', WorkerReason.MALFORMED_LINE, "promt: unknown key"),
        ('{"id": "b"}', WorkerReason.MALFORMED_LINE, "exactly one of prompt and messages"),
        ('{"id": "b", "prompt": "x", "messages": []}', WorkerReason.MALFORMED_LINE, "messages"),
        ('{"id": 7, "prompt": "x"}', WorkerReason.MALFORMED_LINE, "id: Input should be a valid string"),
        ('{"id": "b", "prompt": "x", "regex": "("}', WorkerReason.MALFORMED_LINE, "regex: not a regular expression"),
        ('{"id": "b", "prompt": "x", "minSimilarity": 1.5}', WorkerReason.MALFORMED_LINE, "minSimilarity"),
        ('{"id": "b", "prompt": "x", "minSimilarity": NaN}', WorkerReason.MALFORMED_LINE, "minSimilarity"),
        (
            '{"id": "b", "messages": [{"role": "assistant", "content": "x"}]}',
            WorkerReason.MALFORMED_LINE,
            "end with a user",
        ),
        (GOOD + "\n" + GOOD, WorkerReason.GOLDEN_DUPLICATE_IDS, "'a' stands in line 1 and in line 3"),
    ],
)
def test_a_mistake_is_named_with_its_line(
    tmp_path: Path, text: str | bytes, want_reason: WorkerReason, want_words: str
) -> None:
    with pytest.raises(BadInput) as caught:
        read_golden(write(tmp_path, text))
    assert caught.value.reason == want_reason
    assert want_words in caught.value.message
    assert caught.value.field == "spec.golden.uri"
    assert caught.value.remedy


@pytest.mark.parametrize("text", ["", "\n \n"])
def test_a_suite_without_items_cannot_decide(tmp_path: Path, text: str) -> None:
    with pytest.raises(GateInputMissing, match="holds no golden item"):
        read_golden(write(tmp_path, text))


def test_a_missing_file_cannot_decide(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="no golden file") as caught:
        read_golden(tmp_path / "golden.jsonl")
    assert caught.value.exit_code == 65
