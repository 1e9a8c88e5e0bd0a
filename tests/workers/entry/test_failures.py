"""Exceptions that no stage foresaw, made by the libraries themselves."""

import resource
from pathlib import Path

import numpy as np
import pytest

from dram_workers.errors import BadInput, ExitCode, StageError, WorkerReason
from dram_workers.failures import explain


def a_full_disk_in_python() -> None:
    Path("/dev/full").write_bytes(b"x")


def a_full_disk_behind_another_error() -> None:
    try:
        a_full_disk_in_python()
    except OSError as error:
        raise RuntimeError("the checkpoint is not written") from error


def too_much_memory_in_python() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (2**40, hard))
    try:
        bytearray(2**50)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def too_much_memory_in_numpy() -> None:
    np.ones(2**55, dtype=np.uint8)


def too_much_memory_in_torch() -> None:
    import torch

    torch.empty(2**50, dtype=torch.uint8)


def a_missing_key() -> None:
    found: dict[str, int] = {}
    found["nothing"]


def an_error_of_a_stage_behind_another() -> None:
    raise RuntimeError("the loader failed") from BadInput(WorkerReason.EMPTY_DATASET, "no sample")


@pytest.mark.parametrize(
    ("fail", "want_reason", "want_code"),
    [
        (a_full_disk_in_python, WorkerReason.DISK_FULL, ExitCode.TRANSIENT),
        (a_full_disk_behind_another_error, WorkerReason.DISK_FULL, ExitCode.TRANSIENT),
        (too_much_memory_in_python, WorkerReason.OUT_OF_MEMORY, ExitCode.TRANSIENT),
        (too_much_memory_in_numpy, WorkerReason.OUT_OF_MEMORY, ExitCode.TRANSIENT),
        (too_much_memory_in_torch, WorkerReason.OUT_OF_MEMORY, ExitCode.TRANSIENT),
        (a_missing_key, WorkerReason.INTERNAL, ExitCode.FAULT),
        (an_error_of_a_stage_behind_another, WorkerReason.EMPTY_DATASET, ExitCode.BAD_INPUT),
    ],
)
def test_a_failure_gets_its_reason(fail: object, want_reason: WorkerReason, want_code: ExitCode) -> None:
    assert callable(fail)
    with pytest.raises(Exception) as caught:  # noqa: PT011 -- whatever the library raises
        fail()
    known = explain(caught.value)
    assert (known.reason, known.exit_code) == (want_reason, want_code)
    assert known.remedy or isinstance(known, BadInput)


def test_ctrl_c_is_an_interruption() -> None:
    assert explain(KeyboardInterrupt()).exit_code == ExitCode.TERMINATED


def test_a_fault_is_told_with_its_type() -> None:
    assert explain(ZeroDivisionError("division by zero")).message == "ZeroDivisionError: division by zero"
    assert isinstance(explain(ZeroDivisionError()), StageError)
