"""The model card: what a stranger must know before he uses the file."""

from typing import Any

from dram_workers.publish.evidence import STUDENT, TEACHER, Evidence
from dram_workers.publish.figures import figure, interval
from dram_workers.publish.rendering import render
from dram_workers.stages import PublishConfig, PublishVariant
from dram_workers.store.manifest import FileEntry

CARD = "README.md"
"""The name under which model hubs show a card."""

SHOWN = ("goldenPassRate", "goldenScore", "scoreDrop", "teacherRetention", "klDivergence")


def model_card(config: PublishConfig, evidence: Evidence, variant: PublishVariant, files: tuple[FileEntry, ...]) -> str:
    """The card as Markdown with the front matter that model hubs read."""
    measures = evidence.of_variant(variant.name)
    quality = [(name, figure(measures[name]), interval(measures[name])) for name in SHOWN if name in measures]
    speed = [(name, figure(measure), interval(measure)) for name, measure in measures.items() if name not in SHOWN]
    spec = config.identity.manifest
    return render(
        "card.md.j2",
        name=config.job.name,
        variant=variant,
        licence=evidence.licence,
        teacher=_teacher(spec.get("teacher", {})),
        endpoint=spec.get("teacher", {}).get("endpoint"),
        teacher_pinned=config.inputs.get("resolve.teacher"),
        spec=spec,
        quality=quality,
        speed=speed,
        teacher_score=evidence.measures(f"evaluate-{TEACHER}").get("goldenScore"),
        student_score=evidence.measures(f"evaluate-{STUDENT}").get("goldenScore"),
        gates=[row for row in config.identity.gates if row.variant == variant.name],
        files=files,
        architecture=evidence.fact("resolve", "architecture"),
        digests=sorted(config.inputs.items()),
        figure=figure,
    )


def _teacher(named: dict[str, Any]) -> str:
    """The teacher's URI, or the name of the model that answers at an endpoint."""
    return str(named.get("uri") or named.get("endpoint", {}).get("model", "unknown"))
