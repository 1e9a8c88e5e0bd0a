"""The golden file: the held-out prompts that decide about every variant. Import-light: no torch.

JSON Lines, one item a line: `{"id", "prompt" | "messages", "reference"?, "minSimilarity"?, "exact"?, "contains"?,
"regex"?, "maxTokens"?, "tags"?}`. Blank lines are skipped; anything else that is not an item is an error with its
line number.
"""

import json
import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from dram_workers.errors import BadInput, GateInputMissing, WorkerReason
from dram_workers.model import Model

FIELD = "spec.golden.uri"

Text = Annotated[str, Field(min_length=1)]


class Message(Model):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


class GoldenItem(Model):
    """One prompt and what its answer must fulfil. Checks that are absent are not made."""

    id: Text
    prompt: Text | None = None
    """A single user turn; instead of `messages`."""
    messages: Annotated[tuple[Message, ...], Field(min_length=1)] | None = None
    """A conversation that ends with a user turn."""
    reference: Text | None = None
    """The answer to compare with; absent means the teacher's greedy answer."""
    min_similarity: Annotated[float, Field(ge=0, le=1)] | None = None
    """Overrides the suite's limit."""
    exact: Text | None = None
    """The whole answer, but for whitespace around it."""
    contains: tuple[Text, ...] = ()
    """Strings that all stand in the answer; a single string may stand without brackets."""
    regex: Text | None = None
    """A regular expression (Python's `re`) that is found in the answer."""
    max_tokens: Annotated[int, Field(ge=1, le=8192)] | None = None
    """Overrides the suite's longest answer."""
    tags: tuple[Text, ...] = ()

    @field_validator("contains", mode="before")
    @classmethod
    def _one_string_is_a_list_of_one(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value

    @field_validator("regex")
    @classmethod
    def _compiles(cls, value: str | None) -> str | None:
        try:
            re.compile(value or "")
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from None
        return value

    @model_validator(mode="after")
    def _asks_something(self) -> Self:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("set exactly one of prompt and messages")
        if self.messages and self.messages[-1].role != "user":
            raise ValueError(f"messages must end with a user turn, not with {self.messages[-1].role}")
        return self

    @property
    def conversation(self) -> list[dict[str, str]]:
        """The turns in the form that chat templates take."""
        turns = self.messages or (Message(role="user", content=self.prompt or ""),)
        return [{"role": turn.role, "content": turn.content} for turn in turns]


def read_golden(path: Path) -> tuple[GoldenItem, ...]:
    """Read a golden file in its order.

    BadInput(MalformedLine) names the line, BadInput(GoldenDuplicateIds) both lines; GateInputMissing when the file is
    absent or holds no item.
    """
    try:
        body = path.read_bytes()
    except (FileNotFoundError, IsADirectoryError):
        raise GateInputMissing(
            WorkerReason.SOURCE_NOT_FOUND,
            f"there is no golden file {path.name}",
            field=FIELD,
            remedy="point it to a JSON Lines file with one item a line",
        ) from None
    items: list[GoldenItem] = []
    line_of: dict[str, int] = {}
    for number, line in enumerate(body.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        if not line.strip():
            continue
        item = _parse(path.name, number, line)
        if item.id in line_of:
            raise BadInput(
                WorkerReason.GOLDEN_DUPLICATE_IDS,
                f"{path.name}: the id {item.id!r} stands in line {line_of[item.id]} and in line {number}",
                field=FIELD,
                remedy="give every golden item an id of its own",
            )
        line_of[item.id] = number
        items.append(item)
    if not items:
        raise GateInputMissing(
            WorkerReason.GOLDEN_TOO_FEW_ITEMS,
            f"{path.name} holds no golden item",
            field=FIELD,
            remedy="add items: 30 that all pass prove a pass rate of 0.905",
        )
    return tuple(items)


def _parse(name: str, number: int, line: bytes) -> GoldenItem:
    try:
        return GoldenItem.model_validate(json.loads(line.decode()))
    except ValidationError as error:
        why = "; ".join(_explain(list(problem["loc"]), problem["msg"]) for problem in error.errors()[:3])
    except ValueError as error:
        why = str(error)
    raise BadInput(
        WorkerReason.MALFORMED_LINE,
        f"{name}, line {number}: {why}",
        field=FIELD,
        remedy="correct the line; an item has id, prompt or messages, and optionally "
        "reference, minSimilarity, exact, contains, regex, maxTokens, tags",
    )


def _explain(location: list[int | str], message: str) -> str:
    where = ".".join(str(part) for part in location)
    text = "unknown key" if message.startswith("Extra inputs") else message.removeprefix("Value error, ")
    text = "an item is a JSON object" if not where and "valid dictionary" in message else text
    return f"{where}: {text}" if where else text
