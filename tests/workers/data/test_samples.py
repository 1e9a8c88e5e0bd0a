"""Which tokens are targets, for every way in which templates behave."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dram_workers.data.samples import Sample, to_samples
from dram_workers.data.sources import Record
from dram_workers.data.tokenizer import ChatTokenizer
from dram_workers.errors import BadInput
from tests.models import write_tokenizer

TALK = (
    ("system", "Be kind."),
    ("user", "How do I reset it?"),
    ("assistant", "Hold the button."),
    ("user", "And then?"),
    ("assistant", "Wait 10 seconds."),
)
FORGETS = (  # like templates of reasoning models: only the last answer keeps its mark
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' and loop.last %}THINK {% endif %}{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> ChatTokenizer:
    return ChatTokenizer.load(write_tokenizer(tmp_path_factory.mktemp("tokenizer")))


def samples(
    tokenizer: ChatTokenizer, record: Record, *, max_length: int = 512, loss_on_all: bool = False
) -> list[Sample]:
    return list(to_samples(record, tokenizer, max_length=max_length, loss_on_all=loss_on_all, field="spec.dataset"))


def a_talk(messages: tuple[tuple[str, str], ...] = TALK) -> Record:
    return Record(source="s", place="s.jsonl, line 1", weight=1.0, messages=messages)


def a_text(text: str) -> Record:
    return Record(source="s", place="s.txt", weight=1.0, text=text)


def target_texts(tokenizer: ChatTokenizer, sample: Sample) -> list[str]:
    """Each run of targets as text, special tokens shown."""
    runs: list[list[int]] = [[]]
    for token, flag in zip(sample.tokens, sample.loss_mask, strict=True):
        if flag:
            runs[-1].append(token)
        elif runs[-1]:
            runs.append([])
    return [tokenizer.backend.decode(run, skip_special_tokens=False) for run in runs if run]


def test_every_answer_with_its_end_of_turn_is_a_target(tokenizer: ChatTokenizer) -> None:
    (sample,) = samples(tokenizer, a_talk())
    assert target_texts(tokenizer, sample) == ["Hold the button.<|im_end|>", "Wait 10 seconds.<|im_end|>"]
    assert list(sample.tokens) == tokenizer.encode(tokenizer.render(a_talk().turns))


def test_the_end_of_an_answer_that_was_cut_off_is_no_target(tokenizer: ChatTokenizer) -> None:
    (sample,) = samples(tokenizer, replace(a_talk(), finished=False))
    assert target_texts(tokenizer, sample) == ["Hold the button.<|im_end|>", "Wait 10 seconds."]


def test_loss_on_all_makes_every_token_a_target(tokenizer: ChatTokenizer) -> None:
    (sample,) = samples(tokenizer, a_talk(), loss_on_all=True)
    assert set(sample.loss_mask) == {1}


def test_a_trailing_question_is_no_target(tokenizer: ChatTokenizer) -> None:
    (sample,) = samples(tokenizer, a_talk((*TALK, ("user", "Thanks?"))))
    assert target_texts(tokenizer, sample) == ["Hold the button.<|im_end|>", "Wait 10 seconds.<|im_end|>"]


def test_a_template_that_rewrites_earlier_answers_gives_a_sample_an_answer(tmp_path: Path) -> None:
    folder = write_tokenizer(tmp_path)
    (folder / "chat_template.jinja").write_text(FORGETS)
    tokenizer = ChatTokenizer.load(folder)
    first, second = samples(tokenizer, a_talk())
    assert target_texts(tokenizer, first) == ["THINK Hold the button.<|im_end|>"]
    assert target_texts(tokenizer, second) == ["THINK Wait 10 seconds.<|im_end|>"]
    assert first.id != second.id
    assert first.group == second.group


def test_a_template_whose_answers_do_not_continue_their_prompt_is_refused(tmp_path: Path) -> None:
    folder = write_tokenizer(tmp_path)
    (folder / "chat_template.jinja").write_text(
        "{% for m in messages %}{{ m.content }}{% endfor %}{% if add_generation_prompt %}<think>{% endif %}"
    )
    with pytest.raises(BadInput, match=r"s\.jsonl, line 1: .* does not continue"):
        samples(ChatTokenizer.load(folder), a_talk())


def test_without_a_template_the_answer_ends_with_end_of_sequence(tmp_path: Path) -> None:
    tokenizer = ChatTokenizer.load(write_tokenizer(tmp_path, chat=False))
    (sample,) = samples(tokenizer, a_talk(TALK[1:3]))
    assert target_texts(tokenizer, sample) == ["Hold the button.<|im_end|>"]


def test_a_long_sample_is_cut_at_its_end(tokenizer: ChatTokenizer) -> None:
    (whole,) = samples(tokenizer, a_talk())
    (cut,) = samples(tokenizer, a_talk(), max_length=len(whole.tokens) - 3)
    assert cut.tokens == whole.tokens[:-3]
    assert (whole.cut, cut.cut) == (False, True)
    assert cut.id == whole.id


def test_a_sample_whose_answer_is_cut_away_is_dropped(tokenizer: ChatTokenizer) -> None:
    assert samples(tokenizer, a_talk(), max_length=8) == []


def test_plain_text_is_cut_into_consecutive_samples(tokenizer: ChatTokenizer) -> None:
    text = "Open the app, choose Account. " * 9
    pieces = samples(tokenizer, a_text(text), max_length=16)
    joined = [token for piece in pieces for token in piece.tokens]
    assert joined == [*tokenizer.encode(text), tokenizer.eos_id]
    assert {flag for piece in pieces for flag in piece.loss_mask} == {1}
    assert max(len(piece.tokens) for piece in pieces) == 16


def test_a_text_of_white_space_gives_no_sample(tokenizer: ChatTokenizer) -> None:
    assert samples(tokenizer, a_text(" \n\n ")) == []


content = st.text(min_size=1, max_size=40).filter(lambda text: text.strip() and "<|" not in text)


@given(turns=st.lists(st.tuples(content, content), min_size=1, max_size=4))
@settings(max_examples=100, deadline=None)
def test_targets_read_back_as_the_answers(tokenizer: ChatTokenizer, turns: list[tuple[str, str]]) -> None:
    messages = tuple(turn for question, answer in turns for turn in (("user", question), ("assistant", answer)))
    (sample,) = samples(tokenizer, a_talk(messages), max_length=100_000)
    targets = [token for token, flag in zip(sample.tokens, sample.loss_mask, strict=True) if flag]
    read_back = tokenizer.backend.decode(targets, skip_special_tokens=False).split("<|im_end|>")
    # A token may hold the line break before an answer together with the answer's own first line break.
    assert [text.strip() for text in read_back[:-1]] == [answer.strip() for _, answer in turns]
    assert targets.count(2) == len(turns)
