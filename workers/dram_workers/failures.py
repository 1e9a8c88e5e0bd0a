"""What an exception that no stage foresaw means to the user."""

import errno
from collections.abc import Iterator

from dram_workers.errors import Interrupted, StageError, Transient, WorkerReason

DISK_FULL_TEXTS = ("No space left on device", "StorageFull", "Disk quota exceeded")
"""How libraries in Rust and C++ say ENOSPC."""
MEMORY_TEXTS = ("DefaultCPUAllocator", "Cannot allocate memory", "CUDA out of memory")


def explain(error: BaseException) -> StageError:
    """A full disk, a full memory, a Ctrl-C; anything else is a fault of ours."""
    if isinstance(error, KeyboardInterrupt):
        return Interrupted(WorkerReason.INTERRUPTED, "stopped by Ctrl-C")
    for cause in _chain(error):
        if isinstance(cause, StageError):
            return cause
        if _is_disk_full(cause):
            return Transient(
                WorkerReason.DISK_FULL,
                f"no space is left in the scratch folder: {cause}",
                field="spec.podTemplate.resources",
                remedy="Raise the ephemeral-storage of this stage, or free space on the disk.",
            )
        if _is_out_of_memory(cause):
            return Transient(
                WorkerReason.OUT_OF_MEMORY,
                f"the memory is used up: {cause}",
                field="spec.podTemplate.resources",
                remedy="Raise the memory limit of this stage, or lower spec.training.batchTokens or spec.dataset.maxLength.",
            )
    return StageError(
        WorkerReason.INTERNAL,
        f"{type(error).__name__}: {error}",
        remedy="This is a fault of Dram; please report it with the log.",
    )


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and what led to it."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def _is_disk_full(error: BaseException) -> bool:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return any(text in str(error) for text in DISK_FULL_TEXTS)


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError | OSError) and any(text in str(error) for text in MEMORY_TEXTS)
