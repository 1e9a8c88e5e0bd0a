"""What one pass of `decide` costs: ten devices and ten thousand that are listed, a million that are counted.

`python -m tests.bench.decide DEVICES [compared]` measures one of them in a process of its own and prints JSON.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

from tests.bench.results import Row

FLEETS = {"10": 10, "10k": 10_000, "1m": 1_000_000}
PASSES = 30
SETTLING = 20
"""Passes of a minute before the measured ones: the first step bakes by then, and four windows have closed."""


def rows() -> list[Row]:
    """Seconds of a pass and resident memory, by the size of the fleet."""
    found = []
    for name, devices in FLEETS.items():
        kind = "listed" if devices <= FLEETS["10k"] else "counted"
        measured = _measure(str(devices))
        found += _rows(name, measured, f"{devices:,} devices, {kind}; two metrics with limits")
    compared = _measure(str(FLEETS["10k"]), "compared")
    note = f"{FLEETS['10k']:,} devices, listed; one more metric compared with control, 4 to 10 windows"
    return found + _rows("10k_compared", compared, note)


def _rows(name: str, measured: dict[str, float], note: str) -> list[Row]:
    note = f"{note}; smaller is better"
    return [
        Row(f"rollout.decide_seconds.{name}", measured["seconds"], "s", note=f"{note}; CPU, median of {PASSES}"),
        Row(f"rollout.decide_rss_bytes.{name}", measured["bytes"], "bytes", note=f"{note}; whole process, peak"),
    ]


def _measure(*arguments: str) -> dict[str, float]:
    command = [sys.executable, "-m", "tests.bench.decide", *arguments]
    ran = subprocess.run(command, check=True, capture_output=True, text=True)
    measured: dict[str, float] = json.loads(ran.stdout.splitlines()[-1])
    return measured


def _probe(devices: int, *, compared: bool) -> dict[str, float]:
    from dram_operator.core.rollout.decide import decide
    from dram_operator.core.rollout.document import Delivery
    from tests.operator.core.rollout.large import COMPARED, Channel
    from tests.operator.core.rollout.world import step, stepping

    manifest = stepping(step("10%", 86_400), step("100%"))
    channel = Channel(devices, manifest.with_metric(**COMPARED) if compared else manifest)
    for _ in range(SETTLING):
        channel.go_on()
    seconds = []
    for _ in range(PASSES):
        observed = channel.observe()
        started = time.process_time()
        decide(observed, Delivery(), channel.now)
        seconds.append(time.process_time() - started)
        channel.go_on()
    return {"seconds": sorted(seconds)[PASSES // 2], "bytes": _peak_bytes()}


def _peak_bytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


if __name__ == "__main__":
    print(json.dumps(_probe(int(sys.argv[1]), compared="compared" in sys.argv)))  # noqa: T201
