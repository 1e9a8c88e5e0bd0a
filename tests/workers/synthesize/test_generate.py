"""Batched answers are the answers that the model gives to each prompt alone."""

import pytest
import torch
from transformers import PreTrainedModel

from dram_workers.synthesize.answers import Answer, Sampling
from dram_workers.synthesize.generate import generate
from dram_workers.train.pretrained import load_model
from tests.models import write_model

PROMPTS = [[1, 40, 41], [1, 50, 51, 52, 53, 54, 55], [1, 60], [1, 70, 71, 72], [1, 80, 81, 82, 83]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedModel:
    return load_model(write_model(tmp_path_factory.mktemp("teacher")), torch.float32, "spec.teacher.uri")


def written(model: PreTrainedModel, sampling: Sampling, *, batch: int) -> list[Answer]:
    answers = [Answer(prompt, draw) for draw, prompt in enumerate(PROMPTS)]
    generate(model, answers, sampling, batch=batch, each_step=lambda: None)
    return answers


def test_greedy_answers_equal_those_of_transformers(model: PreTrainedModel) -> None:
    stop_ids = (2, *range(200, 260))  # so many that answers end at different steps
    answers = written(model, Sampling(24, 0.0, 0, stop_ids), batch=5)
    assert len({len(answer.tokens) for answer in answers}) > 2
    for answer in answers:
        prompt = torch.tensor([answer.prompt_ids])
        whole = model.generate(  # type: ignore[operator]
            prompt,
            attention_mask=torch.ones_like(prompt),
            do_sample=False,
            max_new_tokens=24,
            eos_token_id=list(stop_ids),
            pad_token_id=2,
        )
        want = whole[0, len(answer.prompt_ids) :].tolist()
        assert answer.tokens == [token for token in want if token not in stop_ids]
        assert answer.finished == (want[-1] in stop_ids)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_an_answer_does_not_depend_on_its_batch(model: PreTrainedModel, temperature: float) -> None:
    sampling = Sampling(16, temperature, 7, (2,))
    assert written(model, sampling, batch=1) == written(model, sampling, batch=3)


def test_sampling_follows_seed_and_distribution(model: PreTrainedModel) -> None:
    hot = written(model, Sampling(16, 3.0, 1, ()), batch=5)
    assert hot == written(model, Sampling(16, 3.0, 1, ()), batch=5)
    assert hot != written(model, Sampling(16, 3.0, 2, ()), batch=5)
    cold = written(model, Sampling(16, 1e-6, 1, ()), batch=5)
    greedy = written(model, Sampling(16, 0.0, 1, ()), batch=5)
    assert [answer.tokens for answer in cold] == [answer.tokens for answer in greedy]
