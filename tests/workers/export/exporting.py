"""Exporting a folder in a test, as the stage does it."""

from pathlib import Path

from dram_workers import export
from dram_workers.context import StageOutcome
from dram_workers.stages import Execution, ExportConfig, ExportIdentity, GgufType, JobRef
from tests.workers.contexts import a_context, store_settings


def run_export(folder: Path, student: Path, kind: str, *, name: str = "support-bot", threads: int = 2) -> StageOutcome:
    """Run the stage below `folder`."""
    execution = Execution(store=store_settings(folder), threads=threads)
    config = ExportConfig(
        stage="export",
        key="c" * 64,
        job=JobRef(namespace="n", name="j"),
        identity=ExportIdentity(variant="v", gguf=GgufType(kind), model_name=name),
        execution=execution,
    )
    return export.run(config, a_context(folder, {"student": student}, execution))


def exported(folder: Path, student: Path, kind: str) -> Path:
    """The file that the stage made."""
    return export.exported_file(run_export(folder, student, kind).folders["artifact"])
