"""The same questions to the float model and to its exported file."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from dram_workers.data.tokenizer import ChatTokenizer
from dram_workers.evaluate.subjects import FileSubject, FloatSubject, Question, Subject, mean_nll
from dram_workers.llamacpp import LlamaModel
from tests.workers.contexts import a_context
from tests.workers.export.exporting import exported

REFERENCE = [60, 61, 62, 63]
QUESTIONS = [
    Question([1, *range(40, 50 + number)], 3 + number % 4, REFERENCE if number % 2 else []) for number in range(20)
]


@pytest.fixture(scope="module")
def float_subject(tmp_path_factory: pytest.TempPathFactory, tiny_teacher: Path) -> FloatSubject:
    context = a_context(tmp_path_factory.mktemp("float"), {})
    return FloatSubject(tiny_teacher, ChatTokenizer.load(tiny_teacher).stop_ids, context, "spec.teacher.uri")


@pytest.fixture(scope="module")
def file_subject(tmp_path_factory: pytest.TempPathFactory, tiny_teacher: Path) -> Iterator[FileSubject]:
    folder = tmp_path_factory.mktemp("file")
    with LlamaModel(exported(folder, tiny_teacher, "F16")) as model:
        yield FileSubject(model, a_context(folder / "examined", {}), sessions=2, context_tokens=256)


@pytest.fixture(params=["float_subject", "file_subject"])
def subject(request: pytest.FixtureRequest) -> Subject:
    found: Subject = request.getfixturevalue(request.param)
    return found


def test_an_answer_has_at_most_its_own_limit_of_tokens(subject: Subject) -> None:
    for question, examined in zip(QUESTIONS, subject.examine(QUESTIONS), strict=True):
        assert len(examined.answer) <= question.max_tokens


def test_only_references_are_forced(subject: Subject) -> None:
    for question, examined in zip(QUESTIONS, subject.examine(QUESTIONS), strict=True):
        assert (examined.reference_nll is not None) is bool(question.reference)


def test_one_question_alone_is_answered_as_among_others(subject: Subject) -> None:
    among = subject.examine(QUESTIONS)[7]
    alone = subject.examine([QUESTIONS[7]])[0]
    assert alone.answer == among.answer
    assert alone.reference_nll == pytest.approx(among.reference_nll, abs=0.01)


def test_the_file_says_what_the_float_model_says(float_subject: FloatSubject, file_subject: FileSubject) -> None:
    ours, theirs = float_subject.examine(QUESTIONS), file_subject.examine(QUESTIONS)
    # half-precision weights may turn a near-tie of a random model, and then the rest of that answer
    assert sum(one.answer == other.answer for one, other in zip(ours, theirs, strict=True)) >= 18
    forced = [number for number, question in enumerate(QUESTIONS) if question.reference]
    for number in forced:
        assert theirs[number].reference_nll == pytest.approx(ours[number].reference_nll, abs=0.02)


def test_the_likelihood_is_the_mean_over_tokens() -> None:
    logits_TV = np.log(np.asarray([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]], np.float32)) + 7
    assert mean_nll(logits_TV, [0, 2]) == pytest.approx(-(np.log(0.5) + np.log(0.8)) / 2, rel=1e-5)
