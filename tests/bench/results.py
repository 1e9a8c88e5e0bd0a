"""What a benchmark tells."""

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Row:
    """One figure. `ratio` is ours to the peer's; `note` says which side is better and how it was measured."""

    measure: str
    value: float
    unit: str
    peer: str | None = None
    peerValue: float | None = None
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """Ours to the peer's; None without a peer, or where the peer's is 0."""
        return self.value / self.peerValue if self.peerValue else None


def write(rows: Sequence[Row], path: Path) -> None:
    """Write results.json; rows of measures that were not run this time stay."""
    known = json.loads(path.read_text()) if path.exists() else []
    fresh = [asdict(row) | {"ratio": row.ratio} for row in rows]
    measured = {row.measure for row in rows}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([row for row in known if row["measure"] not in measured] + fresh, indent=1) + "\n")


@contextmanager
def timed(measure: str, note: str, path: Path) -> Iterator[None]:
    """Write how many seconds the block took."""
    began = time.monotonic()
    yield
    write([Row(measure, time.monotonic() - began, "s", note=note)], path)


def table(rows: Sequence[Row]) -> str:
    """The rows for people."""
    cells = [("measure", "ours", "peer", "ratio", "note")]
    for row in rows:
        peer = "" if row.peerValue is None else f"{_number(row.peerValue)} {row.unit} ({row.peer})"
        ratio = "" if row.ratio is None else f"{row.ratio:.3g}"
        cells.append((row.measure, f"{_number(row.value)} {row.unit}", peer, ratio, row.note))
    widths = [max(len(line[column]) for line in cells) for column in range(4)]
    return "\n".join("  ".join([*(c.ljust(w) for c, w in zip(line, widths, strict=False)), line[4]]) for line in cells)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
