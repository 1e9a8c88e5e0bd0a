"""A run that is over but for its publication: every stage's result in a store, as the stages leave them."""

import json
import math
import shutil
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from dram_workers.context import StageContext, StageOutcome
from dram_workers.inputs import FetchedInputs
from dram_workers.publish import recheck, run
from dram_workers.results import GateRow, Measure, Output, StageResult
from dram_workers.stages import STAGE_CONFIG, Input, PublishConfig, StageConfig
from dram_workers.store.folder import FolderStore
from dram_workers.store.objects import ObjectStore
from dram_workers.store.stage import publish_result, stage_folder
from tests.workers.contexts import Remembered
from tests.workers.running import a_stage

BEGIN = datetime(2026, 5, 1, 9, 30, tzinfo=UTC)
SCHEDULE = {"start": 2.0, "end": 2.0}
TRAIN = {"layers": 2, "temperature": SCHEDULE, "alpha": {"start": 0.9, "end": 0.5}, "batchTokens": 800, "seed": 7,
         "maxLength": 192, "packing": False, "learningRate": 3e-4}  # fmt: skip
SPEC: dict[str, Any] = {
    "teacher": {"uri": "hf://example/teacher@main"},
    "student": {"fromTeacher": {"layers": 2}},
    "dataset": {"synthetic": {"promptsUri": "s3://models/prompts.jsonl"}, "maxLength": 192},
    "golden": {"uri": "s3://models/golden.jsonl"},
    "exports": [{"name": "q8", "gguf": {"type": "Q8_0"}}, {"name": "q4", "gguf": {"type": "Q4_K_M"}}],
}
QUESTIONS = (
    ("How do I reset the router?", "Hold the small button on the back for ten seconds until the light turns white."),
    ("Can I cancel within 14 days?", "Yes, you can cancel within 14 days without a fee."),
    ("What does roaming in the EU cost?", "Roaming in the EU costs nothing extra up to 20 GB a month."),
    ("Where is my bill?", "Open the app, choose Account, then Bills."),
)


