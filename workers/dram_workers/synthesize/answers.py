"""What the teacher is asked and what it answered. No torch."""

from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn."""

    max_new_tokens: int
    temperature: float
    """0 takes the likeliest token."""
    seed: int
    stop_ids: tuple[int, ...]


@dataclass
class Answer:
    """One answer as it grows."""

    prompt_ids: list[int]
    draw: int
    """Number of this answer; with the seed it decides every random choice."""
    tokens: list[int] = field(default_factory=list)
    finished: bool = False
    """Whether the model ended the answer itself."""


def batches(answers: Iterable[Answer], size: int) -> list[list[Answer]]:
    """Answers to be written at once: prompts of like length together."""
    by_length = sorted(answers, key=lambda answer: (len(answer.prompt_ids), answer.draw))
    return [by_length[start : start + size] for start in range(0, len(by_length), size)]
