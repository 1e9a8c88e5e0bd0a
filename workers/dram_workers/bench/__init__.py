"""Time the exported file in fresh processes of its device runtime. Torch-free."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from dram_workers.bench.target import EnergyCounter, processor
from dram_workers.context import StageContext, StageOutcome
from dram_workers.errors import BadInput, Interrupted, Transient, WorkerReason
from dram_workers.golden import read_golden
from dram_workers.intervals import quantile, quantile_bounds, ratio_bounds
from dram_workers.results import Measure
from dram_workers.stages import BenchConfig, BenchIdentity


@dataclass
class Timings:
    """What the processes told, a list entry an answer unless said otherwise."""

    prompt_tokens: list[int] = field(default_factory=list)
    answer_tokens: list[int] = field(default_factory=list)
    first_token_seconds: list[float] = field(default_factory=list)
    total_seconds: list[float] = field(default_factory=list)
    load_seconds: list[float] = field(default_factory=list)
    """One a process."""
    peak_memory_mib: list[float] = field(default_factory=list)
    """One a process."""
    joules: float | None = None
    """Of the whole processor package over all processes."""

    def add(self, fact: dict[str, float]) -> None:
        """Take one line of a process."""
        match fact:
            case {"loadSeconds": seconds}:
                self.load_seconds.append(seconds)
            case {"peakMemoryMiB": mib}:
                self.peak_memory_mib.append(mib)
            case {"promptTokens": prompt, "answerTokens": answer, "firstTokenSeconds": first, "totalSeconds": total}:
                self.prompt_tokens.append(int(prompt))
                self.answer_tokens.append(int(answer))
                self.first_token_seconds.append(first)
                self.total_seconds.append(total)
            case _:
                raise ValueError(f"a benchmark process told {sorted(fact)}")


def run(config: BenchConfig, context: StageContext) -> StageOutcome:
    """Measure latency, speed, memory and energy; output `bench` (`timings.json`)."""
    return measure_artifact(config.identity, context.inputs.path("artifact"), context)


def measure_artifact(identity: BenchIdentity, artifact: Path, context: StageContext) -> StageOutcome:
    """Measure the file of an exported artifact on the prompts of the golden suite; output `bench`."""
    from dram_workers.export import exported_file

    path = exported_file(artifact)
    prompts = _prompts(str(path), context)
    timed = [prompts[number % len(prompts)] for number in range(identity.timings)]
    processes = min(identity.processes, len(timed))
    timings, counter = Timings(), EnergyCounter()
    before = counter.read()
    for share in range(processes):
        task = {
            "path": str(path),
            "contextTokens": identity.context_tokens,
            "answerTokens": identity.answer_tokens,
            "threads": identity.threads,
            "prompts": timed[share::processes],
        }
        for fact in _measure(task, context):
            timings.add(fact)
            context.reporter.report(len(timings.total_seconds), identity.timings)
    timings.joules = counter.joules_since(before)
    name, flags = processor()
    folder = context.work / "bench"
    folder.mkdir(parents=True)
    target = {"name": identity.target, "cpu": name, "flags": flags, "cores": os.cpu_count()}
    (folder / "timings.json").write_text(
        json.dumps({"target": target, **vars(timings)}, indent=2) + "\n", encoding="utf-8"
    )
    return StageOutcome(
        folders={"bench": folder},
        measures=tuple(measures(timings)),
        facts={
            "target": identity.target,
            "cpu": name,
            "cpuFlags": flags,
            "threads": identity.threads,
            "contextTokens": identity.context_tokens,
            "promptTokensMedian": int(median(timings.prompt_tokens)),
            "answerTokens": identity.answer_tokens,
            "processes": len(timings.load_seconds),
        },
    )


def measures(timings: Timings) -> Iterator[Measure]:
    """The figures, with bounds where there are enough timings for them."""
    milliseconds = [1000 * seconds for seconds in timings.total_seconds]
    count = len(milliseconds)
    for name, share in (("p50LatencyMs", 0.5), ("p95LatencyMs", 0.95), ("p99LatencyMs", 0.99)):
        low, high = quantile_bounds(milliseconds, share)
        yield Measure(name=name, value=quantile(milliseconds, share), low=low, high=high, n=count, unit="ms")
    first = [1000 * seconds for seconds in timings.first_token_seconds]
    low, high = quantile_bounds(first, 0.5)
    yield Measure(name="timeToFirstTokenMs", value=quantile(first, 0.5), low=low, high=high, n=count, unit="ms")
    generated = [float(tokens - 1) for tokens in timings.answer_tokens]
    spent = [whole - first for whole, first in zip(timings.total_seconds, timings.first_token_seconds, strict=True)]
    yield _rate("tokensPerSecond", generated, spent)
    prompts = [float(tokens) for tokens in timings.prompt_tokens]
    yield _rate("promptTokensPerSecond", prompts, timings.first_token_seconds)
    processes = len(timings.load_seconds)
    yield Measure(name="loadMs", value=1000 * median(timings.load_seconds), n=processes, unit="ms")
    yield Measure(name="peakMemoryMiB", value=max(timings.peak_memory_mib), n=processes, unit="MiB")
    if timings.joules is not None:
        yield Measure(
            name="energyPerAnswerJ", value=timings.joules / count, n=count, unit="J", note="package, loading included"
        )


def _rate(name: str, tokens: Sequence[float], seconds: Sequence[float]) -> Measure:
    low, high = ratio_bounds(tokens, seconds, seed=0)
    value = sum(tokens) / sum(seconds) if sum(seconds) > 0 else 0.0
    return Measure(name=name, value=value, low=low, high=high, n=len(tokens), unit="tokens/s")


def _prompts(path: str, context: StageContext) -> list[str]:
    """The golden prompts as texts, rendered by the template inside the file."""
    from tokenizers import Tokenizer, models

    from dram_workers.data.tokenizer import ChatTokenizer, TemplateRefused
    from dram_workers.llamacpp import LlamaModel

    with LlamaModel(Path(path)) as model:
        special = {"bos_token": model.text_of(model.bos), "eos_token": model.text_of(model.eos)}
        renderer = ChatTokenizer(Tokenizer(models.BPE()), model.chat_template, special, ())
    items = read_golden(context.inputs.path("golden"))
    try:
        return [renderer.render(item.conversation, generate=True) for item in items]
    except TemplateRefused as error:
        raise BadInput(
            WorkerReason.MALFORMED_LINE, f"the chat template refuses a golden item: {error}", field="spec.golden.uri"
        ) from error


def _measure(task: dict[str, object], context: StageContext) -> Iterator[dict[str, float]]:
    """Run one fresh process; its facts as they come."""
    # Threads that spin while they wait take the cores from those that work, as soon as anything else runs.
    environment = os.environ | {"OMP_WAIT_POLICY": "PASSIVE"}
    command = [sys.executable, "-m", "dram_workers.bench.child"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=environment) as child:
        try:
            assert child.stdin is not None
            assert child.stdout is not None
            assert child.stderr is not None
            with suppress(BrokenPipeError):  # it died before it listened: its complaint says why
                json.dump(task, child.stdin)
                child.stdin.close()
            for line in child.stdout:
                if context.stopping.is_set():
                    raise Interrupted(WorkerReason.INTERRUPTED, "the benchmark was told to stop")
                yield json.loads(line)
            complaint, code = child.stderr.read(), child.wait()
        finally:
            child.kill()
    _check(code, complaint)


def _check(code: int, complaint: str) -> None:
    if code == -9:
        raise Transient(
            WorkerReason.OUT_OF_MEMORY,
            "the benchmark's process was killed, most likely for its memory",
            field="spec.podTemplate",
            remedy="give the pods more memory",
        )
    if code:
        raise BadInput(
            WorkerReason.RUNTIME_REFUSED,
            f"llama.cpp failed on the exported file: {complaint.strip().splitlines()[-1][:500] if complaint.strip() else code}",
            field="spec.exports",
            remedy="choose another export type, or report the model's architecture",
        )
