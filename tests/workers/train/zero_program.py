"""Ranks that run many trainings in one process each, because a start costs more than a small training.

Run by torchrun with a file of orders: `[{"folder", "stop": bool}, …]`. A folder holds `task.json`; a training that is to
stop is told so after `STOP_AT` steps. What a training tells at its end is left in `outcome.json`.
"""

import json
import logging
import os
import sys
import threading
from pathlib import Path

from dram_workers.errors import Interrupted
from dram_workers.progress import PROGRESS_FILE
from dram_workers.train.gang import Gang, Task
from dram_workers.train.stage import distill

STOP_AT = 5


def main(orders: Path) -> None:
    """Carry the orders out one after the other."""
    logging.basicConfig(level=logging.WARNING)
    for number, order in enumerate(json.loads(orders.read_text())):
        folder = Path(order["folder"])
        gang = Gang(folder / f"gang-{orders.stem}-{number}")
        gang.folder.mkdir(exist_ok=True)
        pipe = gang.folder / f"progress-{os.environ['RANK']}"
        os.mkfifo(pipe)
        os.environ[PROGRESS_FILE] = str(pipe)
        # Opened for writing too, so that the pipe does not end between two reports.
        reader = os.fdopen(os.open(pipe, os.O_RDWR), "rb", buffering=0)
        threading.Thread(target=follow, args=(reader, gang, order["stop"]), daemon=True).start()
        assert run(folder, gang) is order["stop"]


def run(folder: Path, gang: Gang) -> bool:
    """Train; whether it was interrupted."""
    try:
        outcome = distill(Task.model_validate_json((folder / "task.json").read_bytes()), gang)
    except Interrupted:
        return True
    if outcome is not None:
        (folder / "outcome.json").write_text(outcome.model_dump_json())
    return False


def follow(reader: object, gang: Gang, stop: bool) -> None:
    """Read the reports, and pass the stop on when its step is there."""
    for line in reader:  # type: ignore[attr-defined]
        if stop and json.loads(line)["step"] >= STOP_AT:
            gang.stop.touch()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    # As a rank of a real training ends: threads of a process group that outlive the interpreter can abort it.
    sys.stdout.flush()
    os._exit(0)
