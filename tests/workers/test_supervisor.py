"""PID 1 of a training: how torchrun is called, and what is told of ranks that failed."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from dram_workers import supervisor
from dram_workers.errors import BadInput, ExitCode, Interrupted, StageError, Transient, WorkerReason
from dram_workers.stages import TrainExecution
from dram_workers.train.gang import Death, Gang, LastWords
from tests.workers.contexts import store_settings


@pytest.fixture
def gang(tmp_path: Path) -> Gang:
    return Gang(tmp_path)


def said(gang: Gang, rank: int, error: StageError, at: float) -> None:
    words = LastWords.of(error).model_copy(update={"at": at})
    gang.last_words(rank).write_text(words.model_dump_json())


def died(gang: Gang, *deaths: tuple[int, int]) -> None:
    rows = [Death(rank=rank, exit_code=code).model_dump(mode="json") for rank, code in deaths]
    gang.deaths.write_text(json.dumps(rows))


def failure(gang: Gang, code: int, *, memory: bool = False) -> StageError | None:
    return supervisor._failure(gang, code, killed_for_memory=memory)


def lost_peers() -> Transient:
    return Transient(WorkerReason.RANK_FAILED, "lost the other ranks")


def test_a_good_end_is_no_failure(gang: Gang) -> None:
    assert failure(gang, 0) is None


def test_the_first_rank_that_failed_is_told(gang: Gang) -> None:
    said(gang, 0, lost_peers(), at=20)
    said(gang, 1, BadInput(WorkerReason.LOSS_NOT_FINITE, "NaN", field="spec.training", remedy="lower it"), at=10)
    died(gang, (0, 75), (1, 64))
    told = failure(gang, 1)
    assert isinstance(told, BadInput)
    assert (told.reason, told.message, told.field, told.remedy) == (
        WorkerReason.LOSS_NOT_FINITE, "NaN", "spec.training", "lower it",
    )  # fmt: skip


def test_a_failure_counts_before_an_interruption(gang: Gang) -> None:
    said(gang, 0, Interrupted(WorkerReason.INTERRUPTED, "stopped"), at=10)
    said(gang, 1, Transient(WorkerReason.DISK_FULL, "full"), at=20)
    told = failure(gang, 1)
    assert told is not None
    assert told.reason == WorkerReason.DISK_FULL


def test_an_interruption_ends_with_143(gang: Gang) -> None:
    said(gang, 0, Interrupted(WorkerReason.INTERRUPTED, "checkpointed at step 7"), at=10)
    told = failure(gang, 0)
    assert told is not None
    assert told.exit_code == ExitCode.TERMINATED


def test_a_killed_rank_is_told_rather_than_those_that_lost_it(gang: Gang) -> None:
    said(gang, 0, lost_peers(), at=10)
    died(gang, (0, 75), (1, -signal.SIGKILL))
    told = failure(gang, 1)
    assert isinstance(told, Transient)
    assert told.message == "rank 0 exited with 75, rank 1 was killed by SIGKILL"


def test_a_rank_killed_for_its_memory_is_told_as_such(gang: Gang) -> None:
    died(gang, (0, -signal.SIGKILL))
    told = failure(gang, 1, memory=True)
    assert isinstance(told, Transient)
    assert told.reason == WorkerReason.OUT_OF_MEMORY
    assert told.field == "spec.podTemplate.resources"


def test_torchrun_that_ends_without_a_word_is_told(gang: Gang) -> None:
    told = failure(gang, -signal.SIGKILL)
    assert told is not None
    assert told.message == "torchrun ended with -9 and no rank said why"


def an_execution(tmp_path: Path, **values: object) -> TrainExecution:
    return TrainExecution.model_validate({"store": store_settings(tmp_path), **values})


def test_without_a_rendezvous_all_ranks_are_here(tmp_path: Path) -> None:
    execution = an_execution(tmp_path, workers=3, processes_per_worker=2)
    assert supervisor.torchrun_arguments(execution) == [
        "--nproc-per-node", "6", "--max-restarts", "0", "--standalone",
    ]  # fmt: skip


def test_a_pod_of_an_indexed_job_knows_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "2")
    execution = an_execution(tmp_path, workers=3, processes_per_worker=4, rendezvous="job-train-1-0.job-train:29500")
    assert supervisor.torchrun_arguments(execution) == [
        "--nproc-per-node", "4", "--max-restarts", "0", "--nnodes", "3", "--node-rank", "2",
        "--master-addr", "job-train-1-0.job-train", "--master-port", "29500",
    ]  # fmt: skip


def test_ranks_share_the_threads(tmp_path: Path) -> None:
    assert supervisor._threads(an_execution(tmp_path, threads=8, workers=3)) == 2
    assert supervisor._threads(an_execution(tmp_path, threads=1, workers=2)) == 1
    assert supervisor._threads(an_execution(tmp_path)) <= len(os.sched_getaffinity(0))


def stop_ranks(gang: Gang) -> int | None:
    """Pass a stop on to a program that hears none; its exit code, or None while it lives."""
    ranks = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, start_new_session=True)
    stopping, ended = threading.Event(), threading.Event()
    stopping.set()
    supervisor._pass_on(gang, stopping, ended, ranks.pid)
    code = ranks.wait(30) if not gang.met.exists() else ranks.poll()
    ranks.communicate(b"\n")
    return code


def test_a_stop_becomes_a_file_for_ranks_that_have_met(gang: Gang) -> None:
    gang.met.touch()
    assert stop_ranks(gang) is None
    assert gang.stop.exists()


def test_a_stop_ends_ranks_that_still_wait_for_each_other(gang: Gang) -> None:
    assert stop_ranks(gang) == -signal.SIGKILL


def test_the_supervisor_needs_no_torch() -> None:
    program = "import sys, dram_workers.supervisor; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
