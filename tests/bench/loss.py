"""The tiled loss against the dense one: time, and memory beside the gradients themselves.

`python -m tests.bench.loss tiled|dense` measures one of them in a process of its own and prints JSON.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

from tests.bench.results import Row

TOKENS, VOCABULARY, WIDTH, TEACHER_WIDTH = 4096, 49_152, 576, 576
TILE_BYTES = 64 * 1024 * 1024
TEMPERATURE, ALPHA = 2.0, 0.7
REPEATS = 3


def rows() -> list[Row]:
    """Memory and seconds of one loss with its gradients, in FP32."""
    tiled, dense = _measure("tiled"), _measure("dense")
    shape = f"N={TOKENS}, V={VOCABULARY}, D={WIDTH}, FP32, tile {TILE_BYTES >> 20} MiB; smaller is better"
    return [
        _row("loss.extra_memory_bytes", "bytes", tiled["bytes"], dense["bytes"], f"{shape}; gradients not counted"),
        _row("loss.seconds", "s", tiled["seconds"], dense["seconds"], f"{shape}; best of {REPEATS}"),
    ]


def _row(measure: str, unit: str, ours: float, peer: float, note: str) -> Row:
    return Row(measure=measure, value=ours, unit=unit, peer="dense PyTorch", peerValue=peer, note=note)


def _measure(kind: str) -> dict[str, float]:
    ran = subprocess.run([sys.executable, "-m", "tests.bench.loss", kind], check=True, capture_output=True, text=True)
    measured: dict[str, float] = json.loads(ran.stdout.splitlines()[-1])
    return measured


def _probe(kind: str) -> dict[str, float]:
    """Peak memory above what was there before and the gradients, and the best time."""
    import torch

    from dram_workers.train.losses import Objective, Projection, TeacherStates, distillation_loss

    torch.manual_seed(0)
    hidden = torch.randn(TOKENS, WIDTH, requires_grad=True)
    weight = (torch.randn(VOCABULARY, WIDTH) * 0.05).requires_grad_()
    teacher_hidden, teacher_weight = torch.randn(TOKENS, TEACHER_WIDTH), torch.randn(VOCABULARY, TEACHER_WIDTH) * 0.05
    labels = torch.randint(0, VOCABULARY, (TOKENS,))

    def tiled() -> torch.Tensor:
        objective = Objective(TEMPERATURE, ALPHA, TOKENS, TILE_BYTES)
        return distillation_loss(
            Projection(weight), hidden, TeacherStates(Projection(teacher_weight), teacher_hidden), labels, objective
        ).total

    def dense() -> torch.Tensor:
        from torch.nn.functional import cross_entropy, kl_div

        student_NV, teacher_NV = hidden @ weight.T, teacher_hidden @ teacher_weight.T
        soft = kl_div(
            (student_NV / TEMPERATURE).log_softmax(-1),
            (teacher_NV / TEMPERATURE).log_softmax(-1),
            reduction="batchmean",
            log_target=True,
        )
        return ALPHA * TEMPERATURE**2 * soft + (1 - ALPHA) * cross_entropy(student_NV, labels)

    loss = tiled if kind == "tiled" else dense
    torch.randn(512, 512) @ torch.randn(512, 512)
    seconds, extra, total = [], [], 0.0
    for _ in range(REPEATS):
        hidden.grad = weight.grad = None
        before, started = _start_of_peak(), time.perf_counter()
        value = loss()
        value.backward()  # type: ignore[no-untyped-call]
        seconds.append(time.perf_counter() - started)
        extra.append(_status("VmHWM") - before - hidden.nbytes - weight.nbytes)
        total = float(value.detach())
    return {"bytes": max(extra), "seconds": min(seconds), "loss": total}


def _start_of_peak() -> int:
    """Forget the peak so far; returns the memory in use, in bytes."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


if __name__ == "__main__":
    print(json.dumps(_probe(sys.argv[1])))  # noqa: T201
