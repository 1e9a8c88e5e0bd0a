"""Verdicts on golden items, and the measures made of them."""

from typing import Any

import numpy as np
import pytest

from dram_workers.errors import BadInput, WorkerReason
from dram_workers.evaluate.scoring import Scored, check_similarity_limit, quality_measures, score_item
from dram_workers.golden import GoldenItem
from dram_workers.stages import EvaluateIdentity

SUITE = EvaluateIdentity(subject="Student", min_similarity=0.8, max_reference_nll=2.0)


def an_item(**keys: Any) -> GoldenItem:
    return GoldenItem.model_validate({"id": "a", "prompt": "How do I cancel?", **keys})


@pytest.mark.parametrize(
    ("item", "answer", "similarity", "nll", "want_failed", "want_score"),
    [
        ({}, "You can cancel in the app.", 0.95, 1.0, (), 0.95),
        ({}, "Sing a song.", 0.1, 1.0, ("similarity",), 0.1),
        ({}, "Sing a song.", -0.1, 1.0, ("similarity",), 0.0),
        ({}, "You cannot cancel in the app.", 0.98, 1.0, ("negation",), 0.0),
        ({}, "You can cancel in 5 apps.", 0.9, 1.0, ("figures",), 0.0),
        ({}, "You can cancel in the app.", 0.95, 2.5, ("nll",), 0.95),
        ({}, "You can cancel in the app.", 0.95, None, (), 0.95),
        ({"minSimilarity": 0.97}, "You can cancel in the app.", 0.95, 1.0, ("similarity",), 0.95),
        ({"exact": "Yes"}, " Yes\n", 0.9, 1.0, (), 0.9),
        ({"exact": "Yes"}, "Yes!", 0.9, 1.0, ("exact",), 0.0),
        ({"contains": ["app", "Menu"]}, "Open the app", 0.9, 1.0, ("contains",), 0.0),
        ({"regex": r"app\.$"}, "Use the app.", 0.9, 1.0, (), 0.9),
        ({"regex": r"^app"}, "Use the app.", 0.9, 1.0, ("regex",), 0.0),
    ],
)
def test_an_item_is_decided_by_every_check(
    item: dict[str, Any],
    answer: str,
    similarity: float,
    nll: float | None,
    want_failed: tuple[str, ...],
    want_score: float,
) -> None:
    scored = score_item(an_item(**item), "You can cancel in the app.", answer, similarity, nll, SUITE)
    assert scored.failed == want_failed
    assert scored.score == want_score
    assert scored.row()["passed"] is not bool(want_failed)


def vectors(*cosines: float) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Unit vectors with these cosines to the first axis."""
    return np.asarray([[value, (1 - value * value) ** 0.5] for value in cosines], np.float32)


def test_a_limit_that_unrelated_answers_pass_is_refused() -> None:
    references_NE = vectors(1.0, 0.9, 0.2)
    items = [an_item(id=name) for name in "abc"]
    with pytest.raises(BadInput, match=r"minSimilarity is 0\.8, but .* reach 0\.\d{3}") as caught:
        check_similarity_limit(references_NE, ["x", "y", "z"], items, SUITE)
    assert caught.value.reason == WorkerReason.SIMILARITY_LIMIT_TOO_LOW
    assert caught.value.field == "spec.golden.minSimilarity"


def test_an_items_own_limit_is_held_to_the_same() -> None:
    items = [an_item(id="a"), an_item(id="b", minSimilarity=0.1)]
    with pytest.raises(BadInput, match=r"item 'b' is 0\.1"):
        check_similarity_limit(vectors(1.0, 0.5), ["x", "y"], items, SUITE)


def test_equal_references_say_nothing_about_unrelated_ones() -> None:
    items = [an_item(id=name) for name in "abc"]
    unrelated = check_similarity_limit(vectors(1.0, 1.0, 0.3), ["x", "x", "y"], items, SUITE)
    assert unrelated == pytest.approx(0.3)
    assert check_similarity_limit(vectors(1.0, 1.0), ["x", "x"], items[:2], SUITE) is None


def scored(score: float, *failed: str) -> Scored:
    return Scored("a", "p", "r", "a", score, 1.0, score, failed)


def test_measures_compare_with_teacher_and_student() -> None:
    ours = [scored(0.9), scored(0.8), scored(0.7, "similarity"), scored(0.9), scored(1.0), scored(0.9)]
    teacher, student = [1.0] * 6, [0.95] * 6
    found = {measure.name: measure for measure in quality_measures(ours, teacher, student, seed=0)}
    assert found["goldenPassRate"].value == pytest.approx(5 / 6)
    assert found["goldenScore"].value == pytest.approx(5.2 / 6)
    assert found["teacherRetention"].value == pytest.approx(5.2 / 6)
    assert found["teacherRetention"].baseline == 1.0
    assert found["scoreDrop"].value == pytest.approx(0.95 - 5.2 / 6)
    assert found["scoreDrop"].baseline == pytest.approx(0.95)
    for measure in found.values():
        assert measure.n == 6
        assert measure.low is not None
        assert measure.high is not None
        assert measure.low <= measure.value <= measure.high


def test_a_teacher_that_scores_nothing_leaves_no_share_to_keep() -> None:
    names = {measure.name for measure in quality_measures([scored(0.5)], [0.0], None, seed=0)}
    assert names == {"goldenPassRate", "goldenScore"}


def test_bounds_of_the_mean_score_stay_in_its_range() -> None:
    found = {
        measure.name: measure for measure in quality_measures([scored(1.0), scored(0.0), scored(1.0)], None, None, 0)
    }
    assert (found["goldenScore"].low, found["goldenScore"].high) == (0.0, 1.0)
