"""A training that is killed again and again: `python -m tests.workers.train.kill_program FOLDER KILLS`.

FOLDER holds `task.json`. Every attempt is a fork of a process that has imported everything already, since a start costs
more than all the steps. Prints the steps after which attempts were killed; the last one may end.
"""

import json
import os
import random
import select
import signal
import sys
from pathlib import Path

import transformers.models.llama.modeling_llama  # noqa: F401 -- loaded once for all attempts

import dram_workers.train.stage
from dram_workers.progress import PROGRESS_FILE
from dram_workers.train.gang import Gang, Task
from tests.workers.train.training import be_the_only_rank

LONGEST = 5
"""Steps that an attempt is left at most."""


def main(folder: Path, kills: int) -> list[int]:
    """Kill that many attempts at random steps, and let the next one end; returns the steps."""
    task = Task.model_validate_json((folder / "task.json").read_bytes())
    chance = random.SystemRandom()
    killed: list[int] = []
    while len(killed) <= kills:
        attempt = len(killed) + 1
        config = task.config.model_copy(update={"attempt": attempt})
        given = task.model_copy(update={"config": config, "work": str(folder / f"work-{attempt}")})
        step = play(given, folder, chance.randint(1, LONGEST) if len(killed) < kills else None)
        if step is None:
            break
        killed.append(step)
    return killed


def play(task: Task, folder: Path, steps: int | None) -> int | None:
    """One attempt, killed once it has reported so many steps; returns the last one, or None when it came to its end."""
    Path(task.work).mkdir()
    pipe = Path(task.work) / "progress"
    os.mkfifo(pipe)
    child = os.fork()
    if child == 0:
        train(task, pipe)
    # The child opens the pipe anew for each report, so this side keeps it open until the child is gone.
    handle, reader, seen = os.pidfd_open(child), os.open(pipe, os.O_RDWR | os.O_NONBLOCK), b""
    step = None
    while not ended(handle, reader):
        seen += os.read(reader, 65536)
        reports = seen.split(b"\n")[:-1]
        if steps is not None and len(reports) >= steps:
            step = int(json.loads(reports[-1])["step"])
            os.kill(child, signal.SIGKILL)
            break
    _, status = os.waitpid(child, 0)
    os.close(handle)
    os.close(reader)
    if step is None and status != 0:
        raise SystemExit(f"attempt {task.config.attempt} ended with {status} by itself")
    return step if os.WIFSIGNALED(status) else None


def ended(handle: int, reader: int) -> bool:
    """Wait for a report or the child's end; whether it was the end."""
    ready, _, _ = select.select([handle, reader], [], [])
    return reader not in ready


def train(task: Task, pipe: Path) -> None:
    """The child: one rank of its own; never returns."""
    be_the_only_rank()
    os.environ[PROGRESS_FILE] = str(pipe)
    gang = Gang(Path(task.work) / "gang")
    gang.folder.mkdir()
    outcome = dram_workers.train.stage.distill(task, gang)
    assert outcome is not None
    Path(outcome.student).replace(Path(task.work).parent / "student")
    os._exit(0)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]))))
