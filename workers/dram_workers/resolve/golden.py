"""Whether the golden suite can prove what the gates ask."""

from pathlib import Path

from dram_workers.errors import BadInput, WorkerReason
from dram_workers.golden import read_golden
from dram_workers.stages import ProofNeed

ONE_SIDED = 0.05
"""What is left of certainty at 95 %."""


def check_golden(folder: Path, needs: tuple[ProofNeed, ...]) -> int:
    """Read the suite, the only file in `folder`; returns its items' number. BadInput names the limit out of reach."""
    files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
    if len(files) != 1:
        raise BadInput(
            WorkerReason.SOURCE_NOT_FOUND,
            f"{len(files)} files where the golden suite should be",
            field="spec.golden.uri",
            remedy="Point it to one JSON Lines file.",
        )
    items = len(read_golden(files[0]))
    for need in needs:
        if items < need.items:
            provable = ONE_SIDED ** (1 / items)
            raise BadInput(
                WorkerReason.GOLDEN_TOO_FEW_ITEMS,
                f"a limit of {need.limit:g} takes {need.items} golden items to prove even when all pass, "
                f"and {files[0].name} has {items}",
                field=need.field,
                remedy=f"Add {need.items - items} items to spec.golden.uri, or lower the limit to {_floor(provable)} or less.",
            )
    return items


def _floor(share: float) -> str:
    """Three digits, rounded down: rounded up it would be out of reach again."""
    return f"{int(share * 1000) / 1000:.3f}"
