"""One rank: `python -m dram_workers.train.rank FOLDER`, started by torchrun."""

import logging
import os
import select
import sys
import threading
from pathlib import Path

from dram_workers.errors import ExitCode, StageError, Transient, WorkerReason
from dram_workers.failures import explain
from dram_workers.train.gang import Gang, LastWords, Task

logger = logging.getLogger(__name__)

LOST_PEER_TEXTS = ("Connection closed by peer", "Connection reset", "Timed out waiting", "Broken pipe", "gloo", "NCCL")
"""How the collectives say that another rank is gone."""


def main(folder: Path) -> int:
    """Train; whatever goes wrong is written down for the supervisor. Returns the exit code."""
    gang, rank = Gang(folder), int(os.environ["RANK"])
    task = Task.model_validate_json(gang.task.read_bytes())
    _end_with(task.supervisor)
    level = logging.INFO if rank == 0 else logging.WARNING
    logging.basicConfig(level=level, format=f"%(asctime)s rank {rank} %(levelname)s %(name)s %(message)s")
    try:
        from dram_workers.train.stage import distill

        outcome = distill(task, gang)
        if outcome is not None:
            gang.outcome.write_text(outcome.model_dump_json())
    except (Exception, KeyboardInterrupt) as error:
        # the outermost frame of the rank: only here can every failure reach the supervisor
        known = _explain(error)
        if known.exit_code is ExitCode.FAULT:
            logger.exception("rank %d failed", rank)
        gang.last_words(rank).write_text(LastWords.of(known).model_dump_json())
        # An interrupted rank ends well for torchrun, which would otherwise kill ranks that are still saving.
        return 0 if known.exit_code is ExitCode.TERMINATED else int(known.exit_code)
    return 0


def _explain(error: BaseException) -> StageError:
    known = explain(error)
    lost = isinstance(error, RuntimeError) and any(text in str(error) for text in LOST_PEER_TEXTS)
    if known.exit_code is ExitCode.FAULT and lost:
        return Transient(WorkerReason.RANK_FAILED, f"lost the other ranks: {str(error)[:300]}")
    return known


def _end_with(supervisor: int) -> None:
    """Die with the supervisor: after a SIGKILL nobody else would stop this rank, and it would train on as a zombie."""
    try:
        handle = os.pidfd_open(supervisor)
    except ProcessLookupError:
        os._exit(ExitCode.KILLED)

    def watch() -> None:
        select.select([handle], [], [])
        os._exit(ExitCode.KILLED)

    threading.Thread(target=watch, name="supervisor-watch", daemon=True).start()


if __name__ == "__main__":
    code = main(Path(sys.argv[1]))
    logging.shutdown()
    sys.stdout.flush()
    # Destructors of process groups can wait for ranks that are gone.
    os._exit(code)
