"""Answer many prompts at once: left-padded batches whose finished rows leave at once.

Legend: B rows still unfinished, T tokens seen so far (padding included), V vocabulary.
"""

import hashlib
from collections.abc import Callable, Iterable

import numpy as np
import torch
from transformers import DynamicCache, PreTrainedModel

from dram_workers.synthesize.answers import Answer, Sampling, batches


@torch.inference_mode()
def generate(
    model: PreTrainedModel,
    answers: Iterable[Answer],
    sampling: Sampling,
    *,
    batch: int,
    each_step: Callable[[], None],
) -> None:
    """Fill `answers` in place, longest prompts together; `each_step` is called after every token of a batch."""
    for rows in batches(answers, batch):
        _generate_batch(model, rows, sampling, each_step)


def _generate_batch(
    model: PreTrainedModel, rows: list[Answer], sampling: Sampling, each_step: Callable[[], None]
) -> None:
    cache = DynamicCache(config=model.config)
    longest = max(len(row.prompt_ids) for row in rows)
    padding = [longest - len(row.prompt_ids) for row in rows]
    next_BT = torch.tensor([[0] * pad + row.prompt_ids for pad, row in zip(padding, rows, strict=True)])
    mask_BT = torch.tensor([[0] * pad + [1] * (longest - pad) for pad in padding])
    uniform = [_uniform(sampling, row.draw) for row in rows]
    for step in range(sampling.max_new_tokens):
        position_BT = (mask_BT.cumsum(-1) - 1).clamp(min=0)[:, -next_BT.shape[1] :]
        logits_BV = model(
            input_ids=next_BT.to(model.device),
            attention_mask=mask_BT.to(model.device),
            position_ids=position_BT.to(model.device),
            past_key_values=cache,
            logits_to_keep=1,
        ).logits[:, -1]
        chosen = _choose(logits_BV.float().cpu(), [drawn[step] for drawn in uniform], sampling.temperature)
        for row, token in zip(rows, chosen, strict=True):
            row.take(token, sampling.stop_ids)
        each_step()
        kept = [number for number, row in enumerate(rows) if not row.done]
        if not kept:
            return
        if len(kept) < len(rows):
            cache.batch_select_indices(torch.tensor(kept, device=model.device))
            rows, uniform = [rows[n] for n in kept], [uniform[n] for n in kept]
            mask_BT, chosen = mask_BT[kept], [chosen[n] for n in kept]
        next_BT = torch.tensor(chosen)[:, None]
        mask_BT = torch.cat([mask_BT, torch.ones_like(next_BT)], dim=1)


def _choose(logits_BV: torch.Tensor, uniform: list[float], temperature: float) -> list[int]:
    """The likeliest token, or the one where the cumulated probability passes the row's number."""
    if temperature == 0:
        return [int(token) for token in logits_BV.argmax(-1)]
    cumulated_BV = (logits_BV.double() / temperature).softmax(-1).cumsum(-1)
    found = torch.searchsorted(cumulated_BV, torch.tensor(uniform, dtype=torch.float64)[:, None])
    return [min(int(token), logits_BV.shape[-1] - 1) for token in found]


def _uniform(sampling: Sampling, draw: int) -> list[float]:
    """The random numbers of one answer, the same in every batch."""
    seed = int.from_bytes(hashlib.sha256(b"%d:%d" % (sampling.seed, draw)).digest()[:8])
    numbers: list[float] = np.random.default_rng(seed).random(sampling.max_new_tokens).tolist()
    return numbers