@dataclass
class FinishedRun:
    """Stages in a folder's store; `publish` runs the publish stage over them."""

    folder: Path
    releasable: dict[str, bool] = field(default_factory=lambda: {"q8": True, "q4": True})
    steps: int = 12
    questions: tuple[tuple[str, str], ...] = QUESTIONS
    spec: dict[str, Any] = field(default_factory=lambda: SPEC)
    licence: str | None = "apache-2.0"
    gates: list[GateRow] = field(default_factory=list)
    warnings: tuple[str, ...] = ()
    inputs: dict[str, Input] = field(default_factory=dict)
    clock: datetime = BEGIN

    def __post_init__(self) -> None:
        self.store: ObjectStore = FolderStore(self.folder / "store")
        self._resolve()
        self._stage("data", "data", {}, {"dataset": {"facts.json": "{}"}}, facts={"trainSamples": 190, "duplicates": 3})
        self._stage(
            "train", "train", TRAIN, {"student": self._student()}, facts={"parameters": 98_000_000}, minutes=3.3
        )
        self._evaluate("teacher", "Teacher", 1.0)
        self._evaluate("student", "Student", 0.9)
        for number, (name, spec) in enumerate((e["name"], e["gguf"]) for e in self.spec["exports"]):
            if name in self.releasable:
                self._variant(name, spec["type"], 0.9 - 0.05 * number, 100.0 / (1 + number))

    def config(self, **execution: Any) -> PublishConfig:
        types = {export["name"]: export["gguf"]["type"] for export in self.spec["exports"]}
        identity = {
            "variants": [
                {"name": name, "gguf": types[name], "releasable": good} for name, good in self.releasable.items()
            ],
            "gates": [row.model_dump(mode="json") for row in self.gates],
            "manifest": self.spec,
            "warnings": self.warnings,
            "job": "default/support-bot",
        }
        config = STAGE_CONFIG.validate_python(
            a_stage("publish", identity, self.folder, key="f" * 64, inputs=self.inputs, execution=execution)
        )
        assert isinstance(config, PublishConfig)
        return config

    def context(self, config: PublishConfig) -> StageContext:
        work = self.folder / "work"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        inputs = FetchedInputs(self.inputs, config.execution, work)
        return StageContext(inputs, self.store, config.execution, Remembered(), work, threading.Event())

    def publish(self, **execution: Any) -> StageOutcome:
        config = self.config(**execution)
        return run(config, self.context(config))

    def still_stands(self, outcome: StageOutcome) -> bool:
        config = self.config()
        return recheck(config, self.context(config), StageResult(key=config.key, outputs=outcome.pinned))

    def report(self) -> str:
        return (self.folder / "store/reports/default/support-bot/report.html").read_text()

    def _resolve(self) -> None:
        facts: dict[str, Any] = {
            "architecture": "LlamaForCausalLM",
            "teacherLayers": 4,
            "teacherParameters": 134_515_008,
        }
        facts |= {"teacherLicence": self.licence} if self.licence else {}
        pinned = {"teacher": Output(uri="hf://example/teacher@0123abcd", digest="sha256:" + "1" * 64)}
        identity = {"teacher": "hf://example/teacher@main", "golden": "s3://models/golden.jsonl"}
        files = {"tokenizer": {"tokenizer.json": "{}"}, "golden": {"golden.jsonl": "{}"}}
        self._stage("resolve", "resolve", identity, files, facts=facts, pinned=pinned, minutes=0.05)

    def _student(self) -> dict[str, str]:
        rows = [
            {
                "step": step, "loss": 0.4 + 4 * math.exp(-step / 25) + 0.08 * math.sin(step * 1.7),
                "soft": 0.3 + 3.5 * math.exp(-step / 22), "hard": 0.6 + 5 * math.exp(-step / 30) + 0.1 * math.sin(step * 2.3),
                "alpha": 0.7 + 0.2 * math.cos(math.pi * step / self.steps), "temperature": 2.0,
                "learningRate": 3e-4 * min(step / 5, (1 + math.cos(math.pi * step / self.steps)) / 2),
            }
            for step in range(1, self.steps + 1)
        ]  # fmt: skip
        return {"model.safetensors": "weights", "train-log.jsonl": "".join(json.dumps(row) + "\n" for row in rows)}

    def _evaluate(self, name: str, subject: str, quality: float) -> None:
        identity = {"subject": subject, "variant": name if subject == "Variant" else None}
        rows = [self._answer(number, quality, subject) for number in range(len(self.questions))]
        passed = sum(row["passed"] for row in rows) / len(rows)
        score = sum(row["score"] for row in rows) / len(rows)
        measures = [
            Measure(name="goldenPassRate", value=passed, low=max(0.0, passed - 0.12), high=1.0, n=len(rows)),
            Measure(
                name="goldenScore", value=score, low=max(0.0, score - 0.06), high=min(1.0, score + 0.05), n=len(rows)
            ),
        ]
        if subject == "Variant":
            measures.append(
                Measure(name="klDivergence", value=(1 - quality) / 10, low=0.001, high=0.05, n=2048, unit="nats/token")
            )
        files = {
            "answers.jsonl": "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows),
            "scores.json": "{}",
        }
        self._stage(
            f"evaluate-{name}", "evaluate", identity, {"evaluation": files}, measures=tuple(measures), minutes=0.7
        )

    def _answer(self, number: int, quality: float, subject: str) -> dict[str, Any]:
        prompt, reference = self.questions[number]
        bad = subject == "Variant" and number % 5 == 1
        answer = reference.replace("14", "40").replace("can ", "cannot ") if bad else reference
        failed = ["figures"] if bad and "40" in answer else (["similarity", "nll"] if bad else [])
        score = 0.0 if failed else (1.0 if subject == "Teacher" else quality + 0.01 * (number % 7))
        row = {"id": f"item-{number:02}", "prompt": prompt, "reference": reference, "answer": answer, "failed": failed}
        return {
            **row,
            "similarity": 0.93 if bad else 0.99,
            "nll": 0.3 + (1 - quality),
            "score": round(score, 4),
            "passed": not failed,
        }

    def _variant(self, name: str, gguf: str, quality: float, mib: float) -> None:
        identity = {"variant": name, "gguf": gguf, "modelName": "support-bot"}
        measures = (
            Measure(name="sizeMiB", value=mib, unit="MiB"),
            Measure(name="bitsPerWeight", value=mib / 12, unit="bit"),
        )
        files = {"artifact": {f"support-bot-{gguf}.gguf": f"GGUF of {gguf}"}}
        self._stage(f"export-{name}", "export", identity, files, measures=measures, minutes=0.3)
        self._evaluate(name, "Variant", quality)
        speed = (
            Measure(name="tokensPerSecond", value=6000 / mib, low=5500 / mib, high=6500 / mib, n=59, unit="tokens/s"),
            Measure(name="p95LatencyMs", value=400 + mib, low=380 + mib, high=460 + mib, n=59, unit="ms"),
            Measure(name="peakMemoryMiB", value=mib * 1.9, n=3, unit="MiB"),
        )
        bench = {"bench": {"timings.json": "{}"}}
        self._stage(f"bench-{name}", "bench", {"variant": name}, bench, measures=speed, minutes=0.9)
        passed: Literal["Pass", "Fail"] = "Pass" if self.releasable[name] else "Fail"
        shown = next(m for m in speed if m.name == "p95LatencyMs")
        self.gates += [
            GateRow(variant=name, gate="quality.minGoldenPassRate", value=0.95, low=0.86, high=0.99, limit=0.8, verdict="Pass",
                    message="goldenPassRate must be at least 0.8 and is 0.95 [0.86, 0.99]"),
            GateRow(variant=name, gate="performance.p95LatencyMs", target="worker", value=shown.value, low=shown.low,
                    high=shown.high, limit=600.0 if passed == "Pass" else 300.0, unit="ms", verdict=passed,
                    message="p95LatencyMs must be in time" + ("" if passed == "Pass" else ": choose a smaller student")),
        ]  # fmt: skip

    def _stage(
        self, stage: str, kind: str, identity: dict[str, Any], folders: dict[str, dict[str, str]], *,
        measures: tuple[Measure, ...] = (), facts: dict[str, Any] | None = None, pinned: dict[str, Output] | None = None,
        minutes: float = 0.2,
    ) -> None:  # fmt: skip
        made = {}
        for name, files in folders.items():
            made[name] = self.folder / "made" / stage / name
            made[name].mkdir(parents=True)
            for path, text in files.items():
                (made[name] / path).write_text(text)
        config = self._config(stage, kind, identity)
        outcome = StageOutcome(folders=made, measures=measures, facts=facts or {}, pinned=pinned or {})
        result = publish_result(self.store, config, outcome, started_at=self.clock)
        self._backdate(config.kind, result.key, minutes)
        for name, output in result.outputs.items():
            uri = output.uri or self.store.uri(f"{stage_folder(config.kind, result.key)}/{output.path}")
            self.inputs[f"{stage}.{name}"] = Input(uri=uri, digest=output.digest)

    def _config(self, stage: str, kind: str, identity: dict[str, Any]) -> StageConfig:
        number = len(self.inputs)
        execution = {"golden": Input(uri="file:///unused", digest="sha256:0")} if kind == "data" else {}
        body = a_stage(kind, identity, self.folder, stage=stage, key=f"{number:064x}", execution=execution)
        return STAGE_CONFIG.validate_python(body)

    def _backdate(self, kind: Any, key: str, minutes: float) -> None:
        """Give the manifest the times of this story instead of the test's own."""
        name = f"{stage_folder(kind, key)}/manifest.json"
        manifest = json.loads(self.store.get_bytes(name) or b"")
        self.clock += timedelta(minutes=minutes)
        manifest["finishedAt"] = self.clock.strftime("%Y-%m-%dT%H:%M:%SZ")
        self.store.put_bytes(name, json.dumps(manifest).encode())
