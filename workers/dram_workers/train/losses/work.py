"""The buffers of the tiled loss, made once and used for every tile; legend as in `tiled`."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from dram_workers.train.losses.terms import Objective, Projection, Target, TeacherStates


@dataclass(frozen=True)
class Work:
    """Buffers whose size the byte budget of a tile decides."""

    rows: int
    """Rows of a tile: as many as fit, since each tile reads the heads once."""
    chunk: int
    """Rows of a chunk."""
    block: int
    """Rows of a head that are cast to the compute type at a time."""
    compute: torch.dtype
    sums: torch.dtype
    student_nV: Tensor
    """The student's logits, then their gradient."""
    teacher_nC: Tensor | None
    """The teacher's logits, where there is a teacher at hand."""
    scratch_cV: tuple[Tensor, ...]
    """Three for every loss, a fourth for the soft-cap's derivative."""

    @classmethod
    def create(cls, hidden_ND: Tensor, student: Projection, target: Target, objective: Objective) -> "Work":
        """Divide the budget; ValueError when it does not hold one row."""
        rows_V, width = student.weight_VD.shape
        sums = torch.float64 if student.weight_VD.dtype == torch.float64 else torch.float32
        row_bytes = rows_V * sums.itemsize
        online = isinstance(target, TeacherStates)
        # An eighth is left for what the matrix products need themselves.
        budget = objective.tile_bytes * 7 // 8
        scratches, tiles = (3 if student.softcap is None else 4), (2 if online else 1)
        chunk = min(max(1, budget // 16 // row_bytes), max(1, len(hidden_ND)))
        rows = min((budget // row_bytes - scratches * chunk) // tiles, max(1, len(hidden_ND)))
        if rows < 1:
            needed = (scratches + tiles) * row_bytes
            raise ValueError(f"a row of the loss needs {needed} bytes, a tile of {objective.tile_bytes} is too small")

        def made(count: int, size: int) -> Tensor:
            return hidden_ND.new_empty((count, size), dtype=sums)

        common = min(rows_V, len(target.projection.weight_VD)) if isinstance(target, TeacherStates) else 0
        return cls(
            rows=rows,
            chunk=chunk,
            block=max(16, budget // 16 // (max(width, rows) * sums.itemsize)),
            compute=objective.compute or student.weight_VD.dtype,
            sums=sums,
            student_nV=made(rows, rows_V),
            teacher_nC=made(rows, common) if online else None,
            scratch_cV=tuple(made(chunk, rows_V) for _ in range(scratches)),
        )

    def chunks(self, rows: int) -> Iterator[slice]:
        """The chunks of a tile of so many rows."""
        for start in range(0, rows, self.chunk):
            yield slice(start, min(start + self.chunk, rows))
