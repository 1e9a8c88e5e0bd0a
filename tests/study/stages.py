"""The stages of a job up to the evaluated float student, one process after the other, with results shared in one store."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from dram_operator.api.distillation_job import DistillationJob
from dram_operator.api.spec import Storage
from dram_operator.api.status import PlannedStage
from dram_operator.core.configs import Results, build_config, inputs_of
from dram_operator.core.installation import Installation
from dram_operator.core.plan import plan_stages
from dram_workers.results import Output, StageMessage
from dram_workers.stages import StageKind


class StageFailed(Exception):
    """A stage ended badly; the message says how, and where its log lies."""


@dataclass(frozen=True)
class Laboratory:
    """A folder with the store, and where the manifest's addresses lie on this machine."""

    root: Path
    mounts: dict[str, str]

    @property
    def store(self) -> Path:
        """Results of all runs."""
        return self.root / "store"

    def train_and_evaluate(self, job: DistillationJob) -> Results:
        """Results of every stage that serves all variants, by the stage's id; what was done before is found."""
        installation = Installation(
            storage=Storage(uri=self.store.as_uri()),
            on_cluster=False,
            mounts=self.mounts,
            cache=str(self.root / "cache"),
        )
        plan, results = plan_stages(job.spec, job.metadata.name), Results()
        for node in plan:
            if node.variant is None and node.kind is not StageKind.PUBLISH:
                inputs = inputs_of(node, plan, results, self.store.as_uri())
                config = build_config(job, node, inputs, 1, installation)
                scratch = config.execution.model_copy(update={"scratch": str(self.root / "scratch")})
                message = self._run(node, config.model_copy(update={"execution": scratch}).model_dump_json())
                if message.result is not None:
                    results[node.id] = message.result
        return results

    def forget_checkpoints(self) -> None:
        """Remove what only an interrupted training needs: more than a gigabyte a run."""
        shutil.rmtree(self.store / "checkpoints", ignore_errors=True)

    def folder(self, output: Output, key: str, kind: StageKind) -> Path:
        """Where an output lies."""
        if output.uri is None:
            return self.store / "stages" / kind / key / str(output.path)
        prefix = next((prefix for prefix in self.mounts if output.uri.startswith(prefix)), "file://")
        return Path(self.mounts.get(prefix, "") + output.uri.removeprefix(prefix))

    def _run(self, node: PlannedStage, config: str) -> StageMessage:
        folder = self.root / "stages" / node.id
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(config)
        told = folder / "termination-log"
        told.unlink(missing_ok=True)
        with (folder / "log").open("wb") as log:
            command = [sys.executable, "-m", "dram_workers", node.kind, "--config", str(folder / "config.json")]
            environment = os.environ | {"DRAM_TERMINATION_LOG": str(told)}
            code = subprocess.run(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, check=False
            ).returncode
        message = StageMessage.model_validate_json(told.read_bytes()) if told.exists() else StageMessage(reason="?")
        if code:
            raise StageFailed(
                f"{node.id}: {message.reason}: {message.message} (exit code {code}; see {folder / 'log'})"
            )
        return message
