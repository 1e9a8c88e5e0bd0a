"""A stage, or a release, from its config to its exit code: `dram worker KIND --config FILE`.

The manifest of an earlier result is looked for before anything heavy is imported. Whatever happens ends in a termination
message and an exit code that tell the operator what to do next.
"""

import argparse
import logging
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from types import FrameType, ModuleType

from pydantic import ValidationError

from dram_workers.context import StageContext, StageOutcome
from dram_workers.errors import BadInput, ExitCode, StageError, WorkerReason
from dram_workers.failures import explain
from dram_workers.inputs import FetchedInputs, given_inputs
from dram_workers.message import write_message
from dram_workers.progress import open_reporter
from dram_workers.release.contract import RELEASE, ReleaseConfig
from dram_workers.results import StageMessage, StageResult
from dram_workers.stages import STAGE_CONFIG, StageConfig, StageKind
from dram_workers.store.objects import ObjectStore
from dram_workers.store.open import open_store
from dram_workers.store.stage import find_result, publish_result

logger = logging.getLogger(__name__)

ONE_RELEASE = "Use the operator and the worker image of one release."


def main(argv: list[str] | None = None) -> int:
    """Run one stage; returns the exit code of `ExitCode`."""
    parser = argparse.ArgumentParser(prog="dram worker", description="Run one stage of a distillation, or a release.")
    parser.add_argument("kind", choices=[*map(str, StageKind), RELEASE], help="the kind of stage")
    parser.add_argument("--config", required=True, type=Path, help="file with the stage's config as JSON")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr)
    if arguments.kind == RELEASE:
        message, code = perform_release(arguments.config)
    else:
        message, code = perform(StageKind(arguments.kind), arguments.config)
    logger.info("%s: %s %s", arguments.kind, message.reason, message.message)
    write_message(message)
    return int(code)


def perform(kind: StageKind, config_file: Path) -> tuple[StageMessage, ExitCode]:
    """Run the stage and put its end into words, whatever it is."""
    return _ended(kind, lambda: _stage(_read(kind, config_file)))


def perform_release(config_file: Path) -> tuple[StageMessage, ExitCode]:
    """Carry an artifact into the release repository, and put its end into words."""
    return _ended(RELEASE, lambda: _release(config_file))


def _ended(kind: str, work: Callable[[], StageMessage]) -> tuple[StageMessage, ExitCode]:
    try:
        end = work()
    except StageError as error:
        return _failure(error), error.exit_code
    except (Exception, KeyboardInterrupt) as error:
        # the outermost frame of the process: nobody else could tell the operator
        logger.exception("%s failed", kind)
        known = explain(error)
        return _failure(known), known.exit_code
    return end, ExitCode.DONE


def _release(config_file: Path) -> StageMessage:
    from dram_workers.release.upload import release

    try:
        config = ReleaseConfig.model_validate_json(config_file.read_bytes())
    except (ValidationError, OSError) as error:
        raise BadInput(WorkerReason.CONFIG_INVALID, f"{config_file}: {error}", remedy=ONE_RELEASE) from error
    return release(config, _stop_on_signals())


def _stage(config: StageConfig) -> StageMessage:
    started_at = datetime.now(UTC)
    stopping = _stop_on_signals()
    _limit_threads(config)
    store = open_store(config.execution.store, config.execution.mounts)
    # what there is to resolve may have changed, so that is always looked at
    cached = None if config.kind is StageKind.RESOLVE else find_result(store, config)
    module = stage_module(config.kind)
    with open_reporter(config) as reporter:
        work = _empty_folder(config)
        inputs = FetchedInputs(given_inputs(config), config.execution, work)
        context = StageContext(inputs, store, config.execution, reporter, work, stopping)
        if cached is not None and _stands(module, config, context, cached):
            return StageMessage(reason="Cached", result=cached)
        return _run(module, config, context, store, started_at)


def _stands(module: ModuleType, config: StageConfig, context: StageContext, cached: StageResult) -> bool:
    """Whether an earlier result may be taken. A kind that looks beside its key has a `recheck`, which may also raise."""
    recheck: Callable[[StageConfig, StageContext, StageResult], bool] | None = getattr(module, "recheck", None)
    return recheck is None or recheck(config, context, cached)


def _run(
    module: ModuleType, config: StageConfig, context: StageContext, store: ObjectStore, started_at: datetime
) -> StageMessage:
    outcome: StageOutcome | None = module.run(config, context)
    if outcome is None:
        # of the workers of one stage, only one has a result to tell
        return StageMessage(reason="Completed")
    result = publish_result(store, config, outcome, started_at=started_at)
    return StageMessage(reason="Completed", message=outcome.warning, result=result)


def stage_module(kind: StageKind) -> ModuleType:
    """The code of a kind; the supervisor starts the ranks of a training and collects their outcome."""
    return import_module("dram_workers.supervisor" if kind is StageKind.TRAIN else f"dram_workers.{kind}")


def _read(kind: StageKind, config_file: Path) -> StageConfig:
    try:
        config = STAGE_CONFIG.validate_json(config_file.read_bytes())
    except (ValidationError, OSError) as error:
        raise BadInput(WorkerReason.CONFIG_INVALID, f"{config_file}: {error}", remedy=ONE_RELEASE) from error
    if config.kind is not kind:
        raise BadInput(
            WorkerReason.CONFIG_INVALID, f"{config_file} is for {config.kind}, not {kind}", remedy=ONE_RELEASE
        )
    return config


def _empty_folder(config: StageConfig) -> Path:
    work = Path(config.execution.scratch) / f"{config.stage}-{config.attempt}"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    return work


def _limit_threads(config: StageConfig) -> None:
    """Set what the numerical libraries read when they are loaded. Threads that spin while they wait cost up to 5x."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if config.execution.threads is not None:
        os.environ["OMP_NUM_THREADS"] = str(config.execution.threads)


def _stop_on_signals() -> threading.Event:
    """An event that the first SIGTERM or Ctrl-C sets; a second Ctrl-C does not wait for the stage."""
    stopping = threading.Event()

    def stop(number: int, _frame: FrameType | None) -> None:
        if stopping.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    return stopping


def _failure(error: StageError) -> StageMessage:
    return StageMessage(reason=error.reason, message=error.message, field=error.field, remedy=error.remedy)
