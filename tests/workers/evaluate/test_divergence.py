"""KL divergence on held-out answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file

from dram_workers.evaluate.divergence import Divergence, HeldOut, compare, divergence_measures, held_out


def write_validation(folder: Path, samples: list[tuple[list[int], list[int]]]) -> Path:
    offsets = np.cumsum([0, *(len(tokens) for tokens, _ in samples)])
    save_file(
        {
            "tokens": np.asarray([token for tokens, _ in samples for token in tokens], np.int32),
            "loss_mask": np.asarray([flag for _, mask in samples for flag in mask], np.uint8),
            "offsets": np.asarray(offsets, np.int64),
        },
        folder / "validation.safetensors",
    )
    return folder


def test_answers_come_with_what_stands_before_them(tmp_path: Path) -> None:
    dataset = write_validation(tmp_path, [([1, 2, 3, 4, 5], [0, 0, 1, 1, 0]), ([6, 7, 8, 9], [0, 1, 0, 1])])
    first, second = held_out(dataset, 100)
    assert first == HeldOut((1, 2, 3, 4), 2, (True, True))
    assert second == HeldOut((6, 7, 8, 9), 1, (True, False, True))


def test_a_first_token_has_nothing_that_predicts_it(tmp_path: Path) -> None:
    (sample,) = held_out(write_validation(tmp_path, [([1, 2, 3], [1, 1, 1])]), 100)
    assert sample == HeldOut((1, 2, 3), 1, (True, True))


def test_the_limit_counts_answer_tokens_over_all_samples(tmp_path: Path) -> None:
    dataset = write_validation(tmp_path, [([1, 2, 3, 4], [0, 1, 1, 1])] * 5)
    assert [sum(sample.counted) for sample in held_out(dataset, 7)] == [3, 3, 1]


@dataclass(frozen=True)
class Fixed:
    """A predictor of the same distribution everywhere."""

    probabilities: tuple[float, ...]

    def answer_logits(self, prompt: Sequence[int], answer: Sequence[int]) -> NDArray[np.float32]:
        return np.tile(np.log(np.asarray(self.probabilities, np.float32)) + 3, (len(answer), 1))


def test_the_divergence_is_the_textbooks() -> None:
    sample = HeldOut((0, 1, 2), 1, (True, True))
    found = compare(Fixed((0.5, 0.25, 0.25)), Fixed((0.25, 0.5, 0.25)), sample)
    assert found.tokens == 2
    assert found.kl_nats == pytest.approx(2 * 0.25 * np.log(2), rel=1e-5)
    assert found.agreements == 0
    same = compare(Fixed((0.5, 0.3, 0.2)), Fixed((0.5, 0.3, 0.2)), sample)
    assert same.kl_nats == pytest.approx(0, abs=1e-9)
    assert same.agreements == 2


def test_measures_are_means_over_tokens_with_bounds_over_answers() -> None:
    answers = [Divergence(tokens=10, kl_nats=0.1 * factor, agreements=9) for factor in (1, 2, 3, 1, 2, 3)]
    kl, agreement = divergence_measures(answers, seed=0)
    assert kl.value == pytest.approx(1.2 / 60)
    assert kl.low is not None
    assert kl.high is not None
    assert kl.low < kl.value < kl.high
    assert [agreement.value, agreement.low, agreement.high] == pytest.approx([0.9, 0.9, 0.9])
    few, _ = divergence_measures(answers[:2], seed=0)
    assert (few.low, few.high) == (None, None)
