"""Training text as the user wrote it: JSON Lines in chat or completion form, and plain text."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dram_workers.data.tokenizer import Messages
from dram_workers.errors import BadInput, WorkerReason
from dram_workers.stages import canonical_json

ROLES = ("system", "user", "assistant")
SUFFIXES = (".jsonl", ".txt")


@dataclass(frozen=True)
class Record:
    """One conversation, or one plain text."""

    source: str
    """URI of the source, or `synthetic`."""
    place: str
    """File and line, for messages to people."""
    weight: float
    messages: tuple[tuple[str, str], ...] = ()
    """Turns as (role, content); empty for plain text."""
    text: str = ""
    """Plain text; empty for a conversation."""
    finished: bool = True
    """False when the last answer was cut off, so that its end of turn is nothing to learn."""

    @property
    def turns(self) -> Messages:
        """The conversation in the form that chat templates take."""
        return [{"role": role, "content": content} for role, content in self.messages]

    @property
    def content(self) -> bytes:
        """The same bytes for the same training text, wherever it comes from."""
        return canonical_json([list(self.messages), self.text, self.finished])


def read_source(path: Path, *, source: str, weight: float, field: str) -> Iterator[Record]:
    """Records of a file, or of every `.jsonl` and `.txt` below a folder in the order of their paths.

    `field` is where the spec names the source. BadInput(MalformedLine) names file and line.
    """
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    known = [file for file in files if file.suffix in SUFFIXES]
    if not known:
        raise BadInput(
            WorkerReason.SOURCE_NOT_FOUND,
            f"{source} holds no .jsonl and no .txt file",
            field=field,
            remedy="name a JSON Lines file (.jsonl), a text file (.txt), or a folder of such files",
        )
    for file in known:
        name = file.name if file == path else file.relative_to(path).as_posix()
        if file.suffix == ".txt":
            text = _decode(file.read_bytes(), f"{name}", field)
            yield Record(source=source, place=name, weight=weight, text=text)
        else:
            yield from _read_lines(file, name, source, weight, field)


def read_prompts(path: Path, *, field: str) -> Iterator[Record]:
    """Prompts of a JSON Lines file or of a folder of them: `prompt`, or `messages` that end with a user turn."""
    files = [path] if path.is_file() else sorted(path.rglob("*.jsonl"))
    for file in files:
        for place, line in _lines(file, file.name):
            row = _row(line, place, field)
            if "messages" in row:
                messages = _turns(row["messages"], place, field)
            else:
                messages = (("user", _text(row, "prompt", place, field)),)
            if messages[-1][0] != "user":
                raise _malformed(place, f"messages must end with a user turn, not with {messages[-1][0]}", field)
            yield Record(source="prompts", place=place, weight=1.0, messages=messages)


def _lines(file: Path, name: str) -> Iterator[tuple[str, bytes]]:
    """Lines that are not blank, each with its place."""
    for number, line in enumerate(file.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        if line.strip():
            yield f"{name}, line {number}", line


def _read_lines(file: Path, name: str, source: str, weight: float, field: str) -> Iterator[Record]:
    for place, line in _lines(file, name):
        row = _row(line, place, field)
        yield Record(
            source=source,
            place=place,
            weight=weight,
            messages=_messages(row, place, field),
            finished=row.get("finished") is not False,
        )


def _row(line: bytes, place: str, field: str) -> dict[str, Any]:
    try:
        row = json.loads(_decode(line, place, field))
    except ValueError as error:
        raise _malformed(place, f"not JSON: {error}", field) from None
    if not isinstance(row, dict):
        raise _malformed(place, f"a line is a JSON object, not {type(row).__name__}", field)
    return row


def _messages(row: dict[str, Any], place: str, field: str) -> tuple[tuple[str, str], ...]:
    if "messages" in row:
        return _chat(row["messages"], place, field)
    prompt, completion = (_text(row, key, place, field) for key in ("prompt", "completion"))
    return (("user", prompt), ("assistant", completion))


def _text(row: dict[str, Any], key: str, place: str, field: str) -> str:
    value = row.get(key)
    if not isinstance(value, str) or not value.strip():
        raise _malformed(place, f"{key} must be a text that is not empty, found {_show(value)}", field)
    return value


def _chat(messages: object, place: str, field: str) -> tuple[tuple[str, str], ...]:
    turns = _turns(messages, place, field)
    if all(role != "assistant" for role, _ in turns):
        raise _malformed(place, "messages has no assistant turn to learn from", field)
    return turns


def _turns(messages: object, place: str, field: str) -> tuple[tuple[str, str], ...]:
    if not isinstance(messages, list) or not messages:
        raise _malformed(place, f"messages must be a list that is not empty, found {_show(messages)}", field)
    turns = []
    for number, turn in enumerate(messages):
        role, content = (turn.get("role"), turn.get("content")) if isinstance(turn, dict) else (None, None)
        if role not in ROLES:
            raise _malformed(
                place, f"messages[{number}].role must be one of {', '.join(ROLES)}, found {_show(role)}", field
            )
        if not isinstance(content, str) or (role == "assistant" and not content.strip()):
            raise _malformed(place, f"messages[{number}].content must be a text, found {_show(content)}", field)
        turns.append((str(role), content))
    if turns[0][0] == "assistant":
        raise _malformed(place, "messages must not begin with an assistant turn", field)
    return tuple(turns)


def _decode(body: bytes, place: str, field: str) -> str:
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _malformed(place, f"not UTF-8: {error.reason} at byte {error.start}", field) from None


def _show(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "..."


def _malformed(place: str, why: str, field: str) -> BadInput:
    return BadInput(
        WorkerReason.MALFORMED_LINE,
        f"{place}: {why}",
        field=field,
        remedy='write {"messages": [{"role", "content"}, …]} or {"prompt", "completion"} on every line',
    )
