"""One tokenizer for every stage: the same text and ids as the model's own library makes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from dram_workers.data.tokenizer import ChatTokenizer, TemplateRefused
from dram_workers.errors import BadInput
from tests.models import write_tokenizer

CONVERSATION = [
    {"role": "system", "content": "Be short."},
    {"role": "user", "content": "Wie viel kostet das? 9,99 € – ok?\n\n  "},
    {"role": "assistant", "content": "It costs 9.99 euros."},
    {"role": "user", "content": "日本語 🎉 <|im_end|>"},
]


def test_text_and_ids_equal_those_of_transformers(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    folder = write_tokenizer(tmp_path)
    ours, theirs = ChatTokenizer.load(folder), AutoTokenizer.from_pretrained(folder)
    for generate in (False, True):
        text = ours.render(CONVERSATION, generate=generate)
        assert text == theirs.apply_chat_template(CONVERSATION, tokenize=False, add_generation_prompt=generate)
        assert ours.encode(text) == theirs.encode(text, add_special_tokens=False)
    expected = theirs.apply_chat_template(CONVERSATION, add_generation_prompt=True, return_dict=False)
    assert ours.prompt_ids(CONVERSATION) == expected


def test_loading_and_rendering_needs_no_torch(tmp_path: Path) -> None:
    folder = write_tokenizer(tmp_path)
    program = (
        "import sys; from pathlib import Path; import dram_workers.data; "
        "from dram_workers.data.tokenizer import ChatTokenizer; "
        f"ChatTokenizer.load(Path({str(folder)!r})).prompt_ids([{{'role': 'user', 'content': 'x'}}]); "
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_stop_ids_come_from_tokenizer_and_generation_config(tmp_path: Path) -> None:
    folder = write_tokenizer(tmp_path)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [0, 2]}))
    assert ChatTokenizer.load(folder).stop_ids == (2, 0)


def test_a_model_without_template_has_a_plain_form(tmp_path: Path) -> None:
    tokenizer = ChatTokenizer.load(write_tokenizer(tmp_path, chat=False))
    turns = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}]
    assert tokenizer.render(turns) == "Why?\n\nSo.<|im_end|>"
    assert tokenizer.render(turns[:1], generate=True) == "Why?\n\n"


@pytest.mark.parametrize(
    ("template", "want_text"),
    [
        ("{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}", "hello"),
        ("{{ strftime_now('%Y') if strftime_now is defined else 2024 }}", "2024"),
        ("{{ messages | tojson }}", '[{"role": "user", "content": "hello"}]'),
        ("{{ bos_token }}|{{ eos_token }}", "<|im_start|>|<|im_end|>"),
    ],
)
def test_what_templates_may_use(tmp_path: Path, template: str, want_text: str) -> None:
    folder = write_tokenizer(tmp_path)
    (folder / "chat_template.jinja").write_text(template)
    assert ChatTokenizer.load(folder).render([{"role": "user", "content": "hello"}]) == want_text


def test_a_template_that_refuses_says_why(tmp_path: Path) -> None:
    folder = write_tokenizer(tmp_path)
    (folder / "chat_template.jinja").write_text("{{ raise_exception('no system turn') }}")
    with pytest.raises(TemplateRefused, match="no system turn"):
        ChatTokenizer.load(folder).render([{"role": "system", "content": "x"}])


def test_a_template_cannot_reach_python(tmp_path: Path) -> None:
    folder = write_tokenizer(tmp_path)
    (folder / "chat_template.jinja").write_text("{{ messages.__class__.__mro__ }}")
    with pytest.raises(TemplateRefused):
        ChatTokenizer.load(folder).render([{"role": "user", "content": "x"}])


def test_a_model_without_tokenizer_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"no tokenizer\.json"):
        ChatTokenizer.load(tmp_path)
