"""PID 1 of a training pod: starts torchrun, passes a stop on to the ranks and says how they ended. No torch.

torchrun alone would turn every failure into exit code 1 and would kill ranks that need longer than half a minute to
save. So a stop reaches the ranks as a file, on whose presence all of them agree at every step, and how they ended comes
back as files too.
"""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

from dram_workers.context import StageContext, StageOutcome
from dram_workers.errors import Interrupted, StageError, Transient, WorkerReason
from dram_workers.results import StageResult
from dram_workers.stages import TrainConfig, TrainExecution
from dram_workers.train.gang import Gang, Task, TrainOutcome, checkpoint_prefix, error_of
from dram_workers.train.heap import HUGE_PAGES
from dram_workers.train.settings import check_settings

MEMORY_EVENTS = (Path("/sys/fs/cgroup/memory.events"), Path("/sys/fs/cgroup/memory/memory.oom_control"))


def run(config: TrainConfig, context: StageContext) -> StageOutcome | None:
    """Train with all ranks of this machine; None on machines without rank 0, which have nothing to tell."""
    check_settings(config.execution.deepspeed)
    gang = Gang(context.work / "gang")
    gang.folder.mkdir()
    task = Task(
        config=config,
        inputs={name: str(context.inputs.path(name)) for name in config.inputs},
        work=str(context.work),
        supervisor=os.getpid(),
    )
    gang.task.write_text(task.model_dump_json())
    kills_before = _memory_kills()
    code = _torchrun(gang, config.execution, context.stopping)
    if context.stopping.is_set() and not gang.met.exists():
        raise Interrupted(WorkerReason.INTERRUPTED, "told to stop before the training ranks had found each other")
    if error := _failure(gang, code, killed_for_memory=_memory_kills() > kills_before):
        raise error
    if _machine() > 0:
        return None
    outcome = TrainOutcome.model_validate_json(gang.outcome.read_bytes())
    return StageOutcome(folders={"student": Path(outcome.student)}, facts=outcome.facts)


def recheck(config: TrainConfig, context: StageContext, _cached: StageResult) -> bool:
    """Remove what a finished training left behind to be safe. The result itself always stands."""
    context.store.delete([found.key for found in context.store.list(checkpoint_prefix(config.key))])
    return True


def ranks_here(execution: TrainExecution) -> int:
    """Ranks on this machine: a gang without rendezvous is all here."""
    return execution.processes_per_worker * (1 if execution.rendezvous else execution.workers)


def torchrun_arguments(execution: TrainExecution) -> list[str]:
    """How torchrun finds the other machines."""
    here = ["--nproc-per-node", str(ranks_here(execution)), "--max-restarts", "0"]
    if execution.rendezvous is None:
        return [*here, "--standalone"]
    host, _, port = execution.rendezvous.rpartition(":")
    machines = ["--nnodes", str(execution.workers), "--node-rank", str(_machine())]
    return [*here, *machines, "--master-addr", host, "--master-port", port]


def _torchrun(gang: Gang, execution: TrainExecution, stopping: threading.Event) -> int:
    command = [sys.executable, "-m", "dram_workers.train.launch", str(gang.folder), *torchrun_arguments(execution)]
    environment = {"GLIBC_TUNABLES": HUGE_PAGES, **os.environ, "OMP_NUM_THREADS": str(_threads(execution))}
    # In a session of its own: a Ctrl-C is for the supervisor, and the whole group can be ended if torchrun is lost.
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    ended = threading.Event()
    messenger = threading.Thread(
        target=_pass_on, args=(gang, stopping, ended, process.pid), name="stop-messenger", daemon=True
    )
    messenger.start()
    try:
        return process.wait()
    finally:
        ended.set()
        _end_group(process.pid)


def _pass_on(gang: Gang, stopping: threading.Event, ended: threading.Event, group: int) -> None:
    while not ended.is_set():
        if stopping.wait(timeout=1.0):
            gang.stop.touch()
            if not gang.met.exists():
                # A rendezvous hears no stop: half a gang would hold its node for the whole grace period.
                _end_group(group)
            return


def _end_group(group: int) -> None:
    """No rank outlives torchrun."""
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return


def _failure(gang: Gang, code: int, *, killed_for_memory: bool) -> StageError | None:
    """What to tell: the first rank's words, else what torchrun saw."""
    if words := gang.read_last_words():
        killed = [death.rank for death in gang.read_deaths() if death.exit_code == -signal.SIGKILL]
        if not (killed and words[0].message.reason == WorkerReason.RANK_FAILED):
            return error_of(words[0])
    if code == 0:
        return None
    if killed_for_memory:
        return Transient(
            WorkerReason.OUT_OF_MEMORY,
            "a training rank was killed because the memory limit was reached",
            field="spec.podTemplate.resources",
            remedy="raise the memory limit of the training pods, or lower spec.training.batchTokens",
        )
    deaths = ", ".join(_describe(death.rank, death.exit_code) for death in gang.read_deaths())
    return Transient(WorkerReason.RANK_FAILED, deaths or f"torchrun ended with {code} and no rank said why")


def _describe(rank: int, code: int) -> str:
    return f"rank {rank} was killed by {signal.Signals(-code).name}" if code < 0 else f"rank {rank} exited with {code}"


def _machine() -> int:
    """This pod's number in an Indexed Job."""
    return int(os.environ.get("JOB_COMPLETION_INDEX", "0"))


def _threads(execution: TrainExecution) -> int:
    """Threads of each rank: they share the machine's cores, of which a container may use only some."""
    cores = execution.threads or min(len(os.sched_getaffinity(0)), _cpu_quota())
    return max(1, cores // ranks_here(execution))


def _cpu_quota() -> int:
    """Cores that the container may use, from its control group; a large number without a limit."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        return sys.maxsize
    return sys.maxsize if quota == "max" else max(1, round(int(quota) / int(period)))


def _memory_kills() -> int:
    """How often the kernel has killed a process of this container for its memory."""
    for path in MEMORY_EVENTS:
        try:
            lines = path.read_text().splitlines()
        except OSError:
            continue
        return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)
    return 0
