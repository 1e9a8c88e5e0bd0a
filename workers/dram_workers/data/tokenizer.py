"""Text to token ids and back without torch: the tokenizer's own file and its chat template.

Every stage renders prompts here, so that all of them see the same text for the same conversation.
"""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from jinja2 import Template, TemplateError, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

from dram_workers.errors import BadInput, WorkerReason

Messages = list[dict[str, str]]
"""Turns with `role` and `content`, as chat templates take them."""

SPECIAL_NAMES = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token")


class TemplateRefused(ValueError):
    """The chat template cannot render this conversation."""


class _Generation(Extension):
    """Templates may mark answers with `{% generation %}`; the text is the same without the marks."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


@dataclass(frozen=True)
class ChatTokenizer:
    """A tokenizer with its chat template, if it has one."""

    backend: Tokenizer
    template: str | None
    special: dict[str, str]
    """Special tokens by name, e.g. `eos_token`."""
    stop_ids: tuple[int, ...]
    """Tokens that end an answer: the tokenizer's end of sequence and those of the generation config."""

    @classmethod
    def load(cls, folder: Path) -> "ChatTokenizer":
        """Read `tokenizer.json`, `tokenizer_config.json` and the chat template of a `from_pretrained` folder."""
        path = folder / "tokenizer.json"
        if not path.is_file():
            raise BadInput(
                WorkerReason.UNSUPPORTED_MODEL,
                "the model has no tokenizer.json",
                field="spec.teacher.uri",
                remedy="save it once with AutoTokenizer.from_pretrained(model).save_pretrained(folder)",
            )
        backend = Tokenizer.from_file(str(path))
        backend.no_padding()
        backend.no_truncation()
        config = _read_json(folder / "tokenizer_config.json")
        special = _special_tokens(_read_json(folder / "special_tokens_map.json") | config)
        stops = _as_list(_read_json(folder / "generation_config.json").get("eos_token_id"))
        if (eos := special.get("eos_token")) is not None and (eos_id := backend.token_to_id(eos)) is not None:
            stops = [eos_id, *stops]
        return cls(backend, _template(folder, config), special, tuple(dict.fromkeys(stops)))

    @property
    def eos_id(self) -> int | None:
        """Id of the end-of-sequence token, if there is one."""
        return self.backend.token_to_id(self.special["eos_token"]) if "eos_token" in self.special else None

    @cached_property
    def special_ids(self) -> frozenset[int]:
        """Ids that the tokenizer itself declares special."""
        return frozenset(number for number, token in self.backend.get_added_tokens_decoder().items() if token.special)

    @cached_property
    def prefix_ids(self) -> tuple[int, ...]:
        """What the tokenizer puts before plain text, e.g. the beginning-of-sequence token."""
        ids: list[int] = self.backend.encode("", add_special_tokens=True).ids
        return tuple(ids[:1]) if ids and ids[0] != self.eos_id else ()

    def encode(self, text: str) -> list[int]:
        """Token ids of a text as it stands, nothing added; special tokens in the text become their ids."""
        ids: list[int] = self.backend.encode(text, add_special_tokens=False).ids
        return ids

    def decode(self, ids: list[int]) -> str:
        """The text of token ids, special tokens left out."""
        text: str = self.backend.decode(ids, skip_special_tokens=True)
        return text

    def render(self, messages: Messages, *, generate: bool = False) -> str:
        """The conversation as one text; with `generate`, up to where the answer begins.

        A model without a template gets the plain form: questions end with a blank line, answers with the
        end-of-sequence token. Raises TemplateRefused when the template refuses the conversation.
        """
        if self.template is None:
            end = {"assistant": self.special.get("eos_token", "")}
            return "".join(turn["content"] + end.get(turn["role"], "\n\n") for turn in messages)
        try:
            text: str = self._compiled.render(messages=messages, add_generation_prompt=generate, **self.special)
        except (TemplateError, TypeError, KeyError) as error:
            raise TemplateRefused(str(error)) from error
        return text

    def prompt_ids(self, messages: Messages) -> list[int]:
        """Token ids after which the model answers."""
        prefix = self.prefix_ids if self.template is None else ()
        return [*prefix, *self.encode(self.render(messages, generate=True))]

    @cached_property
    def _compiled(self) -> Template:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, "jinja2.ext.loopcontrols"]
        )
        # `strftime_now` stays undefined on purpose: templates that ask for today's date then use their fixed one, and
        # the same data gives the same tokens tomorrow.
        environment.globals["raise_exception"] = _refuse
        environment.filters["tojson"] = _to_json
        return environment.from_string(self.template or "")


def _refuse(message: str) -> None:
    raise TemplateRefused(message)


def _to_json(value: object, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _special_tokens(config: dict[str, Any]) -> dict[str, str]:
    tokens = {name: config.get(name) for name in SPECIAL_NAMES}
    return {name: token["content"] if isinstance(token, dict) else token for name, token in tokens.items() if token}


def _template(folder: Path, config: dict[str, Any]) -> str | None:
    path = folder / "chat_template.jinja"
    if path.is_file():
        return path.read_text(encoding="utf-8")
    template = config.get("chat_template")
    if isinstance(template, list):
        return {entry["name"]: entry["template"] for entry in template}.get("default")
    return template


def _as_list(value: int | list[int] | None) -> list[int]:
    if value is None:
        return []
    return [value] if isinstance(value, int) else list(value)
