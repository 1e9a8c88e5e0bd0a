"""From answers to verdicts on golden items, and from those to measures."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dram_workers.errors import BadInput, WorkerReason
from dram_workers.evaluate.claims import same_figures, same_polarity
from dram_workers.golden import GoldenItem
from dram_workers.intervals import mean_bounds, proportion_bounds, ratio_bounds
from dram_workers.results import Measure
from dram_workers.stages import EvaluateIdentity

HARD_CHECKS = ("figures", "negation", "exact", "contains", "regex")
"""Checks that make an answer wrong whatever its similarity: the item's score is then 0."""


@dataclass(frozen=True)
class Scored:
    """One golden item, decided."""

    id: str
    prompt: str
    reference: str
    answer: str
    similarity: float
    nll: float | None
    score: float
    failed: tuple[str, ...]
    """The checks that did not hold, of `similarity`, `nll` and the hard ones."""

    def row(self) -> dict[str, Any]:
        """The item as a line of `answers.jsonl`."""
        return {
            "id": self.id,
            "prompt": self.prompt,
            "reference": self.reference,
            "answer": self.answer,
            "similarity": round(self.similarity, 6),
            "nll": None if self.nll is None else round(self.nll, 6),
            "score": round(self.score, 6),
            "passed": not self.failed,
            "failed": list(self.failed),
        }


def score_item(
    item: GoldenItem, reference: str, answer: str, similarity: float, nll: float | None, identity: EvaluateIdentity
) -> Scored:
    """Decide one item. Its score is the similarity, at least 0, or 0 when a hard check fails."""
    asked = item.conversation[-1]["content"]
    prompt = "\n".join(turn["content"] for turn in item.conversation)
    limit = identity.min_similarity if item.min_similarity is None else item.min_similarity
    checks = {
        "similarity": similarity >= limit,
        "nll": nll is None or nll <= identity.max_reference_nll,
        "figures": same_figures(reference, answer, prompt),
        "negation": same_polarity(reference, answer),
        "exact": item.exact is None or answer.strip() == item.exact.strip(),
        "contains": all(part in answer for part in item.contains),
        "regex": item.regex is None or re.search(item.regex, answer) is not None,
    }
    failed = tuple(name for name, holds in checks.items() if not holds)
    score = 0.0 if any(name in HARD_CHECKS for name in failed) else max(0.0, similarity)
    return Scored(item.id, asked, reference, answer, similarity, nll, score, failed)


def check_similarity_limit(
    references_NE: NDArray[np.float32], texts: Sequence[str], items: Sequence[GoldenItem], identity: EvaluateIdentity
) -> float | None:
    """95th percentile of the similarity between references of different items; None when all are alike or there is one.

    BadInput(SimilarityLimitTooLow) when a limit lies below: an answer to another question would pass it.
    """
    distinct = sorted({text: at for at, text in enumerate(texts)}.values())
    if len(distinct) < 2:
        return None
    similarities = (references_NE[distinct] @ references_NE[distinct].T)[np.triu_indices(len(distinct), 1)]
    unrelated = float(np.quantile(similarities, 0.95))
    limits = {"spec.golden.minSimilarity": identity.min_similarity}
    limits |= {
        f"minSimilarity of item {item.id!r}": item.min_similarity for item in items if item.min_similarity is not None
    }
    for name, limit in limits.items():
        if limit < unrelated:
            raise BadInput(
                WorkerReason.SIMILARITY_LIMIT_TOO_LOW,
                f"{name} is {limit:g}, but answers to different questions of this suite reach {unrelated:.3f} "
                "(95th percentile of all pairs of references)",
                field="spec.golden.minSimilarity",
                remedy=f"set it above {unrelated:.3f}, or make the golden items less alike",
            )
    return unrelated


def quality_measures(
    ours: Sequence[Scored], teacher: Sequence[float] | None, student: Sequence[float] | None, seed: int
) -> Iterator[Measure]:
    """Pass rate and mean score; against the teacher's scores the share kept, against the student's the loss."""
    scores = [item.score for item in ours]
    passed, total = sum(not item.failed for item in ours), len(ours)
    low, high = proportion_bounds(passed, total)
    yield Measure(name="goldenPassRate", value=passed / total, low=low, high=high, n=total)
    low, high = mean_bounds(scores)
    low, high = None if low is None else max(0.0, low), None if high is None else min(1.0, high)
    yield Measure(name="goldenScore", value=float(np.mean(scores)), low=low, high=high, n=total)
    if student is not None:
        drops = [before - after for before, after in zip(student, scores, strict=True)]
        low, high = mean_bounds(drops)
        baseline = float(np.mean(student))
        yield Measure(name="scoreDrop", value=float(np.mean(drops)), low=low, high=high, n=total, baseline=baseline)
    if teacher is not None and sum(teacher) > 0:
        low, high = ratio_bounds(scores, teacher, seed)
        value, baseline = sum(scores) / sum(teacher), float(np.mean(teacher))
        yield Measure(name="teacherRetention", value=value, low=low, high=high, n=total, baseline=baseline)
