"""The model's process: llama.cpp's own server, as the xllamacpp wheel carries it, on a port of the loopback.

A process of its own, because a model that crashes, leaks or hangs must not take the agent with it.
"""

import argparse
import ctypes
import json
import os
import signal
import sys
from pathlib import Path

PR_SET_PDEATHSIG = 1
"""prctl(2): the kernel ends this process when its parent is gone, however the parent died."""
WARNINGS = 2
"""llama.cpp's log level: by default it writes several lines a request."""


def main(arguments: list[str] | None = None) -> int:
    """Load the model, say on standard output where it answers, and serve until SIGTERM."""
    asked = _parser().parse_args(arguments)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != asked.parent:
        return 1
    from xllamacpp import CommonParams, Server

    params = CommonParams()
    params.model.path = str(asked.model)
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.n_ctx = asked.context
    params.n_parallel = asked.parallel
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = asked.threads
    params.model_alias = {asked.name}
    params.verbosity = WARNINGS
    params.ui = False
    server = Server(params)
    sys.stdout.write(json.dumps({"url": server.listening_address}) + "\n")
    sys.stdout.flush()
    signal.sigwait([signal.SIGTERM, signal.SIGINT])
    # The library's threads end with the process; waiting for them would wait for requests that nobody reads any more.
    os._exit(0)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="dram-agent-runtime")
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--context", type=int, required=True)
    parser.add_argument("--parallel", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--parent", type=int, required=True)
    return parser


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGINT])
    raise SystemExit(main())
