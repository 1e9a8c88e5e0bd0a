"""What the student writes while it is trained."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from dram_workers.data.dataset import Dataset, write_dataset
from dram_workers.data.samples import to_samples
from dram_workers.data.sources import Record
from dram_workers.data.tokenizer import ChatTokenizer
from dram_workers.errors import BadInput, WorkerReason
from dram_workers.objective import OnPolicy
from dram_workers.train.attention import SEGMENTS
from dram_workers.train.batches import lay_out
from dram_workers.train.distiller import target_hidden
from dram_workers.train.generation import Drawn, Generator
from dram_workers.train.pretrained import load_model
from tests.workers.train.training import write_teacher_and_dataset

ALL = tuple(range(36))
STOPS = (2, *range(100, 300))
"""So many that completions end at different lengths."""


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_teacher_and_dataset(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="module")
def dataset(paths: dict[str, Path]) -> Dataset:
    return Dataset(paths["dataset"], "train")


@pytest.fixture(scope="module")
def model(paths: dict[str, Path]) -> PreTrainedModel:
    return load_model(paths["teacher"], torch.float32, "spec.teacher.uri", attention=SEGMENTS)


def a_generator(
    dataset: Dataset, *, max_length: int = 128, compute: torch.dtype = torch.float32, **settings: float
) -> Generator:
    chosen = OnPolicy.model_validate({"fraction": 0.5, "max_new_tokens": 12} | settings)
    return Generator(dataset, chosen, seed=5, max_length=max_length, stop_ids=STOPS, compute=compute)


def words(drawn: Drawn) -> list[list[int]]:
    return [sample.tokens.tolist() for sample in drawn.written]


def test_a_share_of_every_steps_samples_is_chosen_by_seed_and_step_alone(
    dataset: Dataset, model: PreTrainedModel
) -> None:
    generator = a_generator(dataset, max_new_tokens=1)
    first = generator.draw(3, ALL, model)
    assert len(first.completed) == 18
    assert sorted(first.kept + first.completed) == sorted(ALL)
    again = a_generator(dataset, max_new_tokens=1).draw(3, ALL, model)
    assert (again.completed, words(again)) == (first.completed, words(first))
    assert generator.draw(4, ALL, model).completed != first.completed


def test_small_steps_get_the_share_on_average(dataset: Dataset, model: PreTrainedModel) -> None:
    generator = a_generator(dataset, fraction=0.3, max_new_tokens=1)
    counts = [len(generator.draw(step, (1, 2), model).completed) for step in range(100)]
    assert set(counts) == {0, 1}
    assert sum(counts) == pytest.approx(60, abs=12)


def test_a_completion_continues_the_prompt_of_the_data_and_ends_with_the_token_that_ended_it(
    dataset: Dataset, model: PreTrainedModel
) -> None:
    drawn = a_generator(dataset, fraction=1.0).draw(0, ALL, model)
    ended = 0
    for number, sample in zip(drawn.completed, drawn.written, strict=True):
        data = dataset[number]
        start = int(np.flatnonzero(data.loss_mask)[0])
        assert sample.tokens[:start].tolist() == data.tokens[:start].tolist()
        assert sample.loss_mask.tolist() == [0] * start + [1] * (len(sample.tokens) - start)
        completion = sample.tokens[start:].tolist()
        assert 1 <= len(completion) <= 13
        assert not set(completion[:-1]) & set(STOPS)
        ended += completion[-1] in STOPS
    assert 0 < ended == len(ALL) - drawn.unfinished
    assert len({len(sample.tokens) for sample in drawn.written}) > 5
    assert drawn.targets == drawn.own_targets == sum(sample.loss_mask.sum() for sample in drawn.written)
    assert drawn.tokens == sum(len(sample.tokens) for sample in drawn.written)


def test_greedy_completions_are_those_that_transformers_writes(
    paths: dict[str, Path], dataset: Dataset, model: PreTrainedModel
) -> None:
    drawn = a_generator(dataset, fraction=1.0, temperature=0.0).draw(0, ALL[:5], model)
    plain = load_model(paths["teacher"], torch.float32, "spec.teacher.uri")
    for sample in drawn.written:
        start = int(np.flatnonzero(sample.loss_mask)[0])
        prompt = torch.tensor([sample.tokens[:start].tolist()])
        whole = plain.generate(  # type: ignore[operator]
            prompt,
            attention_mask=torch.ones_like(prompt),
            do_sample=False,
            max_new_tokens=13,
            eos_token_id=list(STOPS),
            pad_token_id=2,
        )
        want = whole[0].tolist()
        assert sample.tokens.tolist() == want[: len(sample.tokens)]
        assert len(want) - len(sample.tokens) in (0, 1), "an unfinished one leaves room for its end"


def test_no_sample_is_longer_than_the_data_may_be(dataset: Dataset, model: PreTrainedModel) -> None:
    longest_prompt = max(int(np.flatnonzero(dataset[number].loss_mask)[0]) for number in ALL)
    drawn = a_generator(dataset, fraction=1.0, max_length=longest_prompt + 4, max_new_tokens=100).draw(0, ALL, model)
    assert max(len(sample.tokens) for sample in drawn.written) <= longest_prompt + 4


def test_the_model_is_left_as_it_was(dataset: Dataset, model: PreTrainedModel) -> None:
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    drawn = a_generator(dataset, compute=torch.bfloat16).draw(0, ALL[:4], model)
    assert model.training
    model.train(mode=False)
    batch = lay_out(drawn, tuple(range(len(drawn.completed))), packed=True)
    hidden = target_hidden(model, batch)
    assert hidden.requires_grad
    assert hidden.dtype == torch.float32
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_data_without_prompts_is_refused(tmp_path: Path, paths: dict[str, Path]) -> None:
    record = Record(source="s", place="p", weight=1.0, text="Plain text has no prompt.")
    tokenizer = ChatTokenizer.load(paths["teacher"])
    samples = list(to_samples(record, tokenizer, max_length=64, loss_on_all=False, field="spec.dataset"))
    write_dataset(tmp_path, {"train": samples, "validation": []}, {}, {})
    with pytest.raises(BadInput, match="no training sample has a prompt") as caught:
        a_generator(Dataset(tmp_path, "train"))
    assert (caught.value.reason, caught.value.field) == (WorkerReason.EMPTY_DATASET, "spec.objective.onPolicyFraction")
