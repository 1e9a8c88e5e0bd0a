"""Records to samples: token ids, and which of them the student learns."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from tokenizers import Encoding

from dram_workers.data.sources import Record
from dram_workers.data.tokenizer import ChatTokenizer, Messages, TemplateRefused
from dram_workers.errors import BadInput, WorkerReason


@dataclass(frozen=True)
class Sample:
    """One training sequence."""

    id: str
    record: Record
    tokens: tuple[int, ...]
    loss_mask: tuple[int, ...]
    """1 where the token is a target."""
    group: bytes
    """Samples of one group (one prompt) fall on the same side of the validation split."""
    cut: bool = False
    """Whether maxLength took something away."""


@dataclass(frozen=True)
class Rendered:
    """A conversation as text, with the spans that an answer covers."""

    text: str
    answers: tuple[tuple[int, int], ...]
    """Half-open ranges of characters: each answer with its end-of-turn token."""


def to_samples(
    record: Record, tokenizer: ChatTokenizer, *, max_length: int, loss_on_all: bool, field: str
) -> Iterator[Sample]:
    """Samples of one record; none has more than `max_length` tokens, and each has at least one target.

    A conversation is one sample. Where the chat template rewrites earlier answers once a conversation goes on, each
    answer is a sample of its own, as the model would meet it. Plain text is cut into consecutive samples.
    """
    if not record.messages:
        yield from _plain(record, tokenizer, max_length)
        return
    try:
        rendered = _render(tokenizer, record.turns)
    except TemplateRefused as error:
        raise BadInput(
            WorkerReason.MALFORMED_LINE,
            f"{record.place}: the chat template refuses the conversation: {error}",
            field=field,
            remedy="bring the turns into the order that the model's chat template asks for",
        ) from None
    group = _digest(repr(_asked(record.messages)).encode())
    for number, text in enumerate(rendered):
        finished = record.finished or number < len(rendered) - 1
        tokens, mask = _tokenize(tokenizer, text, loss_on_all=loss_on_all, finished=finished)
        if any(mask[1:max_length]):
            name = _digest(record.content + b"#%d" % number if number else record.content).hex()[:16]
            cut = len(tokens) > max_length
            yield Sample(name, record, tokens[:max_length], mask[:max_length], group, cut)


def _render(tokenizer: ChatTokenizer, turns: Messages) -> list[Rendered]:
    """The conversation as one text when every prefix of it renders to a prefix of that text, else a text an answer."""
    whole = tokenizer.render(turns)
    ends = [number + 1 for number, turn in enumerate(turns) if turn["role"] == "assistant"]
    prefixes = [tokenizer.render(turns[:end]) for end in ends]
    spans = [_answer(tokenizer, turns[:end], text) for end, text in zip(ends, prefixes, strict=True)]
    grows = all(longer.startswith(shorter) for shorter, longer in pairwise([*prefixes, whole]))
    if grows and all(before[1] <= after[0] for before, after in pairwise(spans)):
        return [Rendered(whole, tuple(spans))]
    return [Rendered(text, (span,)) for text, span in zip(prefixes, spans, strict=True)]


def _answer(tokenizer: ChatTokenizer, turns: Messages, text: str) -> tuple[int, int]:
    """Where the last turn's answer begins and ends in the rendered text of the conversation up to it."""
    prompt = tokenizer.render(turns[:-1], generate=True)
    if not text.startswith(prompt):
        raise TemplateRefused(
            "an answer does not continue the text that asks for it, so its tokens cannot be told apart"
        )
    return len(prompt), len(text)


def _tokenize(
    tokenizer: ChatTokenizer, rendered: Rendered, *, loss_on_all: bool, finished: bool
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    prefix = tokenizer.prefix_ids if tokenizer.template is None else ()
    encoding = tokenizer.backend.encode(rendered.text, add_special_tokens=False)
    tokens = (*prefix, *encoding.ids)
    if loss_on_all:
        return tokens, (1,) * len(tokens)
    mask = [0] * len(encoding.ids)
    for span in rendered.answers:
        with_end = finished or span != rendered.answers[-1]
        for position in _targets(tokenizer, encoding, span, with_end=with_end):
            mask[position] = 1
    return tokens, (*(0 for _ in prefix), *mask)


def _targets(tokenizer: ChatTokenizer, encoding: Encoding, span: tuple[int, int], *, with_end: bool) -> list[int]:
    """Positions of an answer's tokens up to its end-of-turn token; without that when the answer was cut off.

    Templates put white space behind the end of a turn; the model stops before it, so it is no target.
    """
    inside = [n for n, (start, end) in enumerate(encoding.offsets) if span[0] <= start and end <= span[1]]
    last = max((n for n in inside if encoding.ids[n] in tokenizer.special_ids), default=None)
    if last is None or tokenizer.decode([encoding.ids[n] for n in inside if n > last]).strip():
        return inside
    return [n for n in inside if n < last + with_end]


def _plain(record: Record, tokenizer: ChatTokenizer, max_length: int) -> Iterator[Sample]:
    if not record.text.strip():
        return
    end = () if tokenizer.eos_id is None else (tokenizer.eos_id,)
    body = (*tokenizer.encode(record.text), *end)
    prefix = tokenizer.prefix_ids
    size = max_length - len(prefix)
    for start in range(0, len(body), size):
        tokens = (*prefix, *body[start : start + size])
        if len(tokens) > 1:
            group = _digest(repr(tokens).encode())
            yield Sample(group.hex()[:16], record, tokens, (1,) * len(tokens), group)


def _asked(messages: tuple[tuple[str, str], ...]) -> list[tuple[str, str]]:
    """Everything before the last answer."""
    last = max(number for number, (role, _) in enumerate(messages) if role == "assistant")
    return list(messages[:last])


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()
