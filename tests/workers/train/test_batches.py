"""Which samples a step sees, and how they are laid out."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dram_workers.data.dataset import Dataset, write_dataset
from dram_workers.data.samples import Sample
from dram_workers.data.sources import Record
from dram_workers.train.batches import Draw, Plan, lay_out, spread


def a_dataset(folder: Path, lengths: list[int], weights: list[float] | None = None) -> Dataset:
    """Samples of these lengths; tokens count up from 100 times the sample's number, the last half are targets."""
    samples = [
        Sample(
            id=f"s{number}",
            record=Record(source="s", place="p", weight=1.0 if weights is None else weights[number]),
            tokens=tuple(range(100 * number, 100 * number + length)),
            loss_mask=tuple(int(position >= length // 2) for position in range(length)),
            group=b"",
        )
        for number, length in enumerate(lengths)
    ]
    write_dataset(folder, {"train": samples, "validation": []}, {}, {})
    return Dataset(folder, "train")


def a_plan(dataset: Dataset, *, tokens: int = 30, max_steps: int | None = None, epochs: float | None = None) -> Plan:
    return Plan(dataset, Draw(seed=3, batch_tokens=tokens, max_steps=max_steps, epochs=epochs))


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return a_dataset(tmp_path, [5, 9, 12, 7, 20, 11, 8, 6])


def test_steps_hold_whole_samples_until_they_have_their_tokens(dataset: Dataset) -> None:
    for samples in a_plan(dataset, max_steps=20).steps():
        sizes = dataset.lengths[list(samples)]
        assert sizes.sum() >= 30
        assert sizes[:-1].sum() < 30


def test_an_epoch_sees_every_sample_once_and_the_next_in_another_order(dataset: Dataset) -> None:
    one = [sample for samples in a_plan(dataset, epochs=1).steps() for sample in samples]
    two = [sample for samples in a_plan(dataset, epochs=2).steps() for sample in samples]
    assert sorted(one) == list(range(8))
    assert two[:8] == one
    assert sorted(two[8:]) == list(range(8))
    assert two[8:] != one


def test_a_part_of_an_epoch(dataset: Dataset) -> None:
    assert sum(len(samples) for samples in a_plan(dataset, epochs=1.5).steps()) == 12


def test_total_steps_are_those_that_come(dataset: Dataset) -> None:
    assert a_plan(dataset, epochs=3).total_steps == len(list(a_plan(dataset, epochs=3).steps()))
    assert a_plan(dataset, max_steps=7).total_steps == len(list(a_plan(dataset, max_steps=7).steps())) == 7
    assert a_plan(dataset, max_steps=0).total_steps == len(list(a_plan(dataset, max_steps=0).steps())) == 0


def test_a_resumed_plan_goes_on_with_the_same_samples(dataset: Dataset) -> None:
    whole = list(a_plan(dataset, max_steps=12).steps())
    assert list(a_plan(dataset, max_steps=12).steps(5)) == whole[5:]


def test_weights_say_how_often_a_sample_comes(tmp_path: Path) -> None:
    dataset = a_dataset(tmp_path, [10] * 4, [1.0, 2.0, 0.25, 1.5])
    seen = Counter(sample for samples in a_plan(dataset, epochs=8).steps() for sample in samples)
    assert [seen[number] for number in range(4)] == [8, 16, 2, 12]


@given(
    lengths=st.lists(st.integers(1, 50), min_size=1, max_size=30),
    world=st.integers(1, 5),
    limit=st.integers(1, 200),
)
@settings(max_examples=200, deadline=None)
def test_ranks_share_a_step_without_loss(lengths: list[int], world: int, limit: int) -> None:
    sizes = np.asarray(lengths)
    shares = spread(tuple(range(len(lengths))), sizes, world, limit)
    assert len(shares) == world
    assert len({len(share) for share in shares}) == 1
    assert sorted(sample for share in shares for batch in share for sample in batch) == list(range(len(lengths)))
    for batch in (batch for share in shares for batch in share):
        assert len(batch) <= 1 or sizes[list(batch)].sum() <= limit


@pytest.mark.parametrize("packed", [True, False])
def test_targets_point_to_the_token_before_them(dataset: Dataset, packed: bool) -> None:
    batch = lay_out(dataset, (2, 0, 3), packed=packed)
    flat = batch.tokens_RL.flatten()
    assert (flat[batch.targets_N] + 1).tolist() == batch.labels_N.tolist()
    want = [[206, 207, 208, 209, 210, 211], [2, 3, 4], [303, 304, 305, 306]]
    assert [batch.labels_N[batch.sample_of_N == index].tolist() for index in range(3)] == want
    assert batch.tokens_RL.shape == ((1, 24) if packed else (3, 12))
    assert batch.positions_RL.flatten()[batch.targets_N[-1]] == 5


def test_a_samples_first_token_is_never_a_target(tmp_path: Path) -> None:
    dataset = a_dataset(tmp_path, [1, 3])
    batch = lay_out(dataset, (0, 1), packed=True)
    assert batch.labels_N.tolist() == [101, 102]


def test_an_empty_micro_batch_has_no_targets(dataset: Dataset) -> None:
    for packed in (True, False):
        batch = lay_out(dataset, (), packed=packed)
        assert batch.tokens_RL.shape == (1, 1)
        assert len(batch.targets_N) == 0
        assert batch.labels_N.dtype == torch.int64
