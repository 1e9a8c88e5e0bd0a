"""Greedy answers and teacher-forced logits from llama.cpp."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from dram_workers.errors import BadInput, WorkerReason
from dram_workers.llamacpp import LlamaModel, LlamaSession
from tests.workers.export.exporting import exported

PROMPT = [1, 40, 41, 42, 43, 44, 45]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, tiny_teacher: Path) -> Iterator[LlamaModel]:
    with LlamaModel(exported(tmp_path_factory.mktemp("session"), tiny_teacher, "F16")) as loaded:
        yield loaded


@pytest.fixture
def session(model: LlamaModel) -> Iterator[LlamaSession]:
    with LlamaSession(model, context_tokens=256, threads=1) as opened:
        yield opened


def test_a_greedy_answer_is_what_teacher_forcing_likes_best(session: LlamaSession) -> None:
    answer = session.greedy(PROMPT, 20, past_stops=True)
    assert len(answer.tokens) == 20
    assert not answer.stopped
    assert 0 < answer.first_token_seconds <= answer.total_seconds
    logits_TV = session.answer_logits(PROMPT, answer.tokens)
    assert logits_TV.argmax(axis=1).tolist() == list(answer.tokens)


def test_a_context_that_shares_a_prefix_gives_the_same_as_a_fresh_one(session: LlamaSession) -> None:
    answer = list(range(50, 70))
    session.rewind(0)
    fresh_TV = session.answer_logits(PROMPT, answer)
    session.greedy([*PROMPT[:4], 99, 98], 5)
    shared_TV = session.answer_logits(PROMPT, answer)
    np.testing.assert_allclose(shared_TV, fresh_TV, atol=0.05)
    np.testing.assert_array_equal(shared_TV.argmax(axis=1), fresh_TV.argmax(axis=1))


def test_sessions_of_one_model_do_not_disturb_each_other(model: LlamaModel, session: LlamaSession) -> None:
    alone = session.greedy(PROMPT, 8, past_stops=True).tokens
    with LlamaSession(model, context_tokens=256, threads=2) as other:
        other.greedy([7, 8, 9], 8)
    assert session.greedy(PROMPT, 8, past_stops=True).tokens == alone


def test_long_texts_pass_in_several_batches(model: LlamaModel) -> None:
    answer = [5 + number % 200 for number in range(700)]
    with LlamaSession(model, context_tokens=1024, threads=1) as session:
        whole_TV = session.answer_logits(PROMPT, answer)
        tail_TV = session.answer_logits([*PROMPT, *answer[:600]], answer[600:])
    np.testing.assert_allclose(tail_TV, whole_TV[600:], atol=0.05)


def test_a_stop_token_ends_an_answer(model: LlamaModel) -> None:
    assert model.stops(model.eos)
    assert not model.stops(60)


def test_what_does_not_fit_the_context_is_refused(session: LlamaSession) -> None:
    with pytest.raises(ValueError, match="do not fit"):
        session.answer_logits(PROMPT, [5] * session.context_tokens)
    with pytest.raises(ValueError, match="do not fit"):
        session.greedy([5] * (session.context_tokens + 1), 1)


def test_an_answer_ends_with_the_context(session: LlamaSession) -> None:
    prompt = [5] * (session.context_tokens - 3)
    assert len(session.greedy(prompt, 100, past_stops=True).tokens) == 4


@pytest.mark.parametrize("content", [b"", b"not a model", b"GGUF\x03\x00\x00\x00"])
def test_a_file_that_is_no_model_is_refused_with_the_reason(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.gguf"
    path.write_bytes(content)
    with pytest.raises(BadInput, match=r"could not load broken\.gguf: .*gguf") as caught:
        LlamaModel(path)
    assert caught.value.reason == WorkerReason.RUNTIME_REFUSED


def test_closing_twice_is_no_error(model: LlamaModel) -> None:
    session = LlamaSession(model, context_tokens=256, threads=1)
    session.close()
    session.close()
