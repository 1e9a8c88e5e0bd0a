"""Student folder to one GGUF file, proven in llama.cpp. Torch-free."""

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from dram_workers.context import StageContext, StageOutcome
from dram_workers.results import Measure
from dram_workers.stages import ExportConfig, ExportIdentity

if TYPE_CHECKING:
    from dram_workers.export.checkpoint import Checkpoint

MIB = 1024 * 1024


def run(config: ExportConfig, context: StageContext) -> StageOutcome:
    """Write, load and prove the variant's file; measures `sizeMiB` and `bitsPerWeight`."""
    from dram_workers.export.checkpoint import Checkpoint

    return export_checkpoint(config.identity, Checkpoint(context.inputs.path("student")), context)


def export_checkpoint(identity: ExportIdentity, checkpoint: "Checkpoint", context: StageContext) -> StageOutcome:
    """Write, load and prove the file of a student; output `artifact`."""
    from dram_workers.export.gguf_file import Conversion, plan_tensors, write_gguf
    from dram_workers.export.proof import prove
    from dram_workers.export.vocabulary import read_vocabulary

    plan = plan_tensors(checkpoint, identity.gguf)
    vocabulary = read_vocabulary(checkpoint, plan.shape.vocabulary)
    folder = context.work / "artifact"
    folder.mkdir(parents=True)
    path = folder / file_name(identity.model_name, identity.gguf.value)
    conversion = Conversion(checkpoint, plan, vocabulary, identity.gguf, identity.model_name)
    threads = context.execution.threads or os.cpu_count() or 1
    write_gguf(conversion, path, threads=threads, reporter=context.reporter, stopping=context.stopping)
    proven = prove(path, vocabulary)
    size = path.stat().st_size
    return StageOutcome(
        folders={"artifact": folder},
        measures=(
            Measure(name="sizeMiB", value=size / MIB, unit="MiB"),
            Measure(name="bitsPerWeight", value=plan.bits_per_weight, unit="bit"),
        ),
        facts={
            "file": path.name,
            "sizeBytes": size,
            "tensors": len(plan.tensors),
            "types": " ".join(f"{kind}:{count}" for kind, count in sorted(plan.kinds.items())),
            "preTokenizer": vocabulary.pre,
            "provenTexts": proven,
        },
    )


def file_name(model_name: str, file_type: str) -> str:
    """`<model name>-<TYPE>.gguf`, with what does not belong into a file name replaced."""
    return f"{re.sub(r'[^A-Za-z0-9._-]+', '-', model_name).strip('-.') or 'model'}-{file_type}.gguf"


def exported_file(folder: Path) -> Path:
    """The one GGUF file of an artifact."""
    (path,) = folder.glob("*.gguf")
    return path
