"""`dram gateway`: the relay between devices and a metrics server."""

import logging
from pathlib import Path

import click

BAD_SETTINGS = 2


@click.command()
@click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("/etc/dram/gateway.yaml"),
    show_default=True,
    help="The gateway's settings.",
)
def gateway(config: Path) -> None:
    """Take telemetry from enrolled devices, stamp it with who they are, and pass it on, until SIGTERM.

    Exit codes: 0 told to end; 2 the settings are wrong.
    """
    from dram_agent.gateway.main import run_gateway
    from dram_agent.gateway.settings import GatewaySettings
    from dram_agent.settings import SettingsInvalid, read_yaml

    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    try:
        raise SystemExit(run_gateway(read_yaml(GatewaySettings, config)))
    except SettingsInvalid as error:
        click.echo(str(error), err=True)
        raise SystemExit(BAD_SETTINGS) from error
