"""What the teacher is asked and what it answered. No torch."""

from collections.abc import Iterable
from dataclasses import dataclass, field

BATCH = 32
"""Answers written at once, and kept together. Part of the recipe: in half precision the batch can tip a token."""
PROMPTS_FIELD = "spec.dataset.synthetic.promptsUri"


@dataclass(frozen=True)
class Written:
    """A finished answer as text."""

    text: str
    tokens: int
    """As the writer counts them."""
    finished: bool
    """Whether the teacher ended it itself."""


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
    written: int = 0
    """Tokens so far, whoever holds them."""
    limit: int | None = None
    """Most tokens of this answer; None leaves it to the sampling."""
    stop: int | None = None
    """The token by which the model ended the answer."""

    def take(self, token: int, stop_ids: tuple[int, ...]) -> None:
        """Add the next token, or end with it."""
        if token in stop_ids:
            self.stop, self.finished = token, True
        else:
            self.tokens.append(token)
            self.written += 1

    @property
    def done(self) -> bool:
        """Whether nothing more is to be written."""
        return self.finished or (self.limit is not None and len(self.tokens) >= self.limit)


def batches(answers: Iterable[Answer], size: int) -> list[list[Answer]]:
    """Answers to be written at once: prompts of like length together."""
    by_length = sorted(answers, key=lambda answer: (len(answer.prompt_ids), answer.draw))
    return [by_length[start : start + size] for start in range(0, len(by_length), size)]
