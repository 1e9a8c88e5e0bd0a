"""A conversion that reads, ends or templates text otherwise than its source is caught, with the first difference."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from gguf import TokenType
from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers

from dram_workers.errors import BadInput, WorkerReason
from dram_workers.export.checkpoint import Checkpoint
from dram_workers.export.proof import fuzz_texts, prove
from dram_workers.export.vocabulary import SpecialTokens, Vocabulary, read_vocabulary
from tests.models import ModelShape, write_model
from tests.workers.export.exporting import exported, run_export

VOCABULARY = 512


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory, tiny_teacher: Path) -> Path:
    return exported(tmp_path_factory.mktemp("proof"), tiny_teacher, "Q8_0")


@pytest.fixture
def vocabulary(tiny_teacher: Path) -> Vocabulary:
    checkpoint = Checkpoint(tiny_teacher)
    return read_vocabulary(checkpoint, checkpoint.config["vocab_size"])


def test_a_faithful_file_is_proven_on_hundreds_of_texts(path: Path, vocabulary: Vocabulary) -> None:
    assert prove(path, vocabulary) > 400


def without_digits(vocabulary: Vocabulary) -> Vocabulary:
    """The source splits no digits: what a tokenizer rebuilt from GGUF does."""
    changed = Tokenizer.from_str(vocabulary.tokenizer.to_str())
    changed.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    return dataclasses.replace(vocabulary, tokenizer=changed)


def special(**changes: Any) -> Callable[[Vocabulary], Vocabulary]:
    """The source has other special tokens."""

    def change(vocabulary: Vocabulary) -> Vocabulary:
        return dataclasses.replace(vocabulary, special=dataclasses.replace(vocabulary.special, **changes))

    return change


@pytest.mark.parametrize(
    ("change", "want"),
    [
        (lambda given: dataclasses.replace(given, chat_template="{{ messages }}"), "chat template"),
        (lambda given: dataclasses.replace(given, tokens=given.tokens[:-1]), "number of tokens"),
        (special(bos=5), "BOS token is 5 in the source model and 1 in the file"),
        (special(eos=6, stops=frozenset({6})), "stopping at token 6"),
        (special(adds_bos=True), "BOS is added"),
        (special(adds_eos=True), "EOS is added"),
    ],
)
def test_a_difference_is_named(
    path: Path, vocabulary: Vocabulary, change: Callable[[Vocabulary], Vocabulary], want: str
) -> None:
    with pytest.raises(BadInput, match=want) as caught:
        prove(path, change(vocabulary))
    assert caught.value.reason == WorkerReason.CONVERSION_UNPROVEN


def test_a_lost_pre_tokenizer_is_found_by_its_tokens(tiny_teacher: Path, tmp_path: Path) -> None:
    folder = write_model(tmp_path / "made", ModelShape(vocabulary=VOCABULARY))
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    # a merge of two digits, which only a tokenizer that does not split them apart ever uses
    content["model"]["merges"].insert(0, ["1", "4"])
    content["model"]["vocab"]["14"] = max(content["model"]["vocab"].values()) + 1
    path.write_text(json.dumps(content))
    file = exported(tmp_path, folder, "Q8_0")
    faithful = read_vocabulary(Checkpoint(folder), VOCABULARY)
    with pytest.raises(BadInput, match=r"becomes \[.*\] at token \d+ in the source model and \[.*\] in the file"):
        prove(file, without_digits(faithful))


def test_fuzz_texts_are_the_same_every_time_and_hold_the_special_tokens() -> None:
    texts = list(fuzz_texts(("<|x|>",), composed=False))
    assert texts == list(fuzz_texts(("<|x|>",), composed=False))
    assert sum("<|x|>" in text for text in texts) > 10
    assert any("e\u0301" in text for text in texts)
    assert not any("e\u0301" in text for text in fuzz_texts((), composed=True))


def change_tokenizer(folder: Path, **changes: Any) -> Path:
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return folder


@pytest.mark.parametrize(
    ("changes", "want"),
    [
        ({"pre_tokenizer": {"type": "Metaspace", "replacement": "_", "prepend_scheme": "always"}}, "Metaspace"),
        ({"pre_tokenizer": None}, "pre-tokenizer"),
        ({"normalizer": {"type": "Lowercase"}}, "normalizer Lowercase"),
        ({"model": {"type": "WordPiece", "vocab": {"a": 0}, "unk_token": "a"}}, "not byte-level BPE"),
    ],
)
def test_a_tokenizer_without_an_equal_in_llama_cpp_is_refused(
    tmp_path: Path, tiny_teacher: Path, changes: dict[str, Any], want: str
) -> None:
    folder = change_tokenizer(shutil.copytree(tiny_teacher, tmp_path / "changed"), **changes)
    with pytest.raises(BadInput, match=want) as caught:
        read_vocabulary(Checkpoint(folder), VOCABULARY)
    assert caught.value.reason == WorkerReason.UNSUPPORTED_MODEL


WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def splitting(pattern: str) -> pre_tokenizers.PreTokenizer:
    split = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


@pytest.mark.parametrize(
    ("pre_tokenizer", "normalizer", "ignores_merges", "want"),
    [
        (pre_tokenizers.ByteLevel(add_prefix_space=False), None, False, "gpt-2"),
        (splitting(WORDS % "{1,3}"), None, True, "llama-bpe"),
        (splitting(WORDS % ""), normalizers.NFC(), False, "qwen2"),
    ],
)
def test_every_known_pre_tokenizer_is_carried_over_faithfully(
    tmp_path: Path,
    pre_tokenizer: pre_tokenizers.PreTokenizer,
    normalizer: normalizers.Normalizer | None,
    ignores_merges: bool,
    want: str,
) -> None:
    folder = write_model(tmp_path / "made")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.pre_tokenizer = pre_tokenizer
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    content = json.loads(tokenizer.to_str())
    content["model"]["ignore_merges"] = ignores_merges
    (folder / "tokenizer.json").write_text(json.dumps(content))
    assert run_export(tmp_path, folder, "Q8_0").facts["preTokenizer"] == want


def test_a_tokenizer_larger_than_the_embedding_is_refused(tiny_teacher: Path) -> None:
    with pytest.raises(BadInput, match="embedding of 10 rows"):
        read_vocabulary(Checkpoint(tiny_teacher), 10)


def test_stop_tokens_come_from_every_place_that_names_one(tmp_path: Path, tiny_teacher: Path) -> None:
    folder = shutil.copytree(tiny_teacher, tmp_path / "changed")
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, 0]}))
    special: SpecialTokens = read_vocabulary(Checkpoint(folder), VOCABULARY).special
    assert special.stops == frozenset({0, 2})
    assert special.eos == 2


def test_kinds_tell_special_tokens_from_text(vocabulary: Vocabulary) -> None:
    kinds = dict(zip(vocabulary.tokens, vocabulary.kinds, strict=True))
    assert kinds["<|im_start|>"] == TokenType.CONTROL
    assert kinds["a"] == TokenType.NORMAL
