"""`kubectl dram rollout devices`: how the devices of a rollout are, from its status, or one by one from Prometheus."""

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from dram_operator.adapters.resources import EDGE_ROLLOUTS
from dram_operator.api.edge_rollout import EdgeRollout
from dram_operator.cli.cluster import Cluster, Failure, on_cluster
from dram_operator.cli.names import rollout_names
from dram_operator.cli.output import Form, output_option, read_as, show_machine
from dram_operator.core.rollout.telemetry import Memory, remembered
from dram_operator.core.times import stamp
from dram_operator.show.devices import DeviceRow, device_rows, devices_table
from dram_operator.show.rollouts import devices_lines
from dram_operator.show.words import console, said


@click.command()
@click.argument("name", shell_complete=rollout_names)
@click.option(
    "--prometheus", metavar="URL", help="A metrics server that you can reach: then devices are told one by one."
)
@click.option("--ca-file", type=click.Path(path_type=Path, dir_okay=False), help="Authority of that server, PEM.")
@click.option("--token-file", type=click.Path(path_type=Path, dir_okay=False), help="Bearer token for it.")
@output_option
@on_cluster
async def devices(
    cluster: Cluster,
    name: str,
    prometheus: str | None,
    ca_file: Path | None,
    token_file: Path | None,
    form: Form | None,
) -> None:
    """Count the devices of the step at work; with --prometheus, tell each device's release and health."""
    rollout = read_as(EdgeRollout, await cluster.read(EDGE_ROLLOUTS, name))
    if prometheus:
        _show_rows(await _look(rollout, prometheus, ca_file, token_file), form)
        return
    step = rollout.status.step
    if form:
        show_machine(step.devices.model_dump(mode="json", by_alias=True) if step else {}, form)
    elif step is None:
        click.echo(
            f"{rollout.channel}: nothing is on its way, so no devices are counted; --prometheus URL tells each",
            err=True,
        )
    else:
        for line in [f"step {step.shown}, {step.devices.known} devices known", *devices_lines(step)]:
            console().print(said(line))


def _show_rows(rows: list[DeviceRow], form: Form | None) -> None:
    if form:
        show_machine([_plain(row) for row in rows], form)
    else:
        console().print(devices_table(rows, datetime.now(UTC)))


def _plain(row: DeviceRow) -> dict[str, Any]:
    seen = stamp(row.last_seen) if row.last_seen else None
    return asdict(row) | {"last_seen": seen, "labels": dict(row.labels)}


async def _look(rollout: EdgeRollout, url: str, ca_file: Path | None, token_file: Path | None) -> list[DeviceRow]:
    """Ask what the operator asks, once."""
    from dram_operator.adapters.prometheus import Endpoint, EndpointInvalid, Prometheus
    from dram_operator.runtime.rollouts.asking import ask_devices
    from dram_operator.runtime.rollouts.sight import subject_of

    try:
        server = Prometheus(Endpoint("--prometheus", url, ca_file=ca_file, token_file=token_file))
    except EndpointInvalid as error:
        raise Failure(str(error)) from error
    subject, at = subject_of(rollout), datetime.now(UTC)
    try:
        told = await ask_devices(server, subject, Memory(), at)
    finally:
        await server.close()
    if told.trouble:
        raise Failure(
            f"{url} gives no list of devices: {told.trouble.value}: check the address, its authority and the token"
        )
    return device_rows(rollout, remembered(Memory(), told, subject), subject, at)
