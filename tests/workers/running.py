"""Running a stage as pods do: another process, a config file, a termination message, an exit code."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dram_workers.results import StageMessage


@dataclass(frozen=True)
class Ended:
    """How the process ended."""

    code: int
    message: StageMessage
    log: str


def a_stage(kind: str, identity: dict[str, Any], folder: Path, **changes: Any) -> dict[str, Any]:
    """A config with its store and scratch below `folder`; `execution` in `changes` is added to what is there."""
    execution = {"store": {"uri": (folder / "store").as_uri()}, "scratch": str(folder / "scratch")}
    config = {"kind": kind, "stage": kind, "key": "0" * 64, "job": {"namespace": "default", "name": "support-bot"}}
    return {**config, "identity": identity, **changes, "execution": execution | changes.get("execution", {})}


def start_stage(
    config: dict[str, Any], folder: Path, environment: dict[str, str] | None = None
) -> subprocess.Popen[str]:
    """Start the worker process."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "termination-log").write_text("")
    return subprocess.Popen(
        [sys.executable, "-m", "dram_workers", config["kind"], "--config", str(folder / "config.json")],
        env={**os.environ, "DRAM_TERMINATION_LOG": str(folder / "termination-log"), **(environment or {})},
        stderr=subprocess.PIPE,
        text=True,
    )


def run_stage(config: dict[str, Any], folder: Path, environment: dict[str, str] | None = None) -> Ended:
    """Run the worker process to its end."""
    with start_stage(config, folder, environment) as process:
        _, log = process.communicate(timeout=300)
    message = (folder / "termination-log").read_text()
    return Ended(process.returncode, StageMessage.model_validate_json(message), log)
