"""`dram rollout simulate|plan`: what an EdgeRollout would do, before it does it."""

import json
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec

import click

if TYPE_CHECKING:
    from dram_operator.simulation.plan import Plan
    from dram_operator.simulation.timeline import Line

OK, BAD_INPUT, NOT_STABLE = 0, 2, 3
SHOWN = 5
"""Devices of a step that a plan names; all of them stand in its JSON."""

P = ParamSpec("P")
_rollout_option = click.option(
    "-f", "--filename", "file", required=True, metavar="FILE",
    type=click.Path(path_type=Path, allow_dash=True), help="The EdgeRollout's manifest, or - for standard input.",
)  # fmt: skip
_digest_option = click.option(
    "--digest", metavar="SHA256", help="The release's digest; needed where the manifest names a job."
)


def _says_bad_input(command: Callable[P, None]) -> Callable[P, None]:
    """Turn bad input into one line a problem and exit code 2."""

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        from dram_operator.simulation.inputs import BadInput

        try:
            command(*args, **kwargs)
        except BadInput as error:
            for problem in error.problems:
                click.echo(problem, err=True)
            raise SystemExit(BAD_INPUT) from error

    return run


@click.command()
@_rollout_option
@click.option(
    "--fleet", "fleet_file", required=True, type=click.Path(path_type=Path, dir_okay=False), help="The fleet's file."
)
@_digest_option
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), help="Draw with this seed instead of the fleet's own.")
@click.option(
    "--output", type=click.Path(path_type=Path, file_okay=False), help="Write timeline.json and report.html there."
)
@_says_bad_input
def simulate(file: Path, fleet_file: Path, digest: str | None, seed: int | None, output: Path | None) -> None:
    """Run the operator's own decisions on a virtual clock over an imagined fleet: days in seconds.

    Exit codes: 0 the candidate becomes stable; 2 bad input; 3 it is rolled back, or waits, or does not get there in time.
    """
    from dram_operator.simulation import inputs, page
    from dram_operator.simulation.simulation import Simulation
    from dram_operator.simulation.timeline import Verdict, clock

    manifest = inputs.read_rollout(file)
    scenario = inputs.read_fleet(fleet_file, manifest)
    scenario = scenario if seed is None else scenario.model_copy(update={"seed": seed})
    simulation = Simulation(manifest, scenario, inputs.any_digest(manifest, digest), _print_line)
    timeline = simulation.run()
    for path in page.write(simulation, output) if output else ():
        click.echo(f"file    {path}")
    click.echo(f"{timeline.verdict} after {clock(simulation.now)}: {timeline.message}")
    raise SystemExit(OK if timeline.verdict is Verdict.COMPLETED else NOT_STABLE)


@click.command()
@_rollout_option
@click.option(
    "--inventory", "devices", required=True, type=click.Path(path_type=Path, dir_okay=False),
    help="JSON Lines with the id of a device, and optionally labels, class and retired, a device a line.",
)  # fmt: skip
@_digest_option
@click.option("--json", "as_json", is_flag=True, help="Everything, as JSON: every device of every step.")
@_says_bad_input
def plan(file: Path, devices: Path, digest: str | None, as_json: bool) -> None:
    """Which devices a rollout would move, step by step, and when at the earliest; nothing is written.

    Exit codes: 0 done; 2 bad input.
    """
    from dram_operator.core.rollout.windows import WindowInvalid
    from dram_operator.simulation import inputs
    from dram_operator.simulation.plan import plan as plan_of

    manifest = inputs.read_rollout(file)
    known, exact = inputs.read_inventory(devices), inputs.exact_digest(manifest, digest)
    try:
        found = plan_of(manifest, known, exact, datetime.now(UTC).replace(microsecond=0))
    except WindowInvalid as error:
        raise inputs.BadInput(f"{file}: spec.strategy.windows: {error}") from error
    if as_json:
        click.echo(json.dumps(asdict(found), default=_stamp, indent=1))
    else:
        _print_plan(found)


def _print_line(line: "Line") -> None:
    from dram_operator.simulation.timeline import clock

    click.echo(f"{clock(line.seconds):>12}  {line.type:<8} {line.reason:<22} {line.message}")


def _print_plan(found: "Plan") -> None:
    click.echo(f"{found.known} devices, {found.held_back} of them held back")
    for step in found.steps:
        exactly = "about " if step.approximate else ""
        click.echo(
            f"step {step.shown}  from {_stamp(step.starts_at)}  {exactly}{len(step.moves)} devices move, "
            f"{step.total} in all; watched for {step.bake_seconds} s{'; waits for approval: ' if step.approval else ''}"
            f"{step.approval}"
        )
        for device in step.moves[:SHOWN]:
            click.echo(f"    {device}")
        if len(step.moves) > SHOWN:
            click.echo(f"    and {len(step.moves) - SHOWN} more: --json names them")
    click.echo(f"stable    from {_stamp(found.stable_at)}")


def _stamp(moment: object) -> str:
    from dram_operator.core.times import stamp

    assert isinstance(moment, datetime)
    return stamp(moment)
