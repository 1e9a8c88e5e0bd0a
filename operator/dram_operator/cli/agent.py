"""`dram agent`: what runs on a device."""

import logging
from pathlib import Path

import click

BAD_SETTINGS = 2


@click.command()
@click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("/etc/dram/agent.yaml"),
    show_default=True,
    help="The device's settings.",
)
def agent(config: Path) -> None:
    """Follow a channel: fetch, verify, test, serve and report models on this device, until SIGTERM.

    Exit codes: 0 told to end; 2 the settings are wrong.
    """
    from dram_agent.main import run_agent
    from dram_agent.settings import SettingsInvalid, read_settings

    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    try:
        raise SystemExit(run_agent(read_settings(config)))
    except SettingsInvalid as error:
        click.echo(str(error), err=True)
        raise SystemExit(BAD_SETTINGS) from error
