"""`dram fleet`: imagined devices that speak the real protocol."""

import logging
import re
from collections.abc import Callable
from pathlib import Path

import click

BAD_INPUT = 2
NAME = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"


def _of_form(pattern: str) -> Callable[[click.Context, click.Parameter, str], str]:
    def check(_context: click.Context, parameter: click.Parameter, value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise click.BadParameter(f"{value!r} is not {parameter.metavar}")
        return value

    return check


@click.command()
@click.option(
    "--fleet", "file", required=True, type=click.Path(path_type=Path, dir_okay=False), help="The fleet's file."
)
@click.option(
    "--channel",
    required=True,
    metavar="NAMESPACE/NAME",
    callback=_of_form(f"{NAME}/{NAME}"),
    help="The EdgeRollout that the devices follow.",
)
@click.option("--repository", required=True, metavar="URL", help="Address of the release repository's root.")
@click.option("--ca-file", type=click.Path(path_type=Path, dir_okay=False), help="Authority of that address, PEM.")
@click.option(
    "--root", required=True, type=click.Path(path_type=Path, dir_okay=False), help="The pinned root of trust."
)
@click.option(
    "--state", required=True, type=click.Path(path_type=Path, file_okay=False), help="A folder a device is made in it."
)
@click.option(
    "--listen",
    default="127.0.0.1:9109",
    show_default=True,
    metavar="HOST:PORT",
    callback=_of_form(r"\S*:[0-9]{1,5}"),
    help="Where /metrics of all devices is served.",
)
def fleet(
    file: Path, channel: str, repository: str, ca_file: Path | None, root: Path, state: Path, listen: str
) -> None:
    """Run a fleet of devices without models in one process, until SIGTERM.

    Every device has the real agent's update, trust and telemetry; it polls, verifies and downloads as they do. Exit codes:
    0 told to end; 2 bad input.
    """
    from dram_agent.fleet.member import Place
    from dram_agent.fleet.reading import ScenarioInvalid, read_scenario
    from dram_agent.fleet.run import run_fleet

    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        scenario = read_scenario(file)
        place = Place(channel, repository, root.read_bytes(), state, str(ca_file) if ca_file else None)
    except (ScenarioInvalid, OSError) as error:
        click.echo(str(error), err=True)
        raise SystemExit(BAD_INPUT) from error
    run_fleet(scenario, place, listen)
