"""What the teacher is asked and what it answered. No torch."""

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
