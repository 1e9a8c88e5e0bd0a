"""A worker as a child of the local run: `dram worker`, told to stop when the run dies, however it dies."""

import ctypes
import os
import signal
import sys

from dram_workers.entry import main

_PR_SET_PDEATHSIG = 1


def follow_parent(parent: int) -> None:
    """Have SIGTERM sent to this process when its parent is gone; only Linux can, elsewhere nothing happens."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    follow_parent(int(sys.argv[1]))
    sys.exit(main(sys.argv[2:]))
