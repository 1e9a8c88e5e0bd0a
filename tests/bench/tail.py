"""What a top-k cache does to the gradient: every treatment of the tail against the teacher's whole distribution.

`python -m tests.bench.tail TEACHER` takes a folder that `python -m dram_operator.local.teacher TEACHER` wrote and prints
a table. The teacher answers questions of the example; the student is 20 of its 30 layers, as cut and after some steps.
The gradient is that of the hidden states below the head, which is all that the rest of the student gets to see.
"""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from dram_workers.train.student import cut_from

PROMPTS = Path(__file__).parents[2] / "examples" / "support-bot" / "prompts.jsonl"
QUESTIONS, ANSWER_TOKENS, STUDENT_LAYERS = 24, 40, 20
KEPT = (16, 32, 64, 128)
TEMPERATURES = (1.0, 1.5, 2.0, 3.0)
STEPS = (0, 20)


def bucket(log_q: Tensor, p: Tensor, ids: Tensor) -> Tensor:
    """The tail is one token: spread as the student spreads its own."""
    return _spread(p, ids, log_q.exp())


def renormalised(log_q: Tensor, p: Tensor, ids: Tensor) -> Tensor:
    """There is no tail."""
    kept = p.gather(1, ids)
    return torch.zeros_like(p).scatter(1, ids, kept / kept.sum(-1, keepdim=True))


def uniform(log_q: Tensor, p: Tensor, ids: Tensor) -> Tensor:
    """The tail is spread evenly."""
    return _spread(p, ids, torch.ones_like(p))


def unigram(log_q: Tensor, p: Tensor, ids: Tensor) -> Tensor:
    """The tail is spread as the teacher's mean distribution over these tokens."""
    return _spread(p, ids, p.mean(0, keepdim=True).expand_as(p))


TREATMENTS: tuple[Callable[[Tensor, Tensor, Tensor], Tensor], ...] = (bucket, renormalised, uniform, unigram)


def _spread(p: Tensor, ids: Tensor, prior: Tensor) -> Tensor:
    kept = p.gather(1, ids)
    rest = prior.scatter(1, ids, 0)
    rest *= (1 - kept.sum(-1, keepdim=True)) / rest.sum(-1, keepdim=True)
    return rest.scatter(1, ids, kept)


def compare(
    student_NV: Tensor, teacher_NV: Tensor, head_VD: Tensor
) -> Iterator[tuple[float, int, float, str, float, float]]:
    """Temperature, k, mass of the tail, treatment, cosine and norm of the gradient against the whole one."""
    for temperature in TEMPERATURES:
        log_q, p = (student_NV / temperature).log_softmax(-1), (teacher_NV / temperature).softmax(-1)
        whole = (log_q.exp() - p) @ head_VD
        for kept in KEPT:
            ids = p.topk(kept, -1).indices
            tail = float(1 - p.gather(1, ids).sum(-1).mean())
            for treatment in TREATMENTS:
                ours = (log_q.exp() - treatment(log_q, p, ids)) @ head_VD
                cosine = float((ours * whole).sum() / (ours.norm() * whole.norm()))
                yield temperature, kept, tail, treatment.__name__, cosine, float(ours.norm() / whole.norm())


def main(folder: Path) -> None:
    """Measure and print."""
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    teacher: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    rows = [_answered(tokenizer, teacher, json.loads(line)["messages"]) for line in _questions()]
    student: Any = cut_from(teacher, STUDENT_LAYERS, "sdpa")
    head_VD = teacher.lm_head.weight.detach()
    optimizer = torch.optim.AdamW(student.parameters(), lr=3e-4, weight_decay=0.0)
    for step in range(max(STEPS) + 1):
        if step in STEPS:
            with torch.no_grad():
                pairs = [(_logits(student, row), _logits(teacher, row)) for row in rows]
            ours_NV, theirs_NV = (torch.cat(side) for side in zip(*pairs, strict=True))
            measured = compare(ours_NV, theirs_NV, head_VD)
            for figures in measured:
                print(f"step {step:3d}  T {figures[0]:.1f}  k {figures[1]:4d}  tail {figures[2]:6.1%}  "  # noqa: T201
                      f"{figures[3]:12s}  cosine {figures[4]:.3f}  norm {figures[5]:.2f}", flush=True)  # fmt: skip
        for row in rows[step % 3 :: 3]:
            with torch.no_grad():
                target = _logits(teacher, row).softmax(-1)
            loss = -(target * _logits(student, row).log_softmax(-1)).sum(-1).mean()
            (loss / 8).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()


def _questions() -> list[str]:
    return PROMPTS.read_text().splitlines()[:QUESTIONS]


def _answered(tokenizer: Any, teacher: Any, messages: list[dict[str, str]]) -> tuple[Tensor, int]:
    """A question with the teacher's greedy answer, and where the answer begins."""
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    asked = tokenizer(text, return_tensors="pt", add_special_tokens=False).input_ids
    return teacher.generate(asked, max_new_tokens=ANSWER_TOKENS, do_sample=False), asked.shape[1]


def _logits(model: Any, row: tuple[Tensor, int]) -> Tensor:
    logits: Tensor = model(input_ids=row[0]).logits[0, row[1] - 1 : -1]
    return logits


if __name__ == "__main__":
    main(Path(sys.argv[1]))
