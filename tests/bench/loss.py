"""The tiled loss against the dense one: time, and memory beside the gradients themselves.

`python -m tests.bench.loss tiled|dense [ForwardKL|ReverseKL|JSD]` measures one of them in a process of its own and prints
JSON.
"""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.bench.results import Row

TOKENS, VOCABULARY, WIDTH, TEACHER_WIDTH = 4096, 49_152, 576, 576
TILE_BYTES = 64 * 1024 * 1024
TEMPERATURE, ALPHA = 2.0, 0.7
REPEATS, TURNS = 2, 2


DIVERGENCES = {"ForwardKL": "", "ReverseKL": ".reverse_kl", "JSD": ".jsd"}
"""Divergences and what they add to the names of the measures."""


def rows() -> list[Row]:
    """Memory and seconds of one loss with its gradients, in FP32."""
    shape = f"N={TOKENS}, V={VOCABULARY}, D={WIDTH}, FP32, tile {TILE_BYTES >> 20} MiB; smaller is better"
    found = []
    for divergence, suffix in DIVERGENCES.items():
        # In turns, so that a neighbour on the machine disturbs both alike.
        turns = [(_measure("tiled", divergence), _measure("dense", divergence)) for _ in range(TURNS)]
        tiled, dense = (_best(runs) for runs in zip(*turns, strict=True))
        memory, seconds, cpu = (
            f"{shape}; gradients not counted",
            f"{shape}; best of {REPEATS * TURNS}",
            f"{shape}; best mean of {REPEATS}",
        )
        found += [
            _row(f"loss.extra_memory_bytes{suffix}", "bytes", tiled["bytes"], dense["bytes"], memory),
            _row(f"loss.seconds{suffix}", "s", tiled["seconds"], dense["seconds"], seconds),
            _row(f"loss.cpu_seconds{suffix}", "s", tiled["cpuSeconds"], dense["cpuSeconds"], cpu),
        ]
    return found


def _best(runs: tuple[dict[str, float], ...]) -> dict[str, float]:
    """The most memory and the least time of several processes."""
    return {name: (max if name == "bytes" else min)(run[name] for run in runs) for name in runs[0]}


def _row(measure: str, unit: str, ours: float, peer: float, note: str) -> Row:
    return Row(measure=measure, value=ours, unit=unit, peer="dense PyTorch", peerValue=peer, note=note)


def _measure(kind: str, divergence: str) -> dict[str, float]:
    command = [sys.executable, "-m", "tests.bench.loss", kind, divergence]
    ran = subprocess.run(command, check=True, capture_output=True, text=True)
    measured: dict[str, float] = json.loads(ran.stdout.splitlines()[-1])
    return measured


def _probe(kind: str, divergence: Any) -> dict[str, float]:
    """Peak memory above what was there before and the gradients, and the best time."""
    import torch

    from dram_workers.objective import Divergence
    from dram_workers.train.losses import Objective, Projection, TeacherStates, distillation_loss

    torch.manual_seed(0)
    hidden = torch.randn(TOKENS, WIDTH, requires_grad=True)
    weight = (torch.randn(VOCABULARY, WIDTH) * 0.05).requires_grad_()
    teacher_hidden, teacher_weight = torch.randn(TOKENS, TEACHER_WIDTH), torch.randn(VOCABULARY, TEACHER_WIDTH) * 0.05
    labels = torch.randint(0, VOCABULARY, (TOKENS,))
    objective = Objective(TEMPERATURE, ALPHA, TOKENS, TILE_BYTES, divergence=Divergence(type=divergence))

    def loss() -> torch.Tensor:
        if kind == "tiled":
            target = TeacherStates(Projection(teacher_weight), teacher_hidden)
            return distillation_loss(Projection(weight), hidden, target, labels, objective).total
        total: torch.Tensor = dense(divergence, hidden @ weight.T, teacher_hidden @ teacher_weight.T, labels)
        return total

    torch.randn(512, 512) @ torch.randn(512, 512)
    seconds, extra, total, cpu = [], [], 0.0, time.process_time()
    for _ in range(REPEATS):
        hidden.grad = weight.grad = None
        before, started = _start_of_peak(), time.perf_counter()
        value = loss()
        value.backward()  # type: ignore[no-untyped-call]
        seconds.append(time.perf_counter() - started)
        extra.append(_status("VmHWM") - before - hidden.nbytes - weight.nbytes)
        total = float(value.detach())
    cpu = (time.process_time() - cpu) / REPEATS
    return {"bytes": max(extra), "seconds": min(seconds), "cpuSeconds": cpu, "loss": total}


def dense(divergence: str, student_NV: Any, teacher_NV: Any, labels_N: Any) -> Any:
    """The loss as PyTorch's own functions say it, all logits in memory."""
    import math

    import torch
    from torch.nn.functional import cross_entropy, kl_div

    log_q, log_p = ((logits / TEMPERATURE).log_softmax(-1) for logits in (student_NV, teacher_NV))
    if divergence == "ForwardKL":
        soft = kl_div(log_q, log_p, reduction="batchmean", log_target=True)
    elif divergence == "ReverseKL":
        soft = kl_div(log_p, log_q, reduction="batchmean", log_target=True)
    else:
        log_m = torch.logaddexp(log_p, log_q) - math.log(2)
        soft = (
            kl_div(log_m, log_p, reduction="batchmean", log_target=True)
            + kl_div(log_m, log_q, reduction="batchmean", log_target=True)
        ) / 2
    return ALPHA * TEMPERATURE**2 * soft + (1 - ALPHA) * cross_entropy(student_NV, labels_N)


def _start_of_peak() -> int:
    """Forget the peak so far; returns the memory in use, in bytes."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


if __name__ == "__main__":
    print(json.dumps(_probe(sys.argv[1], (*sys.argv[2:], "ForwardKL")[0])))  # noqa: T201
