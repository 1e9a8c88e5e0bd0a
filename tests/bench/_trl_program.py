"""TRL's trainers on given tokens, in an environment of their own: `python _trl_program.py TRAINER JOB.json`.

TRAINER is `distillation` (the stable trainer; its own generation is replaced by the given completions, which is the
off-policy setting that it does not offer itself) or `gkd` (the experimental one with lmbda 0). JOB names teacher, student,
rows and steps. Prints JSON: seconds of every step, memory before the models were loaded and at its peak after the warm-up.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback


def status(name: str) -> int:
    """A line of this process's status, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


class Clock(TrainerCallback):
    """Notes when steps begin and end; forgets the peak of memory when the warm-up is over."""

    def __init__(self, warmup: int) -> None:
        self.warmup = warmup
        self.marks: list[float] = []

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.marks.append(time.perf_counter())

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.marks.append(time.perf_counter())
        if len(self.marks) == self.warmup + 1:
            Path("/proc/self/clear_refs").write_text("5")


def distillation(job: dict[str, Any], models: dict[str, Any], clock: Clock, settings: dict[str, Any]) -> Any:
    """The stable trainer, which matches the teacher on completions without holding all logits."""
    from trl import DistillationConfig, DistillationTrainer

    class GivenCompletions(DistillationTrainer):  # type: ignore[misc]
        """Its completions are those of the data."""

        def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
            prompts = torch.tensor([row["prompt_ids"] for row in inputs])
            completions = torch.tensor([row["completion_ids"] for row in inputs])
            return {
                "prompt_ids": prompts,
                "prompt_mask": torch.ones_like(prompts),
                "completion_ids": completions,
                "completion_mask": torch.ones_like(completions),
                "num_items_in_batch": torch.tensor(float(completions.numel())),
            }

    config = DistillationConfig(
        **settings, beta=0.0, temperature=1.0, max_completion_length=len(job["rows"][0]["completion_ids"])
    )
    rows = Dataset.from_list([{"prompt": "", **row} for row in job["rows"]])
    return GivenCompletions(**models, args=config, train_dataset=rows, callbacks=[clock])


def gkd(job: dict[str, Any], models: dict[str, Any], clock: Clock, settings: dict[str, Any]) -> Any:
    """The experimental trainer, which holds the logits of both models."""
    from trl.experimental.gkd import GKDConfig, GKDTrainer

    def collate(rows: list[dict[str, Any]]) -> dict[str, Any]:
        ids = torch.tensor([row["prompt_ids"] + row["completion_ids"] for row in rows])
        labels = torch.tensor([[-100] * len(row["prompt_ids"]) + row["completion_ids"] for row in rows])
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}

    config = GKDConfig(**settings, lmbda=0.0, beta=0.0, temperature=1.0, max_length=256)
    rows = Dataset.from_list(job["rows"])
    return GKDTrainer(**models, args=config, train_dataset=rows, data_collator=collate, callbacks=[clock])


def main(trainer: str, file: Path) -> dict[str, Any]:
    """Train for the job's steps."""
    job = json.loads(file.read_text())
    torch.set_num_threads(job["threads"])
    base = status("VmRSS")
    models = {
        "model": AutoModelForCausalLM.from_pretrained(job["student"], dtype=torch.float32),
        "teacher_model": AutoModelForCausalLM.from_pretrained(job["teacher"], dtype=torch.bfloat16),
        "processing_class": AutoTokenizer.from_pretrained(job["teacher"], padding_side="left"),
    }
    clock = Clock(job["warmup"])
    settings = {
        "output_dir": str(file.parent / "trl-output"),
        "per_device_train_batch_size": job["batch"],
        "gradient_accumulation_steps": 1,
        "max_steps": job["warmup"] + job["steps"],
        "learning_rate": 1e-4,
        "bf16": True,
        "use_cpu": True,
        "gradient_checkpointing": False,
        "optim": "adamw_torch_fused",
        "report_to": "none",
        "save_strategy": "no",
        "logging_steps": 1,
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        "remove_unused_columns": False,
    }
    made = {"distillation": distillation, "gkd": gkd}[trainer](job, models, clock, settings)
    made.train()
    seconds = [after - before for before, after in zip(clock.marks, clock.marks[1:], strict=False)]
    return {"base": base, "peak": status("VmHWM"), "seconds": seconds[job["warmup"] :]}


if __name__ == "__main__":
    measured = main(sys.argv[1], Path(sys.argv[2]))
    print(json.dumps(measured))  # noqa: T201
